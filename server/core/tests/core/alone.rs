//! Tasks that were lost twice run alone: who takes workers along is found out, and
//! takes nobody along with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use asynq_core::{
    Assignment, Closed, DeadReason, Effect, Event, LeaseToken, Outcome, Reason, StateName, TaskId, limits,
};
use proptest::prelude::*;

use crate::shard::{Shard, session, spec};

const SECOND: Duration = Duration::from_secs(1);

/// A shard with a task that has been lost twice, and sessions 1 and 2 gone with it.
fn lost_twice() -> (Shard, TaskId) {
    let mut shard = Shard::new();
    let id = shard.enqueue(&spec("heavy"));
    for n in 1..=2 {
        shard.connect(n, 4, &["heavy"]);
        shard.assigned();
        shard.disconnect(n);
        shard.advance(limits::RESET_GRACE);
    }
    assert_eq!(shard.durable.record(id).counters.losses, 2);
    (shard, id)
}

fn is_of(run: &Assignment, id: TaskId, n: u8) {
    assert_eq!((run.token.task, run.session), (id, session(n)));
}

#[test]
fn on_an_empty_worker_it_runs_at_once_and_nobody_joins_it() {
    let (mut shard, id) = lost_twice();
    shard.connect(3, 4, &["heavy", "echo"]);
    let run = shard.assigned();
    is_of(&run, id, 3);
    let other = shard.enqueue(&spec("echo"));
    shard.quiet();
    let why = shard.core.explain(shard.now, other).expect("live");
    assert_eq!(
        (why.reason, why.details["set_aside_slots"].as_str()),
        (Reason::NoFreeSlot, "3")
    );
    shard.complete(3, run.token);
    assert_eq!(shard.finished().outcome, Outcome::Succeeded);
    is_of(&shard.assigned(), other, 3);
}

#[test]
fn what_it_calls_runs_in_its_slot() {
    let (mut shard, id) = lost_twice();
    shard.connect(3, 1, &["heavy", "child"]);
    let run = shard.assigned();
    is_of(&run, id, 3);
    shard.call(3, run.token, 1, &spec("child"));
    let child = shard.assigned().token;
    assert_eq!(child.task, run.token.child(1));
    shard.complete(3, child);
    shard.complete(3, run.token);
    shard.drain();
}

#[test]
fn a_busy_worker_is_emptied_for_it() {
    let (mut shard, id) = lost_twice();
    shard.connect(3, 4, &["echo"]);
    let first = shard.enqueue(&spec("echo"));
    let token = shard.assigned().token;
    shard.apply(Event::SessionOpened(Box::new(crate::shard::hello(
        3,
        4,
        &["echo", "heavy"],
        &[token],
    ))));
    shard.quiet();
    let waiting = shard.enqueue(&spec("echo"));
    shard.quiet();
    let why = shard.core.explain(shard.now, id).expect("live");
    assert_eq!((why.state, why.reason), (StateName::Ready, Reason::NoFreeSlot));
    assert!(why.message.contains("it is to run alone"), "{}", why.message);
    assert_eq!(
        (
            why.details["others_running"].as_str(),
            why.details["set_aside_ms"].as_str()
        ),
        ("1", "10000")
    );
    shard.advance(SECOND);
    shard.complete(3, token);
    assert_eq!(shard.finished().task, first);
    let run = shard.assigned();
    is_of(&run, id, 3);
    shard.quiet();
    shard.complete(3, run.token);
    shard.finished();
    is_of(&shard.assigned(), waiting, 3);
}

