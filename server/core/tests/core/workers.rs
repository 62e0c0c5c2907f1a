//! Runs, failures, leases and connections.

use std::time::Duration;

use asynq_core::{Closed, DeadReason, Effect, Event, Outcome, Reason, Refusal, Reply, StateName, Verdict, limits};

use crate::shard::{Shard, failure, name, session, spec};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_task_goes_round() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    let id = shard.enqueue(&spec("echo"));
    let run = shard.assigned();
    assert_eq!((run.token.task, run.token.grant.attempt), (id, 1));
    assert_eq!(
        shard.core.explain(shard.now, id).map(|e| e.reason),
        Some(Reason::Running)
    );
    assert_eq!(shard.complete(1, run.token), Verdict::Accepted(StateName::Succeeded));
    let finished = shard.finished();
    assert_eq!((finished.task, finished.outcome), (id, Outcome::Succeeded));
    assert_eq!(finished.result.map(|r| r.data), Some("1".into()));
    assert_eq!(shard.durable.state(id), StateName::Succeeded);
    assert!(!shard.core.is_live(id));
}

#[test]
fn a_run_is_granted_once() {
    let mut shard = Shard::new();
    shard.connect(1, 4, &["echo"]);
    shard.enqueue(&spec("echo"));
    let run = shard.assigned();
    shard.quiet();
    shard.complete(1, run.token);
    shard.finished();
    assert_eq!(
        shard.complete(1, run.token),
        Verdict::Stale(None),
        "a second completion is refused"
    );
}

#[test]
fn the_same_id_is_the_same_task_or_refused() {
    let mut shard = Shard::new();
    let id = shard.enqueue(&spec("echo"));
    assert_eq!(
        shard.try_enqueue(id, &spec("echo")),
        Reply::Enqueued {
            task: id,
            existed: true,
            worker_known: false
        }
    );
    assert_eq!(
        shard.try_enqueue(id, &spec("other")),
        Reply::Refused(Refusal::AlreadyExists(id))
    );
    assert_eq!(shard.durable.tasks.len(), 1);
}

#[test]
fn nonsense_is_refused_and_not_stored() {
    let mut shard = Shard::new();
    let past = shard.now;
    for (field, spec) in [
        ("deadline", spec("echo").with(|o| o.deadline = Some(past))),
        ("start_before", spec("echo").with(|o| o.start_before = Some(past))),
    ] {
        let id = shard.new_id();
        let reply = shard.try_enqueue(id, &spec);
        assert!(
            matches!(reply, Reply::Refused(Refusal::Invalid { field: f, .. }) if f == field),
            "{reply:?}"
        );
    }
    assert!(shard.durable.tasks.is_empty());
}

#[test]
fn failures_are_retried_within_the_budget_and_jitter() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["flaky"]);
    let id = shard.enqueue(&spec("flaky").with(|o| o.max_attempts = Some(3)));
    for failures in 1..3 {
        let run = shard.assigned();
        assert_eq!(
            shard.fail(1, run.token, failure("no", true)),
            Verdict::Accepted(StateName::Scheduled)
        );
        assert_eq!(shard.durable.record(id).counters.failures, failures);
        assert_eq!(
            shard.core.explain(shard.now, id).map(|e| e.reason),
            Some(Reason::NotDue)
        );
        shard.quiet();
        // Base 1 s, doubled each time: never longer than this.
        shard.advance(limits::BACKOFF_BASE * (1 << (failures - 1)));
    }
    let run = shard.assigned();
    assert_eq!(run.token.grant.attempt, 3);
    assert_eq!(
        shard.fail(1, run.token, failure("no more", true)),
        Verdict::Accepted(StateName::Dead)
    );
    let finished = shard.finished();
    assert_eq!(finished.outcome, Outcome::Dead(DeadReason::Error));
    assert_eq!(finished.failure.map(|f| f.message), Some("no more".into()));
}

#[test]
fn what_no_retry_can_mend_is_not_retried() {
    for (kind, reason) in [("error", DeadReason::Error), ("rejected", DeadReason::Rejected)] {
        let mut shard = Shard::new();
        shard.connect(1, 1, &["bad"]);
        shard.enqueue(&spec("bad").with(|o| o.max_attempts = Some(9)));
        let run = shard.assigned();
        let mut why = failure("never", false);
        why.kind = kind.into();
        shard.fail(1, run.token, why);
        assert_eq!(shard.finished().outcome, Outcome::Dead(reason));
    }
}

