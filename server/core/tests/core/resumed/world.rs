//! A caller, a worker and a broker around one stream; anything may break, in any order.
//! The stream can be replayed, or goes on from its checkpoints.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use asynq_core::{
    Checkpoint, Credit, EmitResume, Event, ItemBatch, LeaseToken, Reply, StateName, StopCause, TaskId, Verdict, limits,
};
use proptest::prelude::*;

use super::{cut, emit, end, flow, mark, marked, open, place};
use crate::shard::{Shard, session};
use crate::streams::{batch, credit, iterate_as, reader};

/// What can happen to a stream.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The run yields so many items, as far as it may.
    Yield(u8),
    /// The reader takes what has come, and tells.
    Take,
    /// The reader's connection is lost; it comes back.
    CutReader,
    /// The Emit breaks, and what was on its way with it.
    CutEmit,
    /// The broker is killed.
    Restart,
    /// The worker is killed.
    KillWorker,
    /// The generator can begin again where it is.
    Mark,
    /// Time passes: what is to be written some time later, is.
    Wait,
    /// Worker and broker are killed.
    KillBoth,
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (1_u8..6).prop_map(Turn::Yield),
        4 => Just(Turn::Take),
        2 => Just(Turn::CutReader),
        2 => Just(Turn::CutEmit),
        1 => Just(Turn::Restart),
        1 => Just(Turn::KillWorker),
        3 => Just(Turn::Mark),
        1 => Just(Turn::Wait),
        1 => Just(Turn::KillBoth),
    ]
}

/// A caller, a worker and a broker around one stream; what is on the way between
/// them can be lost with their connections.
struct World {
    shard: Shard,
    task: TaskId,
    /// Its name says what becomes of it.
    name: &'static str,
    /// The places at which some run said that it can begin again.
    said: BTreeSet<u64>,
    /// Those that the broker knows now, for certain.
    known: BTreeSet<u64>,
    /// Those that the run said, which it says again by another Emit.
    own: Vec<u64>,
    /// What the reader has told it has taken.
    told: u64,
    /// The n-th session; a new one after each kill.
    n: u8,
    token: Option<LeaseToken>,
    /// What the run has sent.
    head: u64,
    /// The first item the run still has.
    floor: u64,
    /// Where the run began.
    begun: u64,
    credit: Credit,
    /// What the reader has been handed, not taken.
    arrived: VecDeque<ItemBatch>,
    open_seq: u64,
    seen: u64,
    window: u64,
}

impl World {
    fn new(name: &'static str, window: u64) -> Self {
        let credit = credit(0, window, 2 * window);
        let mut shard = Shard::new();
        shard.connect(1, 1, &[name]);
        let task = iterate_as(&mut shard, name, credit);
        let mut world = Self {
            shard,
            task,
            name,
            said: BTreeSet::new(),
            known: BTreeSet::new(),
            own: Vec::new(),
            told: 0,
            n: 1,
            token: None,
            head: 0,
            floor: 0,
            begun: 0,
            credit,
            arrived: VecDeque::new(),
            open_seq: 1,
            seen: 0,
            window,
        };
        world.settle();
        world
    }

