//! A run of a generator that has yielded items before, in another run: what was
//! sent then is made again, held against its digest and left out.

use std::sync::OnceLock;
use std::task::{self, Poll, ready};

use asynq_proto::limits::MAX_BATCH_OPS;
use asynq_proto::v1::{self, Checkpoint};
use asynq_proto::{KIND_NON_DETERMINISTIC, Place, TaskError};

use crate::context::Context;
use crate::items::{BlockingItems, Items, Pulled};

/// Where the items begin that a run sends, and whether its generator begins there
/// by itself.
#[derive(Debug)]
pub(crate) struct Start {
    place: Place,
    /// Where its generator begins, if its iterator has checkpoints.
    checkpoint: Option<Checkpoint>,
    /// Settled when the generator asks, or with its first item.
    seeks: OnceLock<bool>,
}

impl Default for Start {
    fn default() -> Self {
        Self::new(Place::START, None)
    }
}

impl Start {
    pub(crate) fn new(place: Place, checkpoint: Option<Checkpoint>) -> Self {
        Self {
            place,
            checkpoint,
            seeks: OnceLock::new(),
        }
    }

    /// What the generator is told to begin with: from now on it is one that seeks.
    pub(crate) fn tell(&self) -> u64 {
        let index = match &self.checkpoint {
            Some(checkpoint) => checkpoint.index,
            None => self.place.index.saturating_sub(1),
        };
        let is_first = self.place.index == 0;
        match is_first || *self.seeks.get_or_init(|| true) {
            true => index,
            false => 0, // too late, it has begun
        }
    }

    /// The checkpoint it is told to begin at, if it is not the beginning.
    pub(crate) fn tell_checkpoint(&self) -> Option<&Checkpoint> {
        let index = self.tell();
        self.checkpoint.as_ref().filter(|_| index > 0)
    }

    /// Whether it may yield checkpoints.
    pub(super) fn has_checkpoints(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// The generator has yielded something, or has ended: by then it must know where it
    /// was to begin, or it has begun somewhere else.
    pub(super) fn begun(&self) -> Result<(), TaskError> {
        let has_asked = *self.seeks.get_or_init(|| false);
        match &self.checkpoint {
            Some(checkpoint) if checkpoint.index > 0 && !has_asked => Err(TaskError::terminal(format!(
                "it was to go on from its checkpoint at item {}, and did not ask for it before its first item \
                 (start_checkpoint)",
                checkpoint.index
            ))),
            _ => Ok(()),
        }
    }

    /// Items that are to be left out, as far as is known before the first.
    fn leaves_out(&self) -> bool {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index) < self.place.index
    }

    /// The first item to be sent.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The generator yields its first item: where it has begun.
    fn begin(&self) -> Place {
        if let Some(checkpoint) = &self.checkpoint {
            // They are counted, not compared.
            return Place {
                index: checkpoint.index,
                byte: 0,
                digest: None,
                before: None,
            };
        }
        let Place {
            index, digest, before, ..
        } = self.place;
        if *self.seeks.get_or_init(|| false) {
            // Of the bytes before there it knows nothing, and need not.
            return Place {
                index: index - 1,
                byte: 0,
                digest: before,
                before: None,
            };
        }
        Place {
            digest: digest.and(Place::START.digest), // else there is nothing to compare
            ..Place::START
        }
    }
}

/// The items to leave out.
pub(super) struct Replay {
    run: Context,
    /// Behind the last one that came.
    at: Option<Place>,
}

impl Replay {
    /// `None` if there are none.
    pub(super) fn of(run: &Context) -> Option<Self> {
        run.start().leaves_out().then(|| Self {
            run: run.clone(),
            at: None,
        })
    }

    /// Leaves out an item; `true` if that was the last.
    ///
    /// # Errors
    /// If it was, and they are not those that were sent before.
    pub(super) fn leave_out(&mut self, item: &[u8]) -> Result<bool, TaskError> {
        let start = self.run.start();
        start.begun()?;
        let at = self.at.get_or_insert_with(|| start.begin());
        at.pass(item);
        if at.index < start.place.index {
            return Ok(false);
        }
        let (now, before) = (at.digest, start.place.digest);
        if now.is_some() && before.is_some() && now != before {
            let last = start.place.index - 1;
            return Err(diverged(&match start.seeks.get() {
                Some(true) => format!("item {last}, with which it began,"),
                _ => format!("item {last}, or one before it,"),
            }));
        }
        Ok(true)
    }

    /// The generator has ended before the last of them.
    pub(super) fn ended(&self) -> TaskError {
        let start = self.run.start();
        let index = self.at.unwrap_or_else(|| start.begin()).index;
        different(&format!(
            "it ended before item {index}, and {} had been sent",
            start.place.index
        ))
    }

