//! Runs that wait for tasks they have called.

use std::time::Duration;

use asynq_core::{
    Assignment, Closed, DeadReason, Effect, Event, Finished, LeaseToken, Outcome, Reason, Refusal, Reply, StateName,
    StateSet, StopCause, TaskId, Verdict, limits,
};

use crate::shard::{Shard, failure, session, spec};

mod lives;
mod spawned;
mod streamed;

const SECOND: Duration = Duration::from_secs(1);

fn called(reply: &Reply) -> TaskId {
    match reply {
        Reply::Enqueued {
            task, existed: false, ..
        } => *task,
        other => panic!("not called: {other:?}"),
    }
}

/// A worker with one slot runs a task that has called another, which runs as well.
fn parent_and_child() -> (Shard, LeaseToken, LeaseToken) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent", "child"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    let id = called(&shard.call(1, parent, 1, &spec("child")));
    let child = shard.assigned().token;
    assert_eq!((child.task, id), (parent.child(1), parent.child(1)));
    (shard, parent, child)
}

fn finished(effects: &[Effect]) -> Vec<(TaskId, Outcome)> {
    let ends = effects.iter().filter_map(|effect| match effect {
        Effect::Finished(end) => Some((end.task, end.outcome.clone())),
        _ => None,
    });
    ends.collect()
}

fn stops(effects: &[Effect]) -> Vec<(LeaseToken, StopCause)> {
    let stops = effects.iter().filter_map(|effect| match effect {
        Effect::Stop { token, cause, .. } => Some((*token, *cause)),
        _ => None,
    });
    stops.collect()
}

#[test]
fn a_recursion_with_one_slot_comes_to_its_end() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["down"]);
    shard.enqueue(&spec("down"));
    let mut runs = vec![shard.assigned().token];
    for _ in 0..50 {
        called(&shard.call(1, *runs.last().unwrap(), 1, &spec("down")));
        runs.push(shard.assigned().token);
    }
    let other = shard.enqueue(&spec("down"));
    shard.quiet();
    while let Some(run) = runs.pop() {
        assert_eq!(shard.complete(1, run), Verdict::Accepted(StateName::Succeeded));
        assert_eq!(shard.finished().task, run.task);
        assert!(
            runs.is_empty() || shard.core.workers()[0].busy == 1,
            "one runs at a time"
        );
    }
    assert_eq!(shard.assigned().token.task, other, "the slot is free again");
}

#[test]
fn who_waits_goes_on_at_once_even_over_its_slots() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent", "other"]);
    shard.connect(2, 1, &["child"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    shard.enqueue(&spec("other"));
    shard.quiet();
    called(&shard.call(1, parent, 1, &spec("child")));
    let other = shard.assigned();
    let child = shard.assigned();
    assert_eq!((child.session, other.session), (session(2), session(1)));
    shard.complete(2, child.token);
    shard.finished();
    assert_eq!(shard.core.workers()[0].busy, 2);
    let next = shard.enqueue(&spec("other"));
    shard.complete(1, other.token);
    shard.finished();
    shard.quiet();
    shard.complete(1, parent);
    shard.finished();
    assert_eq!(shard.assigned().token.task, next);
}

#[test]
fn several_calls_lend_one_slot_until_the_last_answer() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent", "child"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    called(&shard.call(1, parent, 1, &spec("child")));
    let first = shard.assigned().token;
    called(&shard.call(1, parent, 2, &spec("child")));
    shard.quiet();
    shard.complete(1, first);
    shard.finished();
    let second = shard.assigned().token;
    assert_eq!(second.task, parent.child(2));
    shard.complete(1, second);
    shard.finished();
    shard.enqueue(&spec("child"));
    shard.quiet();
    shard.complete(1, parent);
    shard.finished();
    shard.assigned();
}

#[test]
fn the_same_call_is_the_same_task() {
    let (mut shard, parent, child) = parent_and_child();
    let again = shard.call(1, parent, 1, &spec("child"));
    assert!(matches!(again, Reply::Enqueued { task, existed: true, .. } if task == child.task));
    let different = shard.call(1, parent, 1, &spec("child").series("other"));
    assert!(matches!(different, Reply::Refused(Refusal::AlreadyExists(id)) if id == child.task));
    shard.quiet();
    assert_eq!(shard.durable.tasks.len(), 2);
    // An id of a run is nobody else's.
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    assert!(matches!(
        shard.try_enqueue(parent.child(1), &spec("child")),
        Reply::Enqueued { .. }
    ));
    let taken = shard.call(1, parent, 1, &spec("child"));
    assert!(matches!(taken, Reply::Refused(Refusal::AlreadyExists(_))));
}

