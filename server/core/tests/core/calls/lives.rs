//! Random lives of runs that call, and of those that read what they have called.

use std::collections::BTreeSet;
use std::time::Duration;

use asynq_core::{Closed, Effect, Event, LeaseToken, Place, StopCause, TaskId, limits};
use proptest::prelude::*;

use super::SECOND;
use crate::shard::{Shard, failure, session, spec};
use crate::streams::{credit, reader};

/// What happens to them: whatever it is, the core's books are right after each
/// step, and in the end nothing is left.
#[derive(Debug, Clone)]
enum Step {
    Call(usize, u32),
    /// Calls a stream, which begins once it is read.
    Iterate(usize, u32),
    Read(usize),
    Complete(usize),
    Fail(usize),
    Crash(usize),
    Cancel(usize),
    Withdraw(usize, u32),
    Cut,
    Resume(bool),
    Restart,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<usize>(), 1_u32..4).prop_map(|(run, n)| Step::Call(run, n)),
        3 => (any::<usize>(), 1_u32..4).prop_map(|(run, n)| Step::Iterate(run, n)),
        4 => any::<usize>().prop_map(Step::Read),
        4 => any::<usize>().prop_map(Step::Complete),
        1 => any::<usize>().prop_map(Step::Fail),
        1 => any::<usize>().prop_map(Step::Crash),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => (any::<usize>(), 1_u32..4).prop_map(|(run, n)| Step::Withdraw(run, n)),
        1 => Just(Step::Cut),
        2 => any::<bool>().prop_map(Step::Resume),
        1 => Just(Step::Restart),
        2 => (0_u64..8_000).prop_map(Step::Wait),
    ]
}

/// The one worker as it sees itself: its runs, and whether it has a connection.
struct Here {
    shard: Shard,
    runs: Vec<LeaseToken>,
    /// Of these, the ones whose items are read, and of those before.
    streams: BTreeSet<TaskId>,
    connected: bool,
    opened: u64,
}

impl Here {
    fn listen(&mut self) {
        for effect in self.shard.drain() {
            match effect {
                Effect::Assign(run) if self.connected => {
                    if run.stream.is_some() {
                        self.streams.insert(run.token.task);
                    }
                    self.runs.push(run.token);
                }
                Effect::Stop { token, cause, .. } if self.connected => {
                    self.runs.retain(|run| *run != token);
                    if cause != StopCause::Stale {
                        self.shard.ended(1, token);
                    }
                }
                Effect::SessionEnded(_) => self.connected = false,
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        // What is stopped may stop more.
        for _ in 0..=limits::MAX_CALL_DEPTH {
            self.listen();
        }
    }

    fn hello(&mut self, with_runs: bool) {
        if !with_runs || !self.shard.core.knows_session(session(1)) {
            self.runs.clear();
        }
        self.connected = true;
        let runs = self.runs.clone();
        self.shard.resume(1, 2, &["down", "rows"], &runs);
    }

    fn run(&self, at: usize) -> Option<LeaseToken> {
        Some(self.runs[at.checked_rem(self.runs.len())?])
    }

    fn over(&mut self, token: LeaseToken) {
        self.runs.retain(|run| *run != token);
    }

    fn complete(&mut self, token: LeaseToken) {
        if !self.streams.contains(&token.task) {
            self.shard.complete(1, token);
            return;
        }
        self.shard.apply(Event::Iterated {
            session: session(1),
            token,
            count: 0,
            digest: None,
        });
    }

    fn step(&mut self, step: &Step) {
        let run = match step {
            Step::Call(at, _)
            | Step::Iterate(at, _)
            | Step::Complete(at)
            | Step::Fail(at)
            | Step::Crash(at)
            | Step::Withdraw(at, _) => self.run(*at).filter(|_| self.connected),
            _ => None,
        };
        match (step, run) {
            (Step::Call(_, n), Some(run)) => drop(self.shard.call(1, run, *n, &spec("down"))),
            (Step::Iterate(_, n), Some(run)) => {
                let rows = spec("rows").with(|options| options.stream = true);
                drop(self.shard.call(1, run, *n, &rows));
            }
            (Step::Read(at), _) => {
                let ids: Vec<_> = self.shard.ids_known().into_iter().collect();
                self.opened += 1;
                // Of a task that is no stream, or is over, it is refused.
                drop(self.shard.attach(
                    ids[at % ids.len()],
                    reader(self.opened, Place::START, credit(0, 4, 100)),
                ));
            }
            (Step::Complete(_), Some(run)) => {
                self.over(run);
                self.complete(run);
            }
            (Step::Fail(_), Some(run)) => {
                self.over(run);
                self.shard.fail(1, run, failure("no", true));
            }
            (Step::Crash(_), Some(run)) => {
                self.over(run);
                self.shard.crash(1, run, failure("no", true));
            }
            (Step::Withdraw(_, n), Some(token)) => self.shard.apply(Event::Withdraw {
                session: session(1),
                token,
                n: *n,
            }),
            (Step::Cancel(at), _) => {
                let ids: Vec<_> = self.shard.ids_known().into_iter().collect();
                let id = ids[at % ids.len()];
                drop(self.shard.cancel(id));
            }
            (Step::Cut, _) if self.connected => {
                self.connected = false;
                self.shard.close(1, Closed::Reset);
            }
            (Step::Resume(with_runs), _) if !self.connected => self.hello(*with_runs),
            (Step::Restart, _) => {
                self.connected = false;
                self.shard.restart();
            }
            (Step::Wait(ms), _) => {
                if self.connected {
                    self.shard.apply(Event::Heartbeat(session(1)));
                }
                self.shard.advance(Duration::from_millis(*ms));
            }
            _ => {}
        }
        self.settle();
    }
}

proptest! {
    #[test]
    fn any_lives_of_callers_leave_nothing_behind(steps in proptest::collection::vec(any_step(), 1..120)) {
        let mut shard = Shard::new();
        shard.connect(1, 2, &["down", "rows"]);
        for _ in 0..4 {
            shard.enqueue(&spec("down").with(|options| options.max_attempts = Some(3)));
        }
        let mut here = Here { shard, runs: Vec::new(), streams: BTreeSet::new(), connected: true, opened: 0 };
        here.settle();
        for step in &steps {
            here.step(step);
        }
        if !here.connected {
            here.hello(true);
            here.settle();
        }
        // All runs return, in the end.
        for _ in 0..10_000 {
            here.settle();
            match here.runs.pop() {
                Some(run) => {
                    here.complete(run);
                }
                None if here.shard.core.queues(here.shard.now).iter().all(|queue| {
                    queue.counts.iter().all(|(state, count)| state.is_terminal() || *count == 0)
                }) => break,
                None => {
                    here.shard.apply(Event::Heartbeat(session(1)));
                    here.shard.advance(5 * SECOND);
                }
            }
        }
        here.settle();
        for id in here.shard.ids_known() {
            prop_assert!(here.shard.durable.state(id).is_terminal(), "{id} is left: {:?}", here.shard.core.task(id));
        }
        prop_assert_eq!(here.shard.core.workers()[0].busy, 0);
    }
}