#[test]
fn a_released_run_keeps_its_place_and_counts_nothing_against_it() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    let first = shard.enqueue(&spec("echo"));
    let second = shard.enqueue(&spec("echo"));
    let run = shard.assigned();
    assert_eq!(shard.release(1, run.token), Verdict::Accepted(StateName::Ready));
    let again = shard.assigned();
    assert_eq!((again.token.task, again.token.grant.attempt), (first, 2));
    let view = shard.core.task(first).expect("live");
    assert_eq!((view.record.counters.releases, view.record.counters.failures), (1, 0));
    shard.complete(1, again.token);
    shard.finished();
    assert_eq!(shard.assigned().token.task, second);
}

#[test]
fn a_silent_session_loses_its_runs_at_the_end_of_its_lease() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    let id = shard.enqueue(&spec("echo"));
    let stale = shard.assigned().token;
    shard.advance(limits::LEASE - Duration::from_millis(1));
    shard.quiet();
    assert_eq!(shard.durable.state(id), StateName::Running, "a long run is claimed");
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.session_ended(), session(1));
    assert_eq!(shard.durable.record(id).counters.losses, 1);
    shard.connect(2, 1, &["echo"]);
    let run = shard.assigned();
    assert_eq!(shard.complete(1, stale), Verdict::Stale(Some(StateName::Running)));
    assert_eq!(shard.complete(2, run.token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
}

#[test]
fn heartbeats_keep_a_session() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    shard.enqueue(&spec("echo"));
    let run = shard.assigned();
    for _ in 0..20 {
        shard.advance(limits::HEARTBEAT);
        shard.apply(Event::Heartbeat(session(1)));
    }
    assert_eq!(shard.complete(1, run.token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    shard.apply(Event::Heartbeat(session(9)));
    assert_eq!(shard.session_ended(), session(9), "a session nobody knows is told so");
}

#[test]
fn a_cut_connection_is_given_a_grace() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["echo"]);
    let kept = shard.enqueue(&spec("echo"));
    let token = shard.assigned().token;
    let unheard = shard.enqueue(&spec("echo"));
    assert_eq!(shard.assigned().token.task, unheard);
    shard.disconnect(1);
    assert_eq!(
        shard.core.explain(shard.now, kept).map(|e| e.reason),
        Some(Reason::Resuming)
    );
    shard.advance(SECOND);
    shard.resume(1, 2, &["echo"], &[token]);
    // The run the worker does not know is lost at once, and granted anew.
    assert_eq!(shard.durable.record(unheard).counters.losses, 1);
    let again = shard.assigned();
    assert_eq!(again.token.task, unheard);
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    assert_eq!(shard.finished().task, kept);
    shard.disconnect(1);
    shard.advance(limits::RESET_GRACE);
    assert_eq!(shard.durable.record(unheard).counters.losses, 2);
    assert_eq!(shard.durable.state(unheard), StateName::Ready);
    assert!(!shard.core.knows_session(session(1)));
}

#[test]
fn a_task_under_which_session_after_session_ends_is_poison() {
    let mut shard = Shard::new();
    let id = shard.enqueue(&spec("heavy"));
    for n in 1..=limits::MAX_LOSSES as u8 {
        shard.connect(n, 1, &["heavy"]);
        shard.assigned();
        // Nobody knows what has become of a worker that falls silent.
        shard.close(n, Closed::Silent);
        shard.advance(limits::LEASE);
    }
    let finished = shard.finished();
    assert_eq!(
        (finished.task, finished.outcome),
        (id, Outcome::Dead(DeadReason::Poison))
    );
    let counters = shard.durable.record(id).counters;
    assert_eq!((counters.losses, counters.crashes), (limits::MAX_LOSSES, 0));
}

