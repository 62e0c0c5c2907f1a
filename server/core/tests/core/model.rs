//! Random lives against a small reference: what each task's worker, counters
//! and end must be, told by a model that knows no scheduler, timers or slots.
//! The broker is restarted on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use asynq_core::{
    CancelOutcome, Counters, Effect, Event, LeaseToken, Outcome, Refusal, Reply, StateName, StopCause, TaskId, Verdict,
    limits,
};
use proptest::prelude::*;

use crate::shard::{Shard, failure, session, spec};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        name: usize,
        series: u8,
        niceness: i32,
        timeout: bool,
        delay: bool,
        attempts: u32,
    },
    Cancel(usize),
    Connect {
        n: u8,
        slots: u32,
        names: usize,
    },
    Disconnect(u8),
    Resume(u8),
    Drain(u8),
    Heartbeat(u8),
    Complete(usize),
    Fail(usize, bool),
    Release(usize),
    Ended(usize),
    Replay(usize),
    Retry(usize),
    Advance(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0_u8..4;
    prop_oneof![
        8 => (0..3_usize, 0..3_u8, -20..=20_i32, any::<bool>(), any::<bool>(), 1..4_u32).prop_map(
            |(name, series, niceness, timeout, delay, attempts)| Step::Enqueue {
                name, series, niceness, timeout, delay, attempts
            }
        ),
        2 => any::<usize>().prop_map(Step::Cancel),
        3 => (n.clone(), 1..4_u32, 1..8_usize).prop_map(|(n, slots, names)| Step::Connect { n, slots, names }),
        1 => n.clone().prop_map(Step::Disconnect),
        2 => n.clone().prop_map(Step::Resume),
        1 => n.clone().prop_map(Step::Drain),
        4 => n.prop_map(Step::Heartbeat),
        8 => any::<usize>().prop_map(Step::Complete),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(i, r)| Step::Fail(i, r)),
        2 => any::<usize>().prop_map(Step::Release),
        3 => any::<usize>().prop_map(Step::Ended),
        1 => any::<usize>().prop_map(Step::Replay),
        2 => any::<usize>().prop_map(Step::Retry),
        6 => (0..12_000_u64).prop_map(Step::Advance),
        1 => Just(Step::Restart),
    ]
}

/// What the reference knows.
#[derive(Default)]
struct World {
    /// Every task ever accepted, and whether it has ended.
    tasks: BTreeMap<TaskId, Option<Outcome>>,
    /// Runs as the workers see them: granted, not ended, not told to be stale.
    runs: BTreeMap<LeaseToken, u8>,
    /// Runs told to stop.
    stopping: BTreeSet<LeaseToken>,
    /// The latest grant of each task.
    granted: BTreeMap<TaskId, LeaseToken>,
    /// Tokens that must be refused from now on.
    spent: BTreeSet<LeaseToken>,
    connected: BTreeMap<u8, (u32, usize)>,
}