#[test]
fn ids_of_children_are_uuids_of_their_own() {
    let (_shard, parent, child) = parent_and_child();
    let ids: Vec<_> = [
        parent.child(1),
        parent.child(2),
        child.child(1),
        LeaseToken {
            grant: asynq_core::Grant {
                attempt: 2,
                ..parent.grant
            },
            ..parent
        }
        .child(1),
    ]
    .into();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!((id.0[6] >> 4, id.0[8] >> 6), (7, 2), "{id}");
        assert!(!ids[..at].contains(id), "{id} is there twice");
    }
}

#[test]
fn only_a_current_run_calls() {
    let (mut shard, parent, child) = parent_and_child();
    assert!(matches!(
        shard.call(2, parent, 2, &spec("child")),
        Reply::Refused(Refusal::StaleCall(token)) if token == parent
    ));
    shard.cancel(parent.task);
    assert!(matches!(
        shard.call(1, parent, 2, &spec("child")),
        Reply::Refused(Refusal::StaleCall(_))
    ));
    shard.ended(1, parent);
    assert!(matches!(
        shard.call(1, parent, 2, &spec("child")),
        Reply::Refused(Refusal::StaleCall(_))
    ));
    shard.ended(1, child);
    assert_eq!(shard.durable.tasks.len(), 2);
    shard.drain();
}

/// However the attempt ends, what it has called is cancelled.
#[test]
fn a_called_task_ends_with_the_attempt_that_called_it() {
    type End = fn(&mut Shard, LeaseToken);
    let ends: [(&str, End); 9] = [
        ("completed", |shard, run| {
            shard.complete(1, run);
        }),
        ("failed", |shard, run| {
            shard.fail(1, run, failure("no", true));
        }),
        ("crashed", |shard, run| {
            shard.crash(1, run, failure("no", true));
        }),
        ("released", |shard, run| {
            shard.release(1, run);
        }),
        ("ended", |shard, run| {
            shard.ended(1, run);
        }),
        ("cancelled", |shard, run| drop(shard.cancel(run.task))),
        ("timed out", |shard, _| shard.advance(5 * SECOND)),
        ("lost", |shard, _| {
            shard.close(1, Closed::Reset);
            shard.advance(limits::RESET_GRACE);
        }),
        ("not resumed", |shard, _| {
            shard.restart();
            shard.advance(limits::LEASE);
        }),
    ];
    for (how, end) in ends {
        for runs in [true, false] {
            let mut shard = Shard::new();
            shard.connect(1, 1, &["parent"]);
            if runs {
                shard.connect(2, 1, &["child"]);
            }
            let attempts = |options: &mut asynq_core::Options| {
                options.max_attempts = Some(2);
                options.timeout = (how == "timed out").then_some(59 * SECOND);
            };
            shard.enqueue(&spec("parent").with(attempts));
            let parent = shard.assigned().token;
            let child = called(&shard.call(1, parent, 1, &spec("child")));
            let run = runs.then(|| shard.assigned().token);
            for _ in 0..11 {
                shard.apply(Event::Heartbeat(session(1)));
                shard.apply(Event::Heartbeat(session(2)));
                if how == "timed out" {
                    shard.advance(5 * SECOND);
                }
            }
            shard.drain();
            end(&mut shard, parent);
            let effects = shard.drain();
            match run {
                Some(run) if how != "not resumed" => {
                    assert!(
                        stops(&effects).contains(&(run, StopCause::Cancelled)),
                        "{how}: {effects:?}"
                    );
                    shard.ended(2, run);
                    assert_eq!(finished(&shard.drain()), [(child, Outcome::Cancelled)], "{how}");
                }
                _ => assert!(
                    finished(&effects).contains(&(child, Outcome::Cancelled)),
                    "{how}: {effects:?}"
                ),
            }
            assert_eq!(shard.durable.state(child), StateName::Cancelled, "{how}");
        }
    }
}

#[test]
fn a_cancel_goes_down_the_whole_way() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["down"]);
    let root = shard.enqueue(&spec("down"));
    let mut runs = vec![shard.assigned().token];
    for _ in 0..limits::MAX_CALL_DEPTH {
        called(&shard.call(1, *runs.last().unwrap(), 1, &spec("down")));
        runs.push(shard.assigned().token);
    }
    let deeper = shard.call(1, *runs.last().unwrap(), 1, &spec("down"));
    assert!(
        matches!(deeper, Reply::Refused(Refusal::Exhausted { limit, .. }) if limit == u64::from(limits::MAX_CALL_DEPTH))
    );
    shard.cancel(root);
    let stopped = stops(&shard.drain());
    assert_eq!(stopped.len(), runs.len());
    for run in runs {
        assert_eq!(shard.ended(1, run), Verdict::Accepted(StateName::Cancelled));
    }
    assert_eq!(shard.core.workers()[0].busy, 0);
    shard.drain();
}

