//! A caller, a worker and a broker around one stream; anything may break, in any order.

use std::collections::VecDeque;

use asynq_core::{Credit, EmitResume, ItemBatch, LeaseToken, Reply, StateName, StopCause, TaskId, Verdict, limits};
use proptest::prelude::*;

use super::{cut, emit, end, flow, open, place};
use crate::shard::Shard;
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
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        6 => (1_u8..6).prop_map(Turn::Yield),
        4 => Just(Turn::Take),
        2 => Just(Turn::CutReader),
        2 => Just(Turn::CutEmit),
        1 => Just(Turn::Restart),
        1 => Just(Turn::KillWorker),
    ]
}

/// A caller, a worker and a broker around one stream; what is on the way between
/// them can be lost with their connections.
struct World {
    shard: Shard,
    task: TaskId,
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
    fn new(window: u64) -> Self {
        let credit = credit(0, window, 2 * window);
        let mut shard = Shard::new();
        shard.connect(1, 1, &["replayed"]);
        let task = iterate_as(&mut shard, "replayed", credit);
        let mut world = Self {
            shard,
            task,
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
                    (self.token, self.head, self.floor) = (Some(run.token), start.start.index, start.start.index);
                    (self.begun, self.credit) = (self.head, start.credit);
                }
                asynq_core::Effect::Items { batch, .. } => self.arrived.push_back(batch),
                asynq_core::Effect::Credit { token, credit, .. } if Some(token) == self.token => {
                    self.credit = credit;
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

    fn reopen_emit(&mut self) {
        let Some(token) = self.token else { return };
        let resume = EmitResume {
            floor: place(self.floor),
            head: self.head,
            credit: self.credit,
        };
        open(&mut self.shard, self.n, token, Some(resume));
        self.settle();
    }

    fn come_back(&mut self) {
        self.arrived.clear();
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
                self.shard.restart();
                self.arrived.clear();
                let held: Vec<_> = self.token.into_iter().collect();
                self.shard.resume(self.n, 1, &["replayed"], &held);
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
                self.shard.disconnect(self.n);
                self.token = None;
                self.n += 1;
                self.shard.connect(self.n, 1, &["replayed"]);
                self.shard.advance(limits::RESET_GRACE);
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
        window in 1_u64..9,
        turns in proptest::collection::vec(any_turn(), 0..60),
    ) {
        let mut world = World::new(window);
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