#[test]
fn a_task_that_kills_its_process_is_tried_at_once_and_then_poison() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["heavy"]);
    // One failure is all it may have; crashes have a budget of their own.
    let id = shard.enqueue(&spec("heavy").with(|o| o.max_attempts = Some(1)));
    for crashes in 1..limits::MAX_CRASHES {
        let run = shard.assigned();
        assert_eq!(
            shard.crash(1, run.token, failure("signal 11", true)),
            Verdict::Accepted(StateName::Ready)
        );
        let counters = shard.durable.record(id).counters;
        assert_eq!((counters.crashes, counters.failures, counters.losses), (crashes, 0, 0));
    }
    let run = shard.assigned();
    assert_eq!(
        shard.crash(1, run.token, failure("signal 11", true)),
        Verdict::Accepted(StateName::Dead)
    );
    let finished = shard.finished();
    assert_eq!(finished.outcome, Outcome::Dead(DeadReason::Poison));
    assert_eq!(finished.failure.map(|f| f.message), Some("signal 11".into()));
    assert_eq!(shard.core.tally().crashes, u64::from(limits::MAX_CRASHES));
}

#[test]
fn a_later_run_waits_until_the_end_of_the_one_before_is_durable() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    shard.enqueue(&spec("echo"));
    let first = shard.assigned();
    assert!(!Effect::Assign(Box::new(first)).after_commit());
    shard.disconnect(1);
    shard.advance(limits::RESET_GRACE);
    shard.connect(2, 1, &["echo"]);
    let again = shard.assigned();
    assert_eq!(again.token.grant.attempt, 2);
    assert!(Effect::Assign(Box::new(again)).after_commit());
}

#[test]
fn a_process_that_dies_while_it_is_being_stopped_counts_nothing() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["heavy"]);
    let id = shard.enqueue(&spec("heavy"));
    let run = shard.assigned();
    shard.cancel(id);
    shard.stopped();
    assert_eq!(
        shard.crash(1, run.token, failure("signal 15", true)),
        Verdict::Accepted(StateName::Cancelled)
    );
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
    assert_eq!(shard.core.tally().crashes, 0);
}

#[test]
fn a_session_that_falls_silent_keeps_its_runs_until_its_lease_ends() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    let id = shard.enqueue(&spec("echo"));
    let token = shard.assigned().token;
    shard.connect(2, 1, &["echo"]);
    shard.advance(limits::HEARTBEAT);
    shard.apply(Event::Heartbeat(session(1)));
    shard.apply(Event::Heartbeat(session(2)));
    shard.close(1, Closed::Silent);
    // Far beyond the grace of a reset: the worker may be there and know of nothing.
    shard.advance(limits::LEASE - SECOND);
    shard.apply(Event::Heartbeat(session(2)));
    shard.quiet();
    assert_eq!(
        shard.core.explain(shard.now, id).map(|e| e.reason),
        Some(Reason::Resuming)
    );
    shard.resume(1, 1, &["echo"], &[token]);
    shard.close(1, Closed::Silent);
    shard.advance(limits::LEASE);
    assert_eq!(shard.durable.record(id).counters.losses, 1);
    assert!(!shard.core.knows_session(session(1)));
    assert_eq!(shard.session_ended(), session(2), "it was silent as long");
}

#[test]
fn a_gap_of_the_broker_lengthens_leases_and_graces() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    shard.connect(2, 1, &["other"]);
    shard.enqueue(&spec("echo"));
    let token = shard.assigned().token;
    let other = shard.enqueue(&spec("other"));
    shard.assigned();
    shard.disconnect(2);
    // The process stood still: time has passed, and nobody has looked at it.
    shard.now = shard.now + limits::LEASE;
    shard.apply(Event::Gap(limits::LEASE));
    shard.quiet();
    assert_eq!(shard.durable.record(other).counters.losses, 0);
    assert_eq!(shard.complete(1, token), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    shard.advance(limits::RESET_GRACE);
    assert_eq!(
        shard.durable.record(other).counters.losses,
        1,
        "graces last as much longer"
    );
    shard.advance(limits::LEASE);
    assert_eq!(shard.session_ended(), session(1));
}

#[test]
fn a_draining_worker_gets_nothing_new() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["echo"]);
    shard.enqueue(&spec("echo"));
    let run = shard.assigned();
    shard.apply(Event::Draining(session(1)));
    let waiting = shard.enqueue(&spec("echo"));
    shard.quiet();
    shard.complete(1, run.token);
    shard.finished();
    shard.connect(2, 1, &["echo"]);
    assert_eq!(shard.assigned().token.task, waiting);
}