    /// Leaves them all out, unless the run is told to stop before: then `false`.
    pub(super) fn run(mut self, items: &mut dyn BlockingItems, wanted: impl Fn() -> bool) -> Result<bool, TaskError> {
        let mut item = Vec::new();
        while wanted() {
            item.clear();
            let pulled = items.next(&mut item).ok_or_else(|| self.ended())?;
            if pulled?.item.is_some() && self.leave_out(&item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn diverged(what: &str) -> TaskError {
    different(&format!("{what} is not what was sent"))
}

/// Another attempt would be no better.
fn different(how: &str) -> TaskError {
    TaskError::terminal(format!("run again, it yielded other items than before: {how}"))
        .with_kind(KIND_NON_DETERMINISTIC)
}

/// An async generator of such a run.
pub(super) struct Replayed {
    items: Box<dyn Items>,
    replay: Replay,
    /// The item that is left out next.
    item: Vec<u8>,
}

impl Replayed {
    pub(super) fn new(items: Box<dyn Items>, replay: Replay) -> Self {
        let item = Vec::new();
        Self { items, replay, item }
    }
}

impl Items for Replayed {
    fn poll_next(&mut self, cx: &mut task::Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled> {
        self.items.poll_next(cx, out)
    }

    fn poll_start(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), TaskError>> {
        // One that is always ready must let others have their turn.
        for _ in 0..MAX_BATCH_OPS {
            if self.replay.run.is_stopped() {
                return Poll::Pending;
            }
            self.item.clear();
            let Some(pulled) = ready!(self.items.poll_next(cx, &mut self.item)) else {
                return Poll::Ready(Err(self.replay.ended()));
            };
            if pulled?.item.is_some() && self.replay.leave_out(&self.item)? {
                self.item = Vec::new();
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn allow(&mut self, credit: v1::Credit) {
        self.items.allow(credit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::context::Control;
    use crate::emit::tests::context;
    use crate::items::MediaType;

    struct Bytes(VecDeque<Vec<u8>>);

    impl BlockingItems for Bytes {
        fn next(&mut self, out: &mut Vec<u8>) -> Pulled {
            out.extend(self.0.pop_front()?);
            Some(Ok(MediaType::new().into()))
        }
    }

    fn place(items: &[Vec<u8>]) -> Place {
        let mut place = Place::START;
        items.iter().for_each(|item| place.pass(item));
        place
    }

    fn items() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..20)
    }

    proptest! {
        #[test]
        fn what_was_sent_is_left_out_and_only_if_it_is_the_same(
            items in items(),
            sent in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
            how in any::<(bool, bool, bool)>(),
        ) {
            let (seeks, differs, known) = how;
            let sent = sent.index(items.len()) + 1;
            let mut start = place(&items[..sent]);
            if !known {
                (start.digest, start.before) = (None, None);
            }
            let run = context(&Control::default(), start);
            let begin = if seeks { run.start_index() as usize } else { 0 };
            prop_assert_eq!(begin, if seeks { sent - 1 } else { 0 });
            let mut now = items.clone();
            let other = other.index(items.len());
            if differs {
                now[other].push(0);
            }
            let mut now = Bytes(now[begin..].to_vec().into());
            let replayed = Replay::of(&run).expect("items were sent").run(&mut now, || true);
            let seen = differs && known && (begin..sent).contains(&other);
            match replayed {
                Err(error) => {
                    prop_assert!(seen, "{:?}", error);
                    prop_assert_eq!((error.kind.as_str(), error.retryable), (KIND_NON_DETERMINISTIC, false));
                    let named = format!("item {}", sent - 1);
                    prop_assert!(error.message.contains(&named), "{}", error.message);
                }
                Ok(whole) => prop_assert!(whole && !seen),
            }
            prop_assert_eq!(now.0.len(), items.len() - sent, "no more than these are pulled");
        }
    }

    #[test]
    fn one_that_ends_too_soon_is_another() {
        let items: Vec<_> = (0..5).map(|i| vec![i]).collect();
        for (seeks, left, ended) in [(false, &items[..3], 3), (false, &[], 0), (true, &[], 4)] {
            let run = context(&Control::default(), place(&items));
            if seeks {
                assert_eq!(run.start_index(), 4);
            }
            let mut now = Bytes(left.to_vec().into());
            let error = Replay::of(&run).unwrap().run(&mut now, || true).unwrap_err();
            assert_eq!((error.kind.as_str(), error.retryable), (KIND_NON_DETERMINISTIC, false));
            let said = format!("it ended before item {ended}, and 5 had been sent");
            assert!(error.message.ends_with(&said), "{}", error.message);
        }
    }

    #[test]
    fn who_asks_too_late_is_told_that_it_began_at_the_beginning() {
        let items = [vec![1], vec![2]];
        let run = context(&Control::default(), place(&items));
        let mut replay = Replay::of(&run).unwrap();
        assert_eq!(replay.leave_out(&items[0]), Ok(false));
        assert_eq!(run.start_index(), 0);
        assert_eq!(replay.leave_out(&items[1]), Ok(true));
        // One that asked in time is told the same each time.
        let run = context(&Control::default(), place(&items));
        assert_eq!((run.start_index(), run.start_index()), (1, 1));
        assert_eq!(Replay::of(&run).unwrap().leave_out(&items[1]), Ok(true));
        assert_eq!(run.start_index(), 1);
        // A first run has nothing to leave out.
        let run = context(&Control::default(), Place::START);
        assert_eq!(run.start_index(), 0);
        assert!(Replay::of(&run).is_none());
    }

    #[test]
    fn a_failure_is_its_own_and_who_is_not_wanted_stops() {
        struct Failing;
        impl BlockingItems for Failing {
            fn next(&mut self, _: &mut Vec<u8>) -> Pulled {
                Some(Err(TaskError::retryable("no disk")))
            }
        }
        let run = context(&Control::default(), place(&[vec![1]]));
        let replay = || Replay::of(&run).unwrap();
        assert_eq!(
            replay().run(&mut Failing, || true),
            Err(TaskError::retryable("no disk"))
        );
        assert_eq!(replay().run(&mut Failing, || false), Ok(false));
    }
}