/// A run that lends its slot is there still, and is counted.
#[test]
fn a_run_that_waits_there_is_waited_for() {
    let (mut shard, id) = lost_twice();
    shard.connect(3, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    shard.connect(4, 1, &["child"]);
    shard.call(3, parent, 1, &spec("child"));
    let child = shard.assigned().token;
    shard.resume(3, 1, &["parent", "heavy"], &[parent]);
    shard.quiet();
    let why = shard.core.explain(shard.now, id).expect("live");
    assert_eq!(why.details["others_running"], "1", "{}", why.message);
    shard.complete(4, child);
    shard.complete(3, parent);
    let runs: Vec<_> = shard.drain().into_iter().collect();
    let is_it = |effect: &Effect| matches!(effect, Effect::Assign(run) if run.token.task == id);
    assert!(runs.iter().any(is_it), "the worker is empty now");
}

/// Who waits for a suspect does not end before it.
#[test]
fn where_a_run_waits_for_it_it_runs_at_once() {
    let mut shard = Shard::new();
    shard.connect(9, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    shard.call(9, parent, 1, &spec("child"));
    for n in 1..=2 {
        shard.connect(n, 1, &["child"]);
        assert_eq!(shard.assigned().token.task, parent.child(1));
        shard.disconnect(n);
        shard.advance(limits::RESET_GRACE);
        shard.apply(Event::Heartbeat(session(9)));
    }
    // There is no other worker for it.
    shard.resume(9, 1, &["parent", "child"], &[parent]);
    let child = shard.assigned();
    is_of(&child, parent.child(1), 9);
    shard.complete(9, child.token);
    shard.complete(9, parent);
    shard.drain();
}

/// Another worker is emptied for it rather.
#[test]
fn beside_who_waits_for_it_another_worker_is_set_aside() {
    let mut shard = Shard::new();
    shard.connect(9, 2, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    shard.call(9, parent, 1, &spec("child"));
    shard.connect(3, 2, &["echo"]);
    shard.enqueue(&spec("echo"));
    let echo = shard.assigned().token;
    for n in 1..=2 {
        shard.connect(n, 1, &["child"]);
        shard.assigned();
        if n == 2 {
            // Both have a slot for it when its turn comes.
            shard.resume(9, 2, &["parent", "child"], &[parent]);
            shard.resume(3, 2, &["echo", "child"], &[echo]);
        }
        shard.disconnect(n);
        shard.advance(limits::RESET_GRACE);
    }
    let why = shard.core.explain(shard.now, parent.child(1)).expect("live");
    assert_eq!(why.details["worker"], "worker-3");
    shard.complete(3, echo);
    shard.finished();
    is_of(&shard.assigned(), parent.child(1), 3);
}

#[test]
fn after_ten_seconds_it_runs_all_the_same() {
    let (mut shard, id) = lost_twice();
    shard.connect(3, 2, &["echo"]);
    let long = shard.enqueue(&spec("echo"));
    let token = shard.assigned().token;
    shard.resume(3, 2, &["echo", "heavy"], &[token]);
    shard.advance(limits::SET_ASIDE - Duration::from_millis(1));
    shard.quiet();
    shard.advance(Duration::from_millis(1));
    is_of(&shard.assigned(), id, 3);
    // It was not alone, so that is a loss, and the other task's as well.
    shard.disconnect(3);
    shard.advance(limits::RESET_GRACE);
    let counters = shard.durable.record(id).counters;
    assert_eq!((counters.losses, counters.crashes), (3, 0));
    assert_eq!(shard.durable.record(long).counters.losses, 1);
}

#[test]
fn a_worker_that_goes_or_drains_leaves_it_to_the_next() {
    for drains in [false, true] {
        let (mut shard, id) = lost_twice();
        shard.connect(3, 2, &["echo"]);
        shard.enqueue(&spec("echo"));
        let token = shard.assigned().token;
        shard.resume(3, 2, &["echo", "heavy"], &[token]);
        if drains {
            shard.apply(Event::Draining(session(3)));
        } else {
            shard.disconnect(3);
        }
        shard.quiet();
        shard.connect(4, 2, &["heavy"]);
        is_of(&shard.assigned(), id, 4);
    }
    // What ends while it waits leaves nothing behind.
    let (mut shard, id) = lost_twice();
    shard.connect(3, 2, &["echo"]);
    shard.enqueue(&spec("echo"));
    let token = shard.assigned().token;
    shard.resume(3, 2, &["echo", "heavy"], &[token]);
    shard.cancel(id);
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
    shard.enqueue(&spec("echo"));
    shard.assigned();
}

#[test]
fn alone_a_broken_connection_counts_as_a_crash_and_silence_as_a_loss() {
    let (mut shard, id) = lost_twice();
    for crashes in 1..=limits::MAX_CRASHES {
        // First it only falls silent: nobody knows what became of it.
        let n = 10 + crashes as u8;
        shard.connect(n, 4, &["heavy"]);
        shard.assigned();
        shard.close(n, Closed::Silent);
        shard.advance(limits::LEASE);
        let n = 20 + crashes as u8;
        shard.connect(n, 4, &["heavy"]);
        let token = shard.assigned().token;
        // A cut from which it comes back is none.
        shard.disconnect(n);
        shard.resume(n, 4, &["heavy"], &[token]);
        shard.disconnect(n);
        shard.advance(limits::RESET_GRACE);
        let counters = shard.durable.record(id).counters;
        assert_eq!((counters.crashes, counters.losses), (crashes, 2 + crashes));
    }
    let finished = shard.finished();
    assert_eq!(
        (finished.task, finished.outcome),
        (id, Outcome::Dead(DeadReason::Poison))
    );
    assert_eq!(finished.failure.map(|failure| failure.kind), Some("crash".into()));
}

/// Workers as processes that one task takes along.
#[derive(Debug, Clone)]
struct World {
    slots: Vec<u32>,
    /// How long each healthy task runs, in ms, and when it comes.
    healthy: Vec<(u64, u64)>,
    /// How long the poisonous one needs to take its worker along, and when it comes.
    poison: (u64, u64),
}

fn world() -> impl Strategy<Value = World> {
    let time = || prop_oneof![4 => 10..3_000_u64, 1 => 3_000..40_000_u64];
    let slots = proptest::collection::vec(1..5_u32, 1..4);
    let healthy = proptest::collection::vec((time(), 0..60_000_u64), 1..25);
    (slots, healthy, (time(), 0..30_000_u64)).prop_map(|(slots, healthy, poison)| World { slots, healthy, poison })
}

struct Running {
    ends_at: u64,
    session: u8,
}

/// Plays it out, and says how the tasks ended.
fn play(world: &World) -> BTreeMap<TaskId, Outcome> {
    const STEP: u64 = 10;
    let mut shard = Shard::new();
    let mut next_session = 0;
    let mut up: BTreeMap<u8, u32> = BTreeMap::new();
    let mut down: Vec<(u64, u32)> = world.slots.iter().map(|&slots| (0, slots)).collect();
    let mut coming: Vec<(u64, Option<u64>)> = world.healthy.iter().map(|&(ms, at)| (at, Some(ms))).collect();
    coming.push((world.poison.1, None));
    coming.sort_unstable();
    coming.reverse();
    let mut lasts: BTreeMap<TaskId, Option<u64>> = BTreeMap::new();
    let mut running: BTreeMap<LeaseToken, Running> = BTreeMap::new();
    let mut ended = BTreeMap::new();
    let all = coming.len();
    for now in (0..).step_by(STEP as usize) {
        assert!(now < 3_600_000, "not over within an hour: {ended:?}");
        while let Some((_, lasts_ms)) = coming.pop_if(|(at, _)| *at <= now) {
            let id = shard.enqueue(&spec("work"));
            lasts.insert(id, lasts_ms);
        }
        let back: Vec<_> = down.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, slots) in back {
            next_session += 1;
            up.insert(next_session, slots);
            shard.connect(next_session, slots, &["work"]);
        }
        if now % 5_000 == 0 {
            for &n in up.keys() {
                shard.apply(Event::Heartbeat(session(n)));
            }
        }
        let due: Vec<_> = running.extract_if(.., |_, run| run.ends_at <= now).collect();
        let mut killed = BTreeSet::new();
        for (token, run) in due {
            match lasts[&token.task] {
                Some(_) if !killed.contains(&run.session) => {
                    shard.complete(run.session, token);
                }
                Some(_) => {}
                None => {
                    killed.insert(run.session);
                }
            }
        }
        for n in killed {
            running.retain(|_, run| run.session != n);
            if let Some(slots) = up.remove(&n) {
                down.push((now + 500, slots));
                shard.disconnect(n);
            }
        }
        shard.advance(Duration::from_millis(STEP));
        for effect in shard.drain() {
            match effect {
                Effect::Assign(run) => {
                    let ms = lasts[&run.token.task].unwrap_or(world.poison.0);
                    let run_of = Running {
                        ends_at: now + ms,
                        session: run.session.0[0],
                    };
                    running.insert(run.token, run_of);
                }
                Effect::Finished(finished) => {
                    let healthy = lasts[&finished.task].is_some();
                    assert_eq!(healthy, finished.outcome == Outcome::Succeeded, "{finished:?}");
                    ended.insert(finished.task, finished.outcome);
                }
                other => panic!("{other:?}"),
            }
        }
        if ended.len() == all {
            return ended;
        }
    }
    unreachable!("the loop has no end")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// One task that takes every worker along among others that do no harm: it is
    /// found out and ends as poison, and all others succeed.
    #[test]
    fn one_poisonous_task_poisons_no_other(world in world()) {
        let ended = play(&world);
        let poisoned: Vec<_> = ended.values().filter(|end| **end != Outcome::Succeeded).collect();
        prop_assert_eq!(poisoned, [&Outcome::Dead(DeadReason::Poison)]);
    }
}