#[test]
fn a_task_nobody_can_run_delays_no_other() {
    let mut shard = Shard::new();
    let stuck = shard.enqueue(&spec("gpu"));
    let fine = shard.enqueue(&spec("echo"));
    shard.connect(1, 1, &["echo"]);
    assert_eq!(shard.assigned().token.task, fine);
    let why = shard.core.explain(shard.now, stuck).expect("live");
    assert_eq!(why.reason, Reason::NoWorker);
    assert!(why.message.contains("gpu"), "{}", why.message);
    let behind = shard.enqueue(&spec("echo"));
    assert_eq!(
        shard.core.explain(shard.now, behind).map(|e| e.reason),
        Some(Reason::NoFreeSlot)
    );
    let last = shard.enqueue(&spec("echo"));
    let why = shard.core.explain(shard.now, last).expect("live");
    assert_eq!(
        (why.reason, why.details["at_most_ahead"].as_str()),
        (Reason::Behind, "1")
    );
}

#[test]
fn views_show_queues_and_workers() {
    let mut shard = Shard::new();
    shard.connect(1, 3, &["echo", "sleep"]);
    shard.enqueue(&spec("echo"));
    shard.assigned();
    shard.enqueue(&spec("gpu"));
    shard.advance(SECOND);
    let queues = shard.core.queues(shard.now);
    assert_eq!(queues.len(), 1);
    assert_eq!(queues[0].counts[&StateName::Running], 1);
    assert_eq!(queues[0].counts[&StateName::Ready], 1);
    assert_eq!(queues[0].oldest_ready, Some(SECOND));
    let workers = shard.core.workers();
    assert_eq!((workers[0].slots, workers[0].busy, workers[0].tasks.len()), (3, 1, 2));
    assert_eq!(workers[0].name, name("worker-1"));
}

#[test]
fn the_worker_with_the_most_free_slots_is_next() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["echo"]);
    shard.connect(2, 2, &["echo"]);
    let mut on = Vec::new();
    for _ in 0..4 {
        shard.enqueue(&spec("echo"));
        on.push(shard.assigned().session);
    }
    assert_eq!(on.iter().filter(|&&s| s == session(1)).count(), 2);
    assert_ne!(on[0], on[1]);
}

#[test]
fn a_queue_is_forgotten_with_its_last_task() {
    let mut shard = Shard::new();
    let mut lone = spec("echo");
    lone.queue = "lone";
    let id = shard.enqueue(&lone);
    shard.cancel(id);
    shard.finished();
    let gone = [((name("lone"), StateName::Cancelled), 1)].into();
    assert_eq!(shard.core.queues(shard.now).len(), 1);
    shard.core.forgot(&gone);
    shard.core.check();
    assert!(shard.core.queues(shard.now).is_empty());
}

#[test]
fn explain_tells_when_the_only_worker_drains() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["echo"]);
    shard.apply(Event::Draining(session(1)));
    let id = shard.enqueue(&spec("echo"));
    let why = shard.core.explain(shard.now, id).expect("live");
    assert_eq!(why.reason, Reason::NoWorker);
    assert!(why.message.contains("draining"), "{}", why.message);
}

#[test]
fn a_large_result_is_kept_until_it_can_be_fetched() {
    for (bytes, kept) in [
        (limits::LARGE_RESULT_BYTES, false),
        (limits::LARGE_RESULT_BYTES + 1, true),
    ] {
        let mut shard = Shard::new();
        shard.connect(1, 1, &["echo"]);
        let id = shard.enqueue(&spec("echo").with(|o| o.result_ttl = Some(Duration::ZERO)));
        let token = shard.assigned().token;
        let data = vec![b'1'; usize::try_from(bytes).expect("small")].into();
        let result = asynq_core::Payload {
            content_type: "".into(),
            data,
        };
        shard.apply(Event::Completed {
            session: session(1),
            token,
            result,
        });
        assert_eq!(shard.verdict(token), Verdict::Accepted(StateName::Succeeded));
        shard.finished();
        assert_eq!(shard.durable.has_result(id), kept, "{bytes} bytes");
    }
}