#[test]
fn a_run_may_not_have_called_too_many() {
    let mut shard = Shard::new();
    shard.check_each_step = false;
    shard.connect(1, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    for n in 1..=limits::MAX_CALLS as u32 {
        called(&shard.call(1, parent, n, &spec("child")));
    }
    let n = limits::MAX_CALLS as u32 + 1;
    let more = shard.call(1, parent, n, &spec("child"));
    assert!(matches!(more, Reply::Refused(Refusal::Exhausted { .. })), "{more:?}");
    shard.cancel(parent.child(7));
    called(&shard.call(1, parent, n, &spec("child")));
    shard.core.check();
    shard.drain();
}

/// A called task that is withdrawn is cancelled; the run waits until it is over.
#[test]
fn a_call_can_be_withdrawn() {
    let (mut shard, parent, child) = parent_and_child();
    shard.apply(Event::Withdraw {
        session: session(1),
        token: parent,
        n: 1,
    });
    assert_eq!(shard.stopped(), (child, StopCause::Cancelled));
    shard.ended(1, child);
    assert_eq!(shard.finished().outcome, Outcome::Cancelled);
    // Of what is unknown, or of another's, nothing happens.
    for (n, token) in [(1, parent), (2, child), (9, parent)] {
        shard.apply(Event::Withdraw {
            session: session(1),
            token,
            n,
        });
    }
    shard.complete(1, parent);
    shard.finished();
}

#[test]
fn the_end_of_a_called_task_is_told_and_its_result_kept_for_who_asks_again() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent", "child"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    let gone = |options: &mut asynq_core::Options| options.result_ttl = Some(Duration::ZERO);
    let child = called(&shard.call(1, parent, 1, &spec("child").with(gone)));
    let run = shard.assigned().token;
    shard.complete(1, run);
    shard.finished();
    assert!(shard.durable.has_result(child));
    called(&shard.call(1, parent, 2, &spec("child")));
    let run = shard.assigned().token;
    shard.fail(1, run, failure("no", false));
    let Finished { outcome, failure, .. } = shard.finished();
    assert_eq!(outcome, Outcome::Dead(DeadReason::Error));
    assert_eq!(failure.unwrap().message, "no");
    // An operator who has it run again has it for himself.
    let dead = parent.child(2);
    assert!(matches!(shard.retry(dead), Reply::Retried { revived: true, .. }));
    shard.complete(1, parent);
    shard.finished();
    let run = shard.assigned().token;
    assert_eq!(run.task, dead);
    shard.complete(1, run);
    shard.finished();
}

#[test]
fn a_worker_that_comes_back_still_waits() {
    let (mut shard, parent, child) = parent_and_child();
    shard.close(1, Closed::Reset);
    shard.advance(SECOND);
    shard.resume(1, 1, &["parent", "child"], &[parent, child]);
    shard.enqueue(&spec("child"));
    shard.quiet();
    shard.complete(1, child);
    shard.finished();
    shard.complete(1, parent);
    shard.finished();
    shard.assigned();
}

#[test]
fn after_a_restart_a_run_that_is_resumed_still_waits() {
    let (mut shard, parent, child) = parent_and_child();
    shard.drain();
    // The child's run was never written: the worker tells of it.
    shard.restart();
    shard.resume(1, 1, &["parent", "child"], &[parent, child]);
    let again = shard.call(1, parent, 1, &spec("child"));
    assert!(matches!(again, Reply::Enqueued { existed: true, .. }), "{again:?}");
    shard.enqueue(&spec("child"));
    shard.quiet();
    shard.complete(1, child);
    shard.finished();
    shard.complete(1, parent);
    shard.finished();
    shard.assigned();
}

/// What was called and not written yet is called again by the resumed run.
#[test]
fn a_call_that_went_with_the_broker_is_made_again() {
    let (mut shard, parent, child) = parent_and_child();
    shard.drain();
    let with_child = shard.durable.clone();
    shard.durable.tasks.retain(|_, record| record.id == parent.task);
    assert_eq!(with_child.tasks.len(), 2);
    shard.restart();
    shard.resume(1, 1, &["parent", "child"], &[parent, child]);
    assert_eq!(shard.stopped(), (child, StopCause::Stale));
    called(&shard.call(1, parent, 1, &spec("child")));
    let again = shard.assigned().token;
    assert!(again.task == child.task && again.grant > child.grant);
    shard.complete(1, again);
    shard.finished();
    shard.complete(1, parent);
    shard.finished();
}