impl World {
    fn pick(&self, i: usize) -> Option<(LeaseToken, u8)> {
        let connected: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, n)| self.connected.contains_key(n))
            .collect();
        (!connected.is_empty()).then(|| (*connected[i % connected.len()].0, *connected[i % connected.len()].1))
    }

    fn take(&mut self, shard: &mut Shard) {
        for effect in shard.drain() {
            match effect {
                Effect::Assign(run) => {
                    assert_eq!(self.tasks.get(&run.token.task), Some(&None), "a grant after the end");
                    let n = run.session.0[0];
                    let (_, names) = self.connected.get(&n).expect("only connected workers get runs");
                    let known = NAMES
                        .iter()
                        .enumerate()
                        .any(|(i, name)| names & (1 << i) != 0 && run.name.as_str() == *name);
                    assert!(known, "a run for a worker that cannot run it");
                    if let Some(before) = self.granted.insert(run.token.task, run.token) {
                        assert!(before < run.token, "grants rise: {before:?} then {:?}", run.token);
                        self.spent.insert(before);
                    }
                    self.runs.insert(run.token, n);
                }
                Effect::Stop { token, cause, session } => match cause {
                    StopCause::Stale => {
                        self.runs.remove(&token);
                    }
                    StopCause::Cancelled | StopCause::Timeout | StopCause::Deadline => {
                        assert_eq!(
                            self.granted.get(&token.task),
                            Some(&token),
                            "only the current run is stopped"
                        );
                        assert!(self.runs.get(&token).is_none_or(|&n| n == session.0[0]));
                        self.stopping.insert(token);
                    }
                },
                Effect::Finished(finished) => {
                    let ended = self.tasks.insert(finished.task, Some(finished.outcome));
                    assert_eq!(ended, Some(None), "a task ends once");
                    if let Some(&token) = self.granted.get(&finished.task) {
                        self.spent.insert(token);
                    }
                }
                Effect::SessionEnded(id) => {
                    self.connected.remove(&id.0[0]);
                }
                Effect::Credit { .. }
                | Effect::Items { .. }
                | Effect::Reading { .. }
                | Effect::NotRead { .. }
                | Effect::SendFrom { .. } => panic!("nobody asked for a stream: {effect:?}"),
                Effect::Reply(..) | Effect::Ack { .. } => panic!("answered in its own step: {effect:?}"),
            }
        }
    }

    /// The reference's own idea of what may come of a message about a run.
    fn expect(&self, token: LeaseToken, verdict: Verdict, allowed: &[StateName]) {
        match verdict {
            Verdict::Accepted(state) => {
                assert!(!self.spent.contains(&token), "{token:?} was spent");
                assert_eq!(self.granted.get(&token.task), Some(&token));
                let stopped = [
                    StateName::Cancelled,
                    StateName::Scheduled,
                    StateName::Dead,
                    StateName::Expired,
                ];
                let allowed = if self.stopping.contains(&token) {
                    &stopped[..]
                } else {
                    allowed
                };
                assert!(allowed.contains(&state), "{state:?} is none of {allowed:?}");
            }
            Verdict::Stale(_) => {}
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut shard = Shard::new();
    let mut world = World::default();
    let mut all: Vec<TaskId> = Vec::new();
    for step in steps {
        match step {
            Step::Enqueue {
                name,
                series,
                niceness,
                timeout,
                delay,
                attempts,
            } => {
                let mut spec = spec(NAMES[name])
                    .series(series.to_string())
                    .niceness(niceness)
                    .with(|o| {
                        o.timeout = timeout.then_some(Duration::from_secs(2));
                        o.max_attempts = Some(attempts);
                    });
                spec.start_at = delay.then_some(shard.now + Duration::from_secs(1));
                let id = shard.new_id();
                world.tasks.insert(id, None);
                let reply = shard.try_enqueue(id, &spec);
                assert!(matches!(reply, Reply::Enqueued { existed: false, .. }), "{reply:?}");
                all.push(id);
            }
            Step::Cancel(i) if !all.is_empty() => {
                let id = all[i % all.len()];
                let ended = world.tasks[&id].is_some();
                match shard.cancel(id) {
                    Reply::Cancelled {
                        outcome: CancelOutcome::Cancelled,
                        ..
                    } => assert!(!ended),
                    Reply::Cancelled {
                        outcome: CancelOutcome::Stopping,
                        ..
                    } => {
                        assert!(
                            !ended && world.granted.contains_key(&id),
                            "what was never granted does not stop"
                        );
                    }
                    reply => assert!(ended, "{reply:?}"),
                }
            }
            Step::Connect { n, slots, names } if !world.connected.contains_key(&n) => {
                world.runs.retain(|_, owner| *owner != n);
                world.connected.insert(n, (slots, names));
                connect(&mut shard, n, slots, names, &[]);
            }
            Step::Resume(n) if !world.connected.contains_key(&n) => {
                let held: Vec<_> = world
                    .runs
                    .iter()
                    .filter(|(_, o)| **o == n)
                    .map(|(token, _)| *token)
                    .collect();
                world.connected.insert(n, (2, 7));
                connect(&mut shard, n, 2, 7, &held);
            }
            Step::Disconnect(n) if world.connected.remove(&n).is_some() => shard.disconnect(n),
            Step::Drain(n) if world.connected.contains_key(&n) => shard.apply(Event::Draining(session(n))),
            Step::Heartbeat(n) if world.connected.contains_key(&n) => shard.apply(Event::Heartbeat(session(n))),
            Step::Complete(i) => {
                if let Some((token, n)) = world.pick(i) {
                    world.runs.remove(&token);
                    let verdict = shard.complete(n, token);
                    world.expect(token, verdict, &[StateName::Succeeded]);
                }
            }
            Step::Fail(i, retryable) => {
                if let Some((token, n)) = world.pick(i) {
                    world.runs.remove(&token);
                    let verdict = shard.fail(n, token, failure("x", retryable));
                    let all = [StateName::Dead, StateName::Scheduled];
                    world.expect(token, verdict, if retryable { &all } else { &all[..1] });
                }
            }
            Step::Release(i) => {
                if let Some((token, n)) = world.pick(i) {
                    world.runs.remove(&token);
                    let verdict = shard.release(n, token);
                    world.expect(token, verdict, &[StateName::Ready]);
                }
            }
            Step::Ended(i) => {
                if let Some((token, n)) = world.pick(i).filter(|(token, _)| world.stopping.contains(token)) {
                    world.runs.remove(&token);
                    let verdict = shard.ended(n, token);
                    world.expect(token, verdict, &[]);
                }
            }
            Step::Replay(i) if !world.spent.is_empty() => {
                let token = *world.spent.iter().nth(i % world.spent.len()).expect("in range");
                for n in 0..4 {
                    let verdict = shard.complete(n, token);
                    assert!(matches!(verdict, Verdict::Stale(_)), "a spent token is refused");
                }
            }
            Step::Retry(i) if !all.is_empty() => {
                let id = all[i % all.len()];
                let was = world.tasks[&id].clone();
                match (shard.retry(id), was) {
                    (Reply::Retried { revived: true, .. }, Some(Outcome::Dead(_))) => {
                        world.tasks.insert(id, None);
                        assert_eq!(shard.durable.record(id).counters, Counters::default());
                    }
                    (Reply::Retried { revived: false, .. }, None)
                    | (
                        Reply::Refused(Refusal::NotDead { .. }),
                        Some(Outcome::Succeeded | Outcome::Cancelled | Outcome::Expired),
                    ) => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::Advance(ms) => shard.advance(Duration::from_millis(ms)),
            Step::Restart => {
                world.take(&mut shard);
                world.connected.clear();
                let known = shard.ids_known();
                assert!(
                    world.tasks.keys().all(|id| known.contains(id)),
                    "an accepted task is lost"
                );
                for (id, ended) in &world.tasks {
                    assert_eq!(shard.durable.state(*id).is_terminal(), ended.is_some(), "{id}");
                }
                shard.restart();
            }
            Step::Cancel(_)
            | Step::Connect { .. }
            | Step::Resume(_)
            | Step::Disconnect(_)
            | Step::Drain(_)
            | Step::Heartbeat(_)
            | Step::Replay(_)
            | Step::Retry(_) => {}
        }
        world.take(&mut shard);
    }
    settle(&mut shard, &mut world);
}

fn connect(shard: &mut Shard, n: u8, slots: u32, names: usize, held: &[LeaseToken]) {
    let names: Vec<&str> = NAMES
        .iter()
        .enumerate()
        .filter(|(i, _)| names & (1 << i) != 0)
        .map(|(_, n)| *n)
        .collect();
    shard.resume(n, slots, &names, held);
}

/// With a good worker at hand, every task ends.
fn settle(shard: &mut Shard, world: &mut World) {
    for n in 0..4 {
        if world.connected.remove(&n).is_some() {
            shard.disconnect(n);
            // What ran alone is run again at once, by one that is still there.
            world.take(shard);
        }
    }
    shard.advance(limits::LEASE);
    world.take(shard);
    world.connected.insert(9, (2, 7));
    shard.connect(9, 2, &NAMES);
    world.take(shard);
    while world.tasks.values().any(Option::is_none) {
        let mine: Vec<_> = world
            .runs
            .iter()
            .filter(|(_, n)| **n == 9)
            .map(|(token, _)| *token)
            .collect();
        for token in &mine {
            world.runs.remove(token);
            shard.complete(9, *token);
            world.take(shard);
        }
        if mine.is_empty() {
            shard.apply(Event::Heartbeat(session(9)));
            assert!(shard.core.next_wakeup().is_some(), "a task is stuck");
            shard.advance(limits::HEARTBEAT);
            world.take(shard);
        }
    }
    let counts = &shard.core.queues(shard.now)[..];
    let ended: u64 = counts
        .iter()
        .flat_map(|q| &q.counts)
        .filter(|(s, _)| s.is_terminal())
        .map(|(_, n)| n)
        .sum();
    assert_eq!(ended, world.tasks.len() as u64, "the counts of what has ended");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_life_follows_the_reference(steps in proptest::collection::vec(step(), 1..120)) {
        run(steps);
    }
}
