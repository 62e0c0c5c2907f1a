//! Tasks that must not begin twice.

use std::time::Duration;

use asynq_core::{DeadReason, Effect, Event, Outcome, Reason, StateName, StopCause, TaskId, Verdict, limits};

use crate::shard::{Shard, Spec, failure, session, spec};

const SECOND: Duration = Duration::from_secs(1);

fn once(name: &'static str) -> Spec {
    spec(name).with(|options| options.at_most_once = true)
}

/// A shard with a worker that has been handed such a task.
fn begun() -> (Shard, TaskId, asynq_core::LeaseToken) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["pay"]);
    let id = shard.enqueue(&once("pay"));
    let run = shard.assigned();
    (shard, id, run.token)
}

/// It is over, and a worker with a free slot is not given it.
fn is_dead(shard: &mut Shard, reason: DeadReason) {
    shard.connect(9, 1, &["pay"]);
    shard.advance(limits::BACKOFF_CAP);
    let mut ends = Vec::new();
    for effect in shard.drain() {
        match effect {
            Effect::Finished(finished) => ends.push(finished.outcome),
            Effect::Assign(run) => panic!("it begins again: {run:?}"),
            _ => {}
        }
    }
    assert_eq!(ends, [Outcome::Dead(reason)]);
}

#[test]
fn its_run_waits_for_its_claim() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["pay"]);
    let id = shard.enqueue(&once("pay"));
    let run = shard.assigned();
    assert!(run.at_most_once && Effect::Assign(Box::new(run)).after_commit());
    assert_eq!(shard.durable.state(id), StateName::Running, "claimed at once");
    shard.enqueue(&spec("pay"));
    let run = shard.assigned();
    assert!(!Effect::Assign(Box::new(run)).after_commit(), "others do not wait");
}

#[test]
fn however_it_ends_it_does_not_begin_again() {
    let (mut shard, _, token) = begun();
    // The worker's word for how often counts as little as the caller's.
    assert_eq!(
        shard.fail(1, token, failure("no", true)),
        Verdict::Accepted(StateName::Dead)
    );
    is_dead(&mut shard, DeadReason::Error);

    let (mut shard, _, token) = begun();
    shard.crash(1, token, failure("signal 11", true));
    is_dead(&mut shard, DeadReason::WorkerLost);

    let (mut shard, ..) = begun();
    shard.disconnect(1);
    shard.advance(limits::LEASE);
    is_dead(&mut shard, DeadReason::WorkerLost);

    let (mut shard, _, token) = begun();
    shard.ended(1, token);
    is_dead(&mut shard, DeadReason::WorkerLost);

    let mut shard = Shard::new();
    shard.connect(1, 1, &["pay"]);
    shard.enqueue(&once("pay").with(|o| o.timeout = Some(SECOND)));
    let run = shard.assigned();
    shard.advance(SECOND);
    assert_eq!(shard.stopped(), (run.token, StopCause::Timeout));
    shard.ended(1, run.token);
    is_dead(&mut shard, DeadReason::Timeout);
}

#[test]
fn what_has_not_begun_may_be_given_back() {
    let (mut shard, id, token) = begun();
    assert_eq!(shard.release(1, token), Verdict::Accepted(StateName::Ready));
    let again = shard.assigned();
    assert_eq!((again.token.task, again.token.grant.attempt), (id, 2));
    shard.complete(1, again.token);
    assert_eq!(shard.finished().outcome, Outcome::Succeeded);
}

/// A worker that is cut off may go on with it until its lease ends; all else it
/// ran is given up soon.
#[test]
fn after_a_cut_it_is_waited_for_until_the_lease_ends() {
    let (mut shard, id, _) = begun();
    shard.connect(2, 2, &["pay", "echo"]);
    let ordinary = shard.enqueue(&spec("echo"));
    let of_2 = shard.assigned().token;
    let paid_by_2 = shard.enqueue(&once("pay"));
    let pay = shard.assigned().token;
    shard.disconnect(1);
    shard.disconnect(2);
    shard.advance(limits::RESET_GRACE);
    assert_eq!(shard.durable.state(ordinary), StateName::Ready, "given up as ever");
    assert_eq!(shard.durable.state(id), StateName::Running);
    let why = shard.core.explain(shard.now, id).expect("live");
    let left = (limits::LEASE - limits::RESET_GRACE).as_millis().to_string();
    assert_eq!((why.reason, &why.details["given_up_ms"]), (Reason::Resuming, &left));

    // Late, but within its lease: what has been given up is stale, the other goes on.
    shard.advance(limits::LEASE - limits::RESET_GRACE - SECOND);
    shard.resume(2, 2, &["pay"], &[of_2, pay]);
    assert_eq!(shard.stopped(), (of_2, StopCause::Stale));
    assert_eq!(shard.complete(2, pay), Verdict::Accepted(StateName::Succeeded));
    assert_eq!(shard.finished().task, paid_by_2);

    // The other worker does not come back.
    shard.advance(SECOND);
    let finished = shard.finished();
    assert_eq!(
        (finished.task, finished.outcome),
        (id, Outcome::Dead(DeadReason::WorkerLost))
    );
    assert!(!shard.core.knows_session(session(1)));
}

/// When the broker stood still meanwhile, that lasts as much longer too.
#[test]
fn a_gap_lengthens_the_wait_for_it() {
    let (mut shard, id, token) = begun();
    shard.disconnect(1);
    shard.advance(limits::RESET_GRACE);
    shard.now = shard.now + limits::LEASE;
    shard.apply(Event::Gap(limits::LEASE));
    shard.advance(SECOND);
    assert_eq!(shard.durable.state(id), StateName::Running);
    shard.resume(1, 1, &["pay"], &[token]);
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn after_a_restart_it_goes_on_or_is_dead() {
    let (mut shard, _, token) = begun();
    shard.restart();
    shard.resume(1, 1, &["pay"], &[token]);
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    assert_eq!(shard.finished().outcome, Outcome::Succeeded);

    // Its worker comes back and knows nothing of it.
    let (mut shard, ..) = begun();
    shard.restart();
    shard.resume(1, 1, &["pay"], &[]);
    is_dead(&mut shard, DeadReason::WorkerLost);

    // Its worker does not come back.
    let (mut shard, ..) = begun();
    shard.restart();
    shard.advance(limits::LEASE);
    is_dead(&mut shard, DeadReason::WorkerLost);

    // Nor does the store know the worker: it is damaged, and does not decide that.
    let (mut shard, ..) = begun();
    shard.durable.sessions.clear();
    shard.restart();
    shard.connect(2, 1, &["pay"]);
    shard.quiet();
    is_dead(&mut shard, DeadReason::WorkerLost);
}