#[test]
fn a_draining_worker_may_still_call() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent", "child"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    shard.apply(Event::Draining(session(1)));
    called(&shard.call(1, parent, 1, &spec("child")));
    shard.quiet();
    shard.connect(2, 1, &["child"]);
    let child = shard.assigned();
    assert_eq!(child.session, session(2));
    shard.complete(2, child.token);
    shard.finished();
    shard.complete(1, parent);
    shard.finished();
}

/// A deep queue of tasks that each call one of the same worker: all come to their
/// end, and only so many wait at a time.
#[test]
fn however_many_wait_what_they_wait_for_finds_a_slot() {
    let mut shard = Shard::new();
    shard.check_each_step = false;
    shard.connect(1, 2, &["parent", "child"]);
    let tasks = 5 * limits::WAITING_RUNS as usize;
    for _ in 0..tasks {
        shard.enqueue(&spec("parent"));
    }
    let (mut waiting, mut most, mut done) = (Vec::new(), 0, 0);
    let mut explained = false;
    loop {
        let runs: Vec<Assignment> = shard
            .drain()
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Assign(run) => Some(*run),
                _ => None,
            })
            .collect();
        if runs.is_empty() {
            break;
        }
        for run in runs {
            if run.name.as_str() == "parent" {
                called(&shard.call(1, run.token, 1, &spec("child")));
                waiting.push(run.token);
                most = most.max(waiting.len());
                continue;
            }
            if most > limits::WAITING_RUNS as usize && !explained {
                explained = true;
                shard.core.check();
                let last = *shard.ids_known().iter().rev().find(|id| id.0[6] == 0).unwrap();
                let why = shard.core.explain(shard.now, last).unwrap();
                assert_eq!(why.reason, Reason::NoFreeSlot, "{why:?}");
                assert!(why.message.contains("runs wait for what they have called"), "{why:?}");
            }
            shard.complete(1, run.token);
            let at = waiting.iter().position(|parent| parent.child(1) == run.token.task);
            let parent = waiting.remove(at.expect("somebody waits for it"));
            shard.complete(1, parent);
            done += 1;
        }
    }
    shard.core.check();
    assert!(explained);
    assert_eq!((done, waiting.len()), (tasks, 0));
    assert!(
        most <= limits::WAITING_RUNS as usize + 4,
        "{most} runs waited at a time"
    );
}

#[test]
fn explain_says_what_a_run_waits_for() {
    let (mut shard, parent, child) = parent_and_child();
    let next = shard.enqueue(&spec("child"));
    let why = shard.core.explain(shard.now, next).unwrap();
    assert!(why.message.contains("all 1 slots"), "{why:?}");
    let why = shard.core.explain(shard.now, parent.task).unwrap();
    assert_eq!(why.reason, Reason::Running);
    assert_eq!(why.details["waits_for"], child.task.to_string());
    assert_eq!(
        why.message,
        format!(
            "Worker worker-1 waits for task {}, which it has called. Its slot is lent meanwhile.",
            child.task
        )
    );
    let why = shard.core.explain(shard.now, child.task).unwrap();
    assert_eq!(why.details["called_by"], parent.task.to_string());
}

#[test]
fn a_purged_child_is_no_concern_of_its_run() {
    let (mut shard, parent, child) = parent_and_child();
    shard.fail(1, child, failure("no", false));
    shard.finished();
    let states: StateSet = [StateName::Dead].into_iter().collect();
    assert!(matches!(shard.purge(child.task, states), Reply::Purged { .. }));
    shard.complete(1, parent);
    shard.finished();
}

/// So many of its runs wait that it takes only what runs wait for: it has the name all
/// the same, and callers are not told that nobody has.
#[test]
fn a_worker_that_takes_only_called_tasks_is_known() {
    let mut shard = Shard::new();
    shard.check_each_step = false;
    shard.connect(1, 1, &["parent"]);
    for _ in 0..=limits::WAITING_RUNS {
        shard.enqueue(&spec("parent"));
        let parent = shard.assigned().token;
        shard.call(1, parent, 1, &spec("nobody"));
    }
    shard.core.check();
    let id = shard.new_id();
    let reply = shard.try_enqueue(id, &spec("parent"));
    shard.quiet();
    assert!(matches!(reply, Reply::Enqueued { worker_known: true, .. }), "{reply:?}");
    let id = shard.new_id();
    let reply = shard.try_enqueue(id, &spec("nobody"));
    assert!(
        matches!(
            reply,
            Reply::Enqueued {
                worker_known: false,
                ..
            }
        ),
        "{reply:?}"
    );
}
