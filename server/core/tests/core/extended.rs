//! Time as a worker tells it: more of it, too much of it.

use std::time::Duration;

use asynq_core::{DeadReason, Event, LeaseToken, Outcome, StateName, StopCause, Verdict, limits};

use crate::shard::{Shard, failure, session, spec};

const SECOND: Duration = Duration::from_secs(1);

fn extend(shard: &mut Shard, token: LeaseToken, left: Duration) {
    shard.apply(Event::Extended {
        session: session(1),
        token,
        left,
    });
}

fn timed_out(shard: &mut Shard, token: LeaseToken) -> Verdict {
    let mut failure = failure("etl ran longer than 1s and was ended", true);
    failure.kind = "timeout".into();
    shard.apply(Event::TimedOut {
        session: session(1),
        token,
        failure,
    });
    shard.verdict(token)
}

fn beat(shard: &mut Shard) {
    shard.apply(Event::Heartbeat(session(1)));
}

/// A run with a timeout of 2 s, half of which is over.
fn half_way() -> (Shard, LeaseToken) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["slow"]);
    shard.enqueue(&spec("slow").with(|o| (o.timeout, o.max_timeouts) = (Some(2 * SECOND), Some(2))));
    let token = shard.assigned().token;
    shard.advance(SECOND);
    (shard, token)
}

#[test]
fn more_time_moves_the_timeout_and_less_does_not() {
    let (mut shard, token) = half_way();
    extend(&mut shard, token, SECOND / 2);
    extend(&mut shard, token, 10 * SECOND);
    shard.advance(9 * SECOND);
    shard.quiet();
    extend(&mut shard, token, SECOND / 2);
    shard.advance(SECOND);
    assert_eq!(shard.stopped(), (token, StopCause::Timeout));
    // Too late: it has been told to stop.
    extend(&mut shard, token, 10 * SECOND);
    assert_eq!(shard.ended(1, token), Verdict::Accepted(StateName::Scheduled));
    shard.advance(limits::BACKOFF_BASE);
    // The next attempt has what the task says, and a stale word moves nothing.
    let again = shard.assigned().token;
    extend(&mut shard, token, 10 * SECOND);
    shard.advance(2 * SECOND);
    assert_eq!(shard.stopped(), (again, StopCause::Timeout));
    shard.ended(1, again);
    let failure = shard.finished().failure.expect("why");
    assert_eq!(failure.message, "attempt 2 ran longer than its timeout of 2s");
}

#[test]
fn a_deadline_stays_and_a_run_without_a_timeout_gets_none() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["slow"]);
    let deadline = shard.now + 5 * SECOND;
    shard.enqueue(&spec("slow").with(|o| (o.timeout, o.deadline) = (Some(SECOND), Some(deadline))));
    let token = shard.assigned().token;
    extend(&mut shard, token, 60 * SECOND);
    shard.enqueue(&spec("slow"));
    let endless = shard.assigned().token;
    extend(&mut shard, endless, SECOND);
    shard.advance(5 * SECOND);
    assert_eq!(shard.stopped(), (token, StopCause::Deadline));
    beat(&mut shard);
    shard.advance(20 * SECOND);
    shard.quiet();
}

#[test]
fn more_time_outlives_a_restart() {
    let (mut shard, token) = half_way();
    extend(&mut shard, token, 10 * SECOND);
    shard.restart();
    shard.advance(limits::RESUME_GRACE);
    shard.quiet();
    shard.resume(1, 1, &["slow"], &[token]);
    shard.advance(7 * SECOND);
    shard.quiet();
    shard.advance(SECOND);
    assert_eq!(shard.stopped(), (token, StopCause::Timeout));
}

#[test]
fn a_timeout_by_the_worker_counts_as_one() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["etl"]);
    let id = shard.enqueue(&spec("etl").with(|o| (o.max_attempts, o.max_timeouts) = (Some(9), Some(2))));
    let token = shard.assigned().token;
    assert_eq!(timed_out(&mut shard, token), Verdict::Accepted(StateName::Scheduled));
    let counters = shard.durable.record(id).counters;
    assert_eq!((counters.timeouts, counters.failures), (1, 0));
    shard.advance(limits::BACKOFF_BASE);
    let token = shard.assigned().token;
    assert_eq!(timed_out(&mut shard, token), Verdict::Accepted(StateName::Dead));
    let finished = shard.finished();
    assert_eq!(finished.outcome, Outcome::Dead(DeadReason::Timeout));
    let failure = finished.failure.expect("why");
    assert!(failure.message.starts_with("etl ran longer"), "{failure:?}");
    assert_eq!(shard.core.tally().timeouts, 2);

    // What it is being stopped for comes first.
    let id = shard.enqueue(&spec("etl"));
    let token = shard.assigned().token;
    shard.cancel(id);
    shard.stopped();
    assert_eq!(timed_out(&mut shard, token), Verdict::Accepted(StateName::Cancelled));
    shard.finished();
}

#[test]
fn a_failure_may_ask_for_attempts() {
    for (max_attempts, asked, runs) in [(None, 3, 3), (Some(5), 3, 5), (Some(1), 0, 1)] {
        let mut shard = Shard::new();
        shard.connect(1, 1, &["flaky"]);
        shard.enqueue(&spec("flaky").with(|o| o.max_attempts = max_attempts));
        for run in 1..=runs {
            let token = shard.assigned().token;
            shard.apply(Event::Failed {
                session: session(1),
                token,
                failure: failure("later", true),
                min_attempts: asked,
            });
            let expected = if run < runs {
                StateName::Scheduled
            } else {
                StateName::Dead
            };
            assert_eq!(
                shard.verdict(token),
                Verdict::Accepted(expected),
                "{max_attempts:?}, run {run}"
            );
            beat(&mut shard);
            shard.advance(20 * SECOND);
            beat(&mut shard);
            if run == runs {
                assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Error));
            }
        }
    }
}
