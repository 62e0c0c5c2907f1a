//! The clock was set while the broker was down.

use std::time::Duration;

use asynq_core::{DeadReason, Event, Outcome, Refusal, Reply, StateName, StopCause, Verdict, limits};

use crate::shard::{Shard, Spec, failure, session, spec};

const HOUR: Duration = Duration::from_hours(1);
const YEARS: Duration = Duration::from_hours(10 * 365 * 24);

/// So many seconds in which a worker is there.
fn beat(shard: &mut Shard, worker: u8, seconds: u64) {
    for _ in 0..seconds {
        shard.advance(Duration::from_secs(1));
        shard.apply(Event::Heartbeat(session(worker)));
    }
}

/// Queued, delayed and running tasks whose times have passed by a clock that nobody
/// vouches for: they stay, until somebody does.
#[test]
fn by_a_clock_that_is_doubted_nothing_expires() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    let until = shard.now + 3 * HOUR;
    let long = shard.enqueue(&spec("long").with(|options| options.deadline = Some(until)));
    let token = shard.assigned().token;
    let late = shard.enqueue(&spec("x").with(|options| options.start_before = Some(until)));
    let bound = shard.enqueue(&spec("x").with(|options| options.deadline = Some(until)));
    let delayed = shard.enqueue(&Spec {
        start_at: Some(shard.now + HOUR),
        ..spec("x").with(|options| options.deadline = Some(until))
    });
    shard.advance(limits::CLAIM_AFTER);

    shard.now = shard.now + YEARS;
    shard.restart_by(true);
    shard.resume(1, 1, &["long"], &[token]);
    shard.advance(limits::RESUME_GRACE);
    for (task, state) in [
        (long, StateName::Running),
        (late, StateName::Ready),
        (bound, StateName::Ready),
        (delayed, StateName::Ready),
    ] {
        assert_eq!(shard.core.live_state(task), Some(state));
    }
    shard.quiet();
    let (id, past) = (shard.new_id(), spec("x").with(|options| options.deadline = Some(until)));
    assert!(
        matches!(
            shard.try_enqueue(id, &past),
            Reply::Refused(Refusal::Invalid { field: "deadline", .. })
        ),
        "what is new goes by the clock there is"
    );

    shard.restart_by(false);
    shard.resume(1, 1, &["long"], &[token]);
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.stopped(), (token, StopCause::Deadline));
    for _ in 0..3 {
        assert_eq!(shard.finished().outcome, Outcome::Expired);
    }
}

/// Else its handler would take itself for out of time.
#[test]
fn in_doubt_no_run_is_told_of_a_deadline() {
    for doubted in [true, false] {
        let mut shard = Shard::new();
        let until = shard.now + HOUR;
        shard.enqueue(&spec("x").with(|options| options.deadline = Some(until)));
        shard.restart_by(doubted);
        shard.connect(1, 1, &["x"]);
        assert_eq!(shard.assigned().deadline, Some(until).filter(|_| !doubted));
    }
}

/// How long it has run nobody knows, but not for ten years.
#[test]
fn an_attempt_has_its_time_from_a_doubted_open_on() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    shard.enqueue(&spec("long").with(|options| options.timeout = Some(Duration::from_mins(1))));
    let token = shard.assigned().token;
    shard.advance(limits::CLAIM_AFTER);
    shard.now = shard.now + YEARS;
    shard.restart_by(true);
    shard.resume(1, 1, &["long"], &[token]);
    beat(&mut shard, 1, 59);
    shard.quiet();
    beat(&mut shard, 1, 2);
    assert_eq!(shard.stopped(), (token, StopCause::Timeout));
    assert_eq!(shard.ended(1, token), Verdict::Accepted(StateName::Dead));
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Timeout));
}

/// A retry that was put off by a clock ten years ahead is due in minutes, not then.
#[test]
fn a_clock_set_right_leaves_no_retry_in_the_future() {
    let mut shard = Shard::new();
    let (right, delay) = (shard.now, Duration::from_secs(1));
    shard.now = right + YEARS;
    shard.connect(1, 1, &["x"]);
    let task = shard.enqueue(&spec("x").with(|options| options.max_attempts = Some(2)));
    let token = shard.assigned().token;
    assert_eq!(
        shard.fail(1, token, failure("no luck", true)),
        Verdict::Accepted(StateName::Scheduled)
    );
    shard.now = right + delay;
    shard.restart();
    shard.connect(2, 1, &["x"]);
    beat(&mut shard, 2, limits::BACKOFF_CAP.as_secs());
    let run = shard.assigned();
    assert_eq!((run.token.task, run.token.grant.attempt), (task, 2));
    shard.complete(2, run.token);
    shard.finished();
}