    /// Looks at all that has happened.
    fn settle(&mut self) {
        for effect in self.shard.drain() {
            match effect {
                asynq_core::Effect::Assign(run) => {
                    let start = run.stream.expect("a stream");
                    assert_eq!(start.start, place(start.start.index), "replayed from another place");
                    assert!(start.start.index >= self.seen, "what was seen would come again");
                    assert_eq!(start.checkpoint.is_some(), self.name == "marked");
                    self.begin(start.start.index, start.checkpoint);
                    (self.token, self.head, self.floor) = (Some(run.token), start.start.index, start.start.index);
                    (self.begun, self.credit) = (self.head, start.credit);
                }
                asynq_core::Effect::Items { batch, .. } => self.arrived.push_back(batch),
                asynq_core::Effect::Credit { token, credit, .. } if Some(token) == self.token => {
                    // Of a broker that was restarted it may know more.
                    self.credit = Credit {
                        acked: self.credit.acked.max(credit.acked),
                        ..credit
                    };
                    self.floor = self.floor.max(credit.acked);
                }
                asynq_core::Effect::SendFrom { from, .. } => {
                    assert!((self.floor..=self.head).contains(&from), "{from} is not to be had");
                    self.head = from;
                }
                asynq_core::Effect::Reading { .. } | asynq_core::Effect::Credit { .. } => {}
                asynq_core::Effect::SessionEnded(_) => {}
                // What the broker had and the run has not went with the broker.
                asynq_core::Effect::Stop { token, cause, .. } => {
                    assert_eq!((Some(token), cause), (self.token, StopCause::Stale));
                    self.token = None;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A run begins at a checkpoint that was said, that is not behind what the broker
    /// has, and that is the last of those it has to know.
    fn begin(&mut self, head: u64, checkpoint: Option<Checkpoint>) {
        self.own.clear();
        self.known.retain(|&index| index <= head);
        let Some(checkpoint) = checkpoint else { return };
        let index = checkpoint.index;
        assert!(index <= head, "it would begin at {index}, beyond {head}");
        if index > 0 {
            assert!(self.said.contains(&index), "nobody said {index}");
            assert_eq!(checkpoint, marked(index));
        } else {
            assert_eq!(checkpoint, Checkpoint::default());
        }
        let last = self.known.last().copied().unwrap_or(0);
        assert!(
            index >= last,
            "it would begin at {index}, and there is a checkpoint at {last}"
        );
    }

    fn mark(&mut self, token: LeaseToken, index: u64) {
        self.said.insert(index);
        self.known.insert(index);
        mark(&mut self.shard, self.n, token, marked(index));
    }

    /// The broker forgets all but what it has written; perhaps it has written more.
    fn restart(&mut self, is_written: bool) {
        self.shard.restart();
        self.arrived.clear();
        let written = match is_written {
            true => self.known.range(..=self.told).copied().last(),
            false => None,
        };
        self.known = written.into_iter().collect();
    }

    fn wait(&mut self, time: Duration) {
        self.shard.advance(time);
        self.shard.apply(Event::Heartbeat(session(self.n)));
        self.settle();
    }

    fn kill_worker(&mut self) {
        self.shard.disconnect(self.n);
        self.token = None;
        self.n += 1;
        self.shard.connect(self.n, 1, &[self.name]);
        self.shard.advance(limits::RESET_GRACE);
    }

    fn reopen_emit(&mut self) {
        let Some(token) = self.token else { return };
        let resume = EmitResume {
            floor: place(self.floor),
            head: self.head,
            credit: self.credit,
        };
        open(&mut self.shard, self.n, token, Some(resume));
        self.settle();
        let is_same = self.token == Some(token);
        let (said, head) = (std::mem::take(&mut self.own), self.head);
        for index in said.into_iter().filter(|&index| is_same && index <= head) {
            self.mark(token, index);
            self.own.push(index);
        }
        self.settle();
    }

    fn come_back(&mut self) {
        self.arrived.clear();
        self.told = self.seen;
        self.open_seq += 1;
        let room = credit(self.seen, self.seen + self.window, 2 * self.window);
        let (task, seq, from) = (self.task, self.open_seq, place(self.seen));
        let reply = self.shard.attach(task, reader(seq, from, room));
        assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
        self.settle();
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Yield(count) => {
                let room = self.credit.limit_index.saturating_sub(self.head);
                let count = u64::from(count).min(room);
                let Some(token) = self.token.filter(|_| count > 0) else {
                    return;
                };
                emit(&mut self.shard, self.n, token, batch(self.head, count as usize));
                self.head += count;
            }
            Turn::Take => {
                for batch in std::mem::take(&mut self.arrived) {
                    assert_eq!(batch.first_index, self.seen, "lost, twice or out of order");
                    self.seen = batch.end();
                }
                let room = credit(self.seen, self.seen + self.window, 2 * (self.seen + self.window));
                flow(&mut self.shard, self.task, room);
                self.told = self.seen;
            }
            Turn::CutReader => {
                cut(&mut self.shard, self.task);
                self.settle();
                self.come_back();
            }
            Turn::CutEmit => {
                // What was sent last never came: but that is as if it had not been
                // sent, so the run sends from where the broker is.
                self.reopen_emit();
            }
            Turn::Restart => {
                self.shard.advance(limits::CLAIM_AFTER);
                self.settle();
                self.restart(false);
                let held: Vec<_> = self.token.into_iter().collect();
                self.shard.resume(self.n, 1, &[self.name], &held);
                self.settle();
                if self.seen.is_multiple_of(2) {
                    self.reopen_emit();
                    self.come_back();
                } else {
                    self.come_back();
                    self.reopen_emit();
                }
            }
            Turn::KillWorker => {
                // A stream that comes on survives any number of them.
                if self.head == self.begun || self.token.is_none() || self.n > 200 {
                    return;
                }
                self.kill_worker();
            }
            Turn::Mark => {
                let Some(token) = self.token.filter(|_| self.name == "marked" && self.head > 0) else {
                    return;
                };
                self.own.push(self.head);
                self.mark(token, self.head);
            }
            Turn::Wait => {
                self.wait(limits::CHECKPOINT_EVERY);
            }
            Turn::KillBoth => {
                if self.token.is_none() {
                    return;
                }
                self.wait(limits::CHECKPOINT_EVERY);
                self.restart(true);
                (self.token, self.n) = (None, self.n + 1);
                self.come_back();
                self.shard.connect(self.n, 1, &[self.name]);
                // Until the lease of the old session is over.
                (0..4).for_each(|_| self.wait(limits::LEASE / 3));
            }
        }
        self.settle();
    }
}

proptest! {
    /// Whatever breaks, in whatever order, the reader sees each item once, in order,
    /// and the run is never further ahead than the window.
    #[test]
    fn every_item_once_in_order_whoever_goes_away(
        name in prop_oneof![Just("replayed"), Just("marked")],
        window in 1_u64..9,
        turns in proptest::collection::vec(any_turn(), 0..60),
    ) {
        let mut world = World::new(name, window);
        for turn in turns {
            world.turn(turn);
            prop_assert!(world.head <= world.seen + window, "{} ahead of {}", world.head, world.seen);
        }
        // And then it comes to its end.
        world.turn(Turn::Take);
        world.turn(Turn::Yield(1));
        world.turn(Turn::Take);
        let token = world.token.expect("it runs");
        let over = end(&mut world.shard, world.n, token, place(world.head));
        prop_assert_eq!(over, Verdict::Accepted(StateName::Succeeded));
        prop_assert_eq!(world.seen, world.head);
        world.shard.drain();
    }
}
