//! Where the generator of a stream can begin again: what is known of it, and what of
//! that is written down.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::core::{Core, Output};
use crate::ids::{LeaseToken, SessionId};
use crate::limits;
use crate::sched::TaskKey;
use crate::task::OnLoss;
use crate::time::Timestamp;

/// A place where a generator can begin again. Of the place the index is enough: what
/// a run yields from there on is counted, not compared.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Items before it; 0 is the beginning, which needs no token.
    pub index: u64,
    /// What the generator wants to be given there, at most
    /// [`limits::MAX_CHECKPOINT_BYTES`].
    pub token: Bytes,
}

/// The checkpoints of one stream, as many of them as may be of use.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The last one of which all items have been acknowledged. It only moves on, and
    /// is the one that is written.
    safe: Option<Checkpoint>,
    /// Later ones, in order: one of them is to be `safe` once the reader has come so
    /// far, and the last is where a run begins while the broker lives.
    later: VecDeque<Checkpoint>,
    /// The index of the one that is written.
    written: u64,
}

impl Checkpoints {
    /// As it was written.
    pub(super) fn restored(safe: Option<Checkpoint>) -> Self {
        Self {
            written: safe.as_ref().map_or(0, |safe| safe.index),
            safe,
            later: VecDeque::new(),
        }
    }

    pub(super) fn safe(&self) -> Option<&Checkpoint> {
        self.safe.as_ref()
    }

    /// Nobody can want items before it any more.
    pub(super) fn safe_index(&self) -> u64 {
        self.safe.as_ref().map_or(0, |safe| safe.index)
    }

    /// Takes one in, unless it is older than what is known: an Emit that broke says some
    /// twice. Of several behind the same item the last one counts: a generator may come
    /// on for long without an item.
    fn add(&mut self, checkpoint: Checkpoint) {
        let last = self.later.back_mut().or(self.safe.as_mut());
        match last.filter(|last| last.index >= checkpoint.index) {
            Some(last) if *last == checkpoint || last.index > checkpoint.index => return,
            Some(last) => {
                *last = checkpoint;
                if self.later.is_empty() {
                    self.written = 0; // that one is not
                }
                return;
            }
            None if checkpoint.index == 0 => return,
            None => {}
        }
        self.later.push_back(checkpoint);
        while self.is_crowded() {
            // Never the first: a reader a window behind would find that the next one to
            // become safe has always been dropped. Never the last: a run begins there.
            let gap = |&at: &usize| self.later[at + 1].index - self.later[at - 1].index;
            let Some(closest) = (1..self.later.len() - 1).min_by_key(gap) else {
                break;
            };
            self.later.remove(closest);
        }
    }

    fn is_crowded(&self) -> bool {
        let bytes = || self.later.iter().map(|it| it.token.len()).sum::<usize>();
        self.later.len() > limits::KEPT_CHECKPOINTS || bytes() > limits::KEPT_CHECKPOINT_BYTES
    }

    /// All items before `floor` have been acknowledged.
    pub(super) fn settle(&mut self, floor: u64) {
        while let Some(passed) = self.later.pop_front_if(|first| first.index <= floor) {
            self.safe = Some(passed);
        }
    }

    /// The stream goes on from `index`: what was said of places behind that is void.
    pub(super) fn cut(&mut self, index: u64) {
        self.later.retain(|checkpoint| checkpoint.index <= index);
    }

    /// The last one that is not behind `index`; else the beginning.
    pub(super) fn before(&self, index: u64) -> Checkpoint {
        let mut last_first = self.later.iter().rev().chain(&self.safe);
        let known = last_first.find(|checkpoint| checkpoint.index <= index);
        known.cloned().unwrap_or_default()
    }

    /// Asserts what always holds in a stream that has come to `head`. For tests.
    pub(super) fn check(&self, head: u64) {
        let mut last = self.safe_index();
        for checkpoint in &self.later {
            assert!(checkpoint.index > last, "checkpoints are out of order");
            last = checkpoint.index;
        }
        assert!(
            self.later.is_empty() || last <= head,
            "a checkpoint of what has not come"
        );
        assert!(!self.is_crowded() || self.later.len() <= 2, "too many checkpoints");
        assert!(self.written <= self.safe_index(), "one is written that is not safe");
    }
}

impl Core {
    /// A generator can begin again behind the items it has yielded so far.
    pub(crate) fn on_checkpoint(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        checkpoint: Checkpoint,
        out: &mut Output,
    ) {
        let Some(key) = self.held_run(session, token) else {
            return; // Its items were stale before it.
        };
        if self.stop_intent(key).is_some() {
            return;
        }
        let problem = match self.stream_mut(key) {
            None => "a checkpoint was sent, but nobody asked for a stream".into(),
            Some(stream) if stream.on_loss != OnLoss::Checkpoint => {
                "a checkpoint was sent by an iterator that is declared to have none".into()
            }
            Some(stream) if !stream.has_come_to(checkpoint.index) => format!(
                "a checkpoint before item {} was sent where item {} was due",
                checkpoint.index, stream.head.index
            ),
            Some(stream) => {
                stream.checkpoints.add(checkpoint);
                return self.settle_checkpoints(now, key);
            }
        };
        self.break_off(now, key, problem, out);
    }

