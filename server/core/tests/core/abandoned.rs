//! Runs that were told to stop and do not: their tasks go on, their slots do not.

use std::time::Duration;

use asynq_core::{DeadReason, Event, Outcome, Reason, StateName, StopCause, Verdict, limits};

use crate::shard::{Shard, hello, spec};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn its_task_goes_on_and_its_slot_does_not() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["spin"]);
    let id = shard.enqueue(&spec("spin").with(|o| o.timeout = Some(SECOND)));
    let run = shard.assigned();
    shard.advance(SECOND);
    assert_eq!(shard.stopped(), (run.token, StopCause::Timeout));
    let waiting = shard.enqueue(&spec("spin"));

    // As the broker does: the slot first.
    shard.leak(1, 1);
    shard.quiet();
    assert_eq!(shard.abandon(1, run.token), Verdict::Accepted(StateName::Dead));
    let finished = shard.finished();
    assert_eq!(
        (finished.task, finished.outcome),
        (id, Outcome::Dead(DeadReason::Timeout))
    );
    let failure = finished.failure.expect("why");
    assert!(failure.message.ends_with("and has not stopped since"), "{failure:?}");
    shard.quiet();
    let worker = &shard.core.workers()[0];
    assert_eq!((worker.slots, worker.busy, worker.leaked), (1, 0, 1));
    let why = shard.core.explain(shard.now, waiting).expect("live");
    assert_eq!(
        (why.reason, why.details["leaked_slots"].as_str()),
        (Reason::NoFreeSlot, "1")
    );
    assert!(why.message.contains("did not"), "{}", why.message);

    assert_eq!(shard.complete(1, run.token), Verdict::Stale(None), "fenced");
    shard.leak(1, 0);
    let next = shard.assigned();
    assert_eq!(next.token.task, waiting, "its thread has returned after all");
    shard.complete(1, next.token);
    shard.finished();
}

#[test]
fn what_it_was_stopped_for_decides_what_follows() {
    for retries in [1, 2] {
        let mut shard = Shard::new();
        shard.connect(1, 2, &["spin"]);
        let id = shard.enqueue(&spec("spin").with(|o| {
            (o.timeout, o.max_timeouts) = (Some(SECOND), Some(retries));
        }));
        let token = shard.assigned().token;
        shard.advance(SECOND);
        shard.stopped();
        shard.leak(1, 1);
        if retries == 1 {
            assert_eq!(shard.abandon(1, token), Verdict::Accepted(StateName::Dead));
            shard.finished();
            continue;
        }
        assert_eq!(shard.abandon(1, token), Verdict::Accepted(StateName::Scheduled));
        shard.advance(limits::BACKOFF_BASE);
        let again = shard.assigned().token;
        assert_eq!((again.task, again.grant.attempt), (id, 2), "in the slot that is left");
        assert_eq!(shard.complete(1, token), Verdict::Stale(Some(StateName::Running)));
        shard.complete(1, again);
        shard.finished();
    }
    let mut shard = Shard::new();
    shard.connect(1, 1, &["spin"]);
    let id = shard.enqueue(&spec("spin"));
    let token = shard.assigned().token;
    shard.cancel(id);
    shard.stopped();
    assert_eq!(shard.abandon(1, token), Verdict::Accepted(StateName::Cancelled));
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
}

/// The count is the worker's own: it comes along with every hello, and is bounded by
/// its slots.
#[test]
fn leaked_slots_outlive_a_session() {
    let mut shard = Shard::new();
    for slots in [1, 9] {
        shard.apply(Event::SessionOpened(Box::new(asynq_core::Hello {
            leaked: slots,
            ..hello(1, 2, &["spin"], &[])
        })));
        let worker = &shard.core.workers()[0];
        assert_eq!(worker.leaked, slots.min(2));
    }
    shard.enqueue(&spec("spin"));
    shard.quiet();
    shard.leak(1, 1);
    shard.assigned();
    shard.enqueue(&spec("spin"));
    shard.quiet();
}
