//! The broker dies and comes back on what is durable.

use std::time::Duration;

use asynq_core::{Event, Reason, StateName, StopCause, Verdict, limits};

use crate::shard::{Shard, Spec, session, spec};

#[test]
fn waiting_tasks_survive_in_their_order() {
    let mut shard = Shard::new();
    let ids: Vec<_> = (0..5).map(|_| shard.enqueue(&spec("echo"))).collect();
    shard.restart();
    shard.connect(1, 1, &["echo"]);
    assert_eq!(shard.turns(1, 9), ids);
    shard.drain();
}

#[test]
fn a_claimed_run_goes_on_when_its_worker_resumes() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    let id = shard.enqueue(&spec("long"));
    let token = shard.assigned().token;
    shard.advance(limits::CLAIM_AFTER);
    assert_eq!(shard.durable.state(id), StateName::Running);
    shard.restart();
    assert_eq!(
        shard.core.explain(shard.now, id).map(|e| e.reason),
        Some(Reason::Resuming)
    );
    shard.advance(limits::RESUME_GRACE + limits::RESET_GRACE);
    shard.resume(1, 1, &["long"], &[token]);
    shard.quiet(); // Re-attached, not run again.
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn an_unclaimed_run_resumed_in_the_grace_goes_on_too() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["short"]);
    let id = shard.enqueue(&spec("short"));
    let token = shard.assigned().token;
    assert_eq!(shard.durable.state(id), StateName::Ready, "a short run is not written");
    shard.restart();
    shard.connect(2, 1, &["short"]);
    shard.quiet(); // Worker 1 may still hold it.
    shard.resume(1, 1, &["short"], &[token]);
    shard.quiet();
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

/// The store knows it as scheduled still: that its time came is not written.
#[test]
fn nor_is_a_run_whose_task_was_scheduled_granted_again_in_the_grace() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["short"]);
    let delayed = Spec {
        start_at: Some(shard.now + Duration::from_secs(1)),
        ..spec("short")
    };
    let id = shard.enqueue(&delayed);
    shard.advance(Duration::from_secs(1));
    let token = shard.assigned().token;
    assert_eq!(
        shard.durable.state(id),
        StateName::Scheduled,
        "a short run is not written"
    );
    // Its time comes a second time, by a clock that was set back meanwhile.
    shard.now = shard.now - Duration::from_millis(500);
    shard.restart();
    shard.connect(2, 1, &["short"]);
    shard.advance(Duration::from_secs(1));
    shard.quiet(); // Worker 1 may still hold it.
    shard.resume(1, 1, &["short"], &[token]);
    shard.quiet();
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn after_the_grace_an_unclaimed_run_is_granted_anew_and_the_old_one_fenced() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["short"]);
    shard.enqueue(&spec("short"));
    let stale = shard.assigned().token;
    shard.restart();
    let fresh = shard.enqueue(&spec("short"));
    shard.connect(2, 2, &["short"]);
    assert_eq!(shard.assigned().token.task, fresh, "tasks enqueued since go at once");
    shard.advance(limits::RESUME_GRACE);
    let again = shard.assigned().token;
    assert_eq!((again.task, again.grant.attempt), (stale.task, stale.grant.attempt));
    assert!(again > stale, "the attempt repeats, the epoch does not");
    shard.resume(1, 1, &["short"], &[stale]);
    assert_eq!(shard.stopped(), (stale, StopCause::Stale));
    assert_eq!(shard.complete(1, stale), Verdict::Stale(Some(StateName::Running)));
    assert_eq!(shard.complete(2, again), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn a_gap_of_the_broker_lengthens_the_grace() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["short"]);
    shard.enqueue(&spec("short"));
    let token = shard.assigned().token;
    shard.restart();
    shard.connect(2, 1, &["short"]);
    // The process stood still, and the worker's hello waits unread.
    shard.now = shard.now + limits::LEASE;
    shard.apply(Event::Gap(limits::LEASE));
    shard.apply(Event::Tick);
    shard.quiet(); // Worker 1 may still hold it.
    shard.resume(1, 1, &["short"], &[token]);
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    shard.advance(limits::RESUME_GRACE);
    shard.quiet();
}

#[test]
fn a_claimed_run_whose_worker_stays_away_is_given_up_after_a_lease_and_counts_no_loss() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    let id = shard.enqueue(&spec("long"));
    shard.assigned();
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.connect(2, 1, &["long"]);
    shard.advance(limits::HEARTBEAT);
    shard.apply(Event::Heartbeat(session(2)));
    shard.advance(limits::LEASE - limits::HEARTBEAT - Duration::from_millis(1));
    shard.quiet();
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.assigned().token.task, id);
    assert_eq!(shard.durable.record(id).counters.losses, 0);
}

#[test]
fn a_worker_that_resumes_without_its_claimed_run_has_lost_it() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    let id = shard.enqueue(&spec("long"));
    shard.assigned();
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.resume(1, 1, &["long"], &[]);
    assert_eq!(shard.assigned().token.task, id);
    assert_eq!(shard.durable.record(id).counters.losses, 1);
}

#[test]
fn a_wish_to_stop_survives() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    let id = shard.enqueue(&spec("long"));
    let token = shard.assigned().token;
    shard.cancel(id);
    shard.stopped();
    shard.restart();
    shard.resume(1, 1, &["long"], &[token]);
    assert_eq!(shard.stopped(), (token, StopCause::Cancelled));
    shard.ended(1, token);
    assert_eq!(shard.finished().task, id);
    assert_eq!(shard.durable.state(id), StateName::Cancelled);
}

#[test]
fn a_loss_then_a_resume_of_the_same_grant_is_stale() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["long"]);
    shard.enqueue(&spec("long"));
    let token = shard.assigned().token;
    shard.disconnect(1);
    shard.advance(limits::RESET_GRACE);
    shard.resume(1, 1, &["long"], &[token]);
    assert_eq!(shard.stopped(), (token, StopCause::Stale));
    assert!(shard.assigned().token > token);
}

#[test]
fn a_token_that_cannot_be_ours_is_stale() {
    let mut shard = Shard::new();
    let id = shard.enqueue(&spec("short"));
    shard.restart();
    let grant = asynq_core::Grant {
        epoch: asynq_core::Epoch(1),
        attempt: u32::MAX,
    };
    let token = asynq_core::LeaseToken { task: id, grant };
    shard.resume(7, 1, &["short"], &[token]);
    assert_eq!(shard.stopped(), (token, StopCause::Stale));
    assert_eq!(shard.assigned().token.grant.attempt, 1);
}