    /// Looks which checkpoints the reader has passed. One is written some time later,
    /// and those that follow until then cost nothing.
    pub(crate) fn settle_checkpoints(&mut self, now: Timestamp, key: TaskKey) {
        let Some(stream) = self.stream_mut(key) else { return };
        stream.settle_checkpoints();
        let checkpoints = &stream.checkpoints;
        if checkpoints.safe_index() > checkpoints.written && stream.write_at.is_none() {
            self.with_stream(key, |stream| stream.write_at = Some(now + limits::CHECKPOINT_EVERY));
        }
    }

    /// It is time to write one.
    pub(crate) fn on_checkpoint_due(&mut self, key: TaskKey, out: &mut Output) {
        self.with_stream(key, |stream| {
            stream.write_at = None;
            stream.checkpoints.written = stream.checkpoints.safe_index();
        });
        if let Some(held) = self.tasks[key.index()].held_mut() {
            held.claimed = true;
        }
        self.remember(key, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, bytes: usize) -> Checkpoint {
        let token = Bytes::from(vec![index as u8; bytes]);
        Checkpoint { index, token }
    }

    fn indexes(checkpoints: &Checkpoints) -> Vec<u64> {
        checkpoints.later.iter().map(|it| it.index).collect()
    }

    #[test]
    fn however_many_are_said_one_becomes_safe_as_the_reader_comes_on() {
        // One behind every item, and a reader who is always a window behind.
        let (window, mut checkpoints) = (100, Checkpoints::default());
        for head in 1..=1_000_u64 {
            checkpoints.add(at(head, 1));
            let floor = head.saturating_sub(window);
            checkpoints.settle(floor);
            checkpoints.check(head);
            assert_eq!(checkpoints.before(head), at(head, 1), "a run begins at the last");
            assert!(floor - checkpoints.safe_index() <= window, "{floor}: {checkpoints:?}");
        }
        assert!(checkpoints.safe_index() >= 800, "{checkpoints:?}");
    }

    #[test]
    fn they_are_few_and_small_but_two_there_may_always_be() {
        let mut checkpoints = Checkpoints::default();
        (1..=20).for_each(|index| checkpoints.add(at(index, 0)));
        assert_eq!(checkpoints.later.len(), limits::KEPT_CHECKPOINTS);
        let mut checkpoints = Checkpoints::default();
        let most = limits::KEPT_CHECKPOINT_BYTES / limits::MAX_CHECKPOINT_BYTES;
        (1..=20).for_each(|index| checkpoints.add(at(index, limits::MAX_CHECKPOINT_BYTES)));
        assert_eq!(checkpoints.later.len(), most);
        assert_eq!((indexes(&checkpoints)[0], indexes(&checkpoints).last()), (1, Some(&20)));
    }

    #[test]
    fn what_is_known_already_or_void_is_left_out() {
        let mut checkpoints = Checkpoints::restored(Some(at(3, 1)));
        assert_eq!((checkpoints.written, checkpoints.before(2)), (3, Checkpoint::default()));
        for index in [2, 3, 5, 5, 4, 7] {
            checkpoints.add(at(index, 1));
        }
        assert_eq!(indexes(&checkpoints), [5, 7]);
        assert_eq!((checkpoints.before(6), checkpoints.before(4)), (at(5, 1), at(3, 1)));
        checkpoints.cut(6);
        assert_eq!(indexes(&checkpoints), [5]);
        checkpoints.settle(5);
        assert_eq!((checkpoints.safe(), indexes(&checkpoints)), (Some(&at(5, 1)), vec![]));
        checkpoints.cut(4);
        assert_eq!(checkpoints.safe_index(), 5, "what is acknowledged stays so");
    }

    #[test]
    fn of_several_behind_an_item_the_last_counts_and_is_written() {
        let mut checkpoints = Checkpoints::default();
        checkpoints.add(Checkpoint::default());
        assert_eq!(checkpoints.before(9), Checkpoint::default());
        for bytes in [1, 2, 3] {
            checkpoints.add(at(5, bytes));
            assert_eq!(checkpoints.before(9), at(5, bytes));
        }
        checkpoints.settle(5);
        checkpoints.written = 5;
        checkpoints.add(at(5, 3));
        assert_eq!(checkpoints.written, 5, "it is known");
        checkpoints.add(at(5, 4));
        checkpoints.check(5);
        assert_eq!((checkpoints.safe(), checkpoints.written), (Some(&at(5, 4)), 0));
    }
}
