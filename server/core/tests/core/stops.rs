//! Timeouts, cancels and deadlines, and the races between them and the run.

use std::time::Duration;

use asynq_core::{CancelOutcome, DeadReason, Outcome, Reason, Refusal, Reply, StateName, StopCause, Verdict, limits};

use crate::shard::{Shard, session, spec};

const SECOND: Duration = Duration::from_secs(1);

fn outcome(reply: &Reply) -> (CancelOutcome, StateName) {
    match reply {
        Reply::Cancelled { outcome, state, .. } => (*outcome, *state),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_waiting_task_is_cancelled_at_once() {
    let mut shard = Shard::new();
    let id = shard.enqueue(&spec("echo"));
    assert_eq!(
        outcome(&shard.cancel(id)),
        (CancelOutcome::Cancelled, StateName::Cancelled)
    );
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
    assert_eq!(
        shard.cancel(id),
        Reply::Refused(Refusal::NotFound(id)),
        "the shell looks into the past"
    );
}

#[test]
fn a_running_task_stops_when_its_worker_says_so() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["sleep"]);
    let id = shard.enqueue(&spec("sleep"));
    let run = shard.assigned();
    assert_eq!(
        outcome(&shard.cancel(id)),
        (CancelOutcome::Stopping, StateName::Stopping)
    );
    assert_eq!(shard.stopped(), (run.token, StopCause::Cancelled));
    assert_eq!(
        shard.durable.state(id),
        StateName::Stopping,
        "the wish is durable before the reply"
    );
    shard.enqueue(&spec("sleep"));
    shard.quiet(); // The slot is still taken.
    assert_eq!(
        outcome(&shard.cancel(id)).0,
        CancelOutcome::Stopping,
        "asking twice is no harm"
    );
    assert_eq!(
        shard.core.explain(shard.now, id).map(|e| e.reason),
        Some(Reason::Stopping)
    );
    assert_eq!(shard.ended(1, run.token), Verdict::Accepted(StateName::Cancelled));
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
    shard.assigned();
}

#[test]
fn a_completion_before_the_cancel_wins_and_one_after_it_does_not() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["sleep"]);
    let id = shard.enqueue(&spec("sleep"));
    let run = shard.assigned();
    shard.cancel(id);
    shard.stopped();
    assert_eq!(shard.complete(1, run.token), Verdict::Accepted(StateName::Cancelled));
    let finished = shard.finished();
    assert_eq!((finished.outcome, finished.result), (Outcome::Cancelled, None));
}

#[test]
fn a_timeout_stops_the_run_and_uses_up_its_own_budget() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["slow"]);
    let slow = spec("slow").with(|o| (o.timeout, o.max_timeouts) = (Some(SECOND), Some(2)));
    let id = shard.enqueue(&slow);
    let run = shard.assigned();
    assert_eq!(run.timeout, Some(SECOND));
    shard.advance(SECOND);
    assert_eq!(shard.stopped(), (run.token, StopCause::Timeout));
    assert_eq!(shard.ended(1, run.token), Verdict::Accepted(StateName::Scheduled));
    shard.advance(limits::BACKOFF_BASE);
    let run = shard.assigned();
    shard.advance(SECOND);
    shard.stopped();
    assert_eq!(shard.ended(1, run.token), Verdict::Accepted(StateName::Dead));
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Timeout));
    let counters = shard.durable.record(id).counters;
    assert_eq!((counters.timeouts, counters.failures, counters.losses), (2, 0, 0));
}

#[test]
fn a_stopping_run_whose_session_ends_ends_as_it_was_to() {
    for (cancel, last) in [(true, Outcome::Cancelled), (false, Outcome::Expired)] {
        let mut shard = Shard::new();
        shard.connect(1, 1, &["slow"]);
        let deadline = shard.now + SECOND;
        let id = shard.enqueue(&spec("slow").with(|o| o.deadline = Some(deadline)));
        shard.assigned();
        if cancel {
            shard.cancel(id);
            shard.stopped();
        }
        shard.advance(SECOND); // With a cancel, the deadline changes nothing any more.
        if !cancel {
            assert_eq!(shard.stopped().1, StopCause::Deadline);
        }
        shard.disconnect(1);
        shard.advance(limits::RESET_GRACE);
        assert_eq!(shard.finished().outcome, last);
        assert_eq!(shard.durable.record(id).counters.losses, 0);
        assert!(!shard.core.knows_session(session(1)));
    }
}

#[test]
fn a_cancel_replaces_a_timeout() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["slow"]);
    let id = shard.enqueue(&spec("slow").with(|o| (o.timeout, o.max_timeouts) = (Some(SECOND), Some(9))));
    let run = shard.assigned();
    shard.advance(SECOND);
    assert_eq!(shard.stopped().1, StopCause::Timeout);
    shard.cancel(id);
    assert_eq!(shard.stopped().1, StopCause::Cancelled);
    shard.ended(1, run.token);
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
}

#[test]
fn waiting_tasks_expire() {
    let mut shard = Shard::new();
    let (soon, late) = (shard.now + SECOND, shard.now + 9 * SECOND);
    let unstarted = shard.enqueue(&spec("a").with(|o| (o.start_before, o.deadline) = (Some(soon), Some(late))));
    let delayed = shard.enqueue(&{
        let mut delayed = spec("a").with(|o| o.deadline = Some(late));
        delayed.start_at = Some(shard.now + 8 * SECOND);
        delayed
    });
    shard.advance(SECOND);
    assert_eq!(
        (shard.finished().task, shard.durable.state(unstarted)),
        (unstarted, StateName::Expired)
    );
    shard.advance(8 * SECOND);
    assert_eq!(
        (shard.finished().task, shard.durable.state(delayed)),
        (delayed, StateName::Expired)
    );
}

#[test]
fn a_task_that_has_started_has_met_its_time_to_start() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["a"]);
    let soon = shard.now + SECOND;
    shard.enqueue(&spec("a").with(|o| o.start_before = Some(soon)));
    let run = shard.assigned();
    shard.release(1, run.token);
    shard.assigned();
    shard.advance(SECOND);
}

#[test]
fn delayed_tasks_wait_for_their_time() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["a"]);
    let mut delayed = spec("a");
    delayed.start_at = Some(shard.now + SECOND);
    let id = shard.enqueue(&delayed);
    assert_eq!(shard.durable.state(id), StateName::Scheduled);
    shard.advance(SECOND - Duration::from_micros(1));
    shard.quiet();
    shard.advance(Duration::from_micros(1));
    assert_eq!(shard.assigned().token.task, id);
}
