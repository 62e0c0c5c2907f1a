//! Tasks that runs leave behind with their success.

use std::time::Duration;

use asynq_core::{CancelOutcome, Closed, Effect, Event, LeaseToken, Reply, StateName, Verdict, limits};

use crate::shard::{Shard, Spec, payload, session, spec, task_spec};

fn complete_with(shard: &mut Shard, token: LeaseToken, children: &[u32]) -> Verdict {
    shard.apply(Event::CompletedWith {
        session: session(1),
        token,
        result: payload("1"),
        children: children
            .iter()
            .map(|&n| task_spec(token.child(n), &spec("child")))
            .collect(),
    });
    shard.verdict(token)
}

#[test]
fn spawned_tasks_begin_with_the_end_of_their_run_once() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    let verdict = complete_with(&mut shard, parent, &[1, 2]);
    assert_eq!(verdict, Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    for n in 1..=2 {
        assert_eq!(shard.durable.state(parent.child(n)), StateName::Ready);
    }
    // Said again, it is stale: nothing more comes of it.
    assert_eq!(complete_with(&mut shard, parent, &[1, 2, 3]), Verdict::Stale(None));
    assert_eq!(shard.durable.tasks.len(), 3);
}

#[test]
fn of_a_run_that_does_not_complete_nothing_is_spawned() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    // The wish to stop came first.
    assert!(matches!(
        shard.cancel(parent.task),
        Reply::Cancelled {
            outcome: CancelOutcome::Stopping,
            ..
        }
    ));
    assert_eq!(
        complete_with(&mut shard, parent, &[1]),
        Verdict::Accepted(StateName::Cancelled)
    );
    assert_eq!(shard.durable.tasks.len(), 1);
    shard.drain();
    // Lost, and given to the next attempt.
    shard.enqueue(&spec("parent"));
    let first = shard.assigned().token;
    shard.close(1, Closed::Reset);
    shard.advance(limits::RESET_GRACE);
    shard.connect(1, 1, &["parent"]);
    let second = shard.drain().into_iter().find_map(|effect| match effect {
        Effect::Assign(run) => Some(run.token),
        _ => None,
    });
    let second = second.expect("it runs again");
    assert_eq!(
        complete_with(&mut shard, first, &[1]),
        Verdict::Stale(Some(StateName::Running))
    );
    assert_eq!(shard.durable.tasks.len(), 2);
    complete_with(&mut shard, second, &[1]);
    assert_eq!(shard.durable.tasks.len(), 3);
    assert_eq!(shard.durable.state(second.child(1)), StateName::Ready);
    shard.drain();
}

/// Whatever was written last when the broker died, and whether or not the worker
/// says again what it had said.
#[test]
fn a_crash_after_any_commit_leaves_the_result_and_what_was_spawned_or_neither() {
    let mut shard = Shard::new();
    let mut written = vec![shard.durable.clone()];
    shard.connect(1, 1, &["parent"]);
    written.push(shard.durable.clone());
    shard.enqueue(&spec("parent"));
    written.push(shard.durable.clone());
    let parent = shard.assigned().token;
    shard.advance(limits::CLAIM_AFTER);
    written.push(shard.durable.clone());
    complete_with(&mut shard, parent, &[1, 2]);
    shard.finished();
    written.push(shard.durable.clone());
    let mut accepted = 0;
    for (at, durable) in written.into_iter().enumerate() {
        let whole = |shard: &Shard| {
            let known = shard.ids_known();
            let children = (1..=2).filter(|&n| known.contains(&parent.child(n))).count();
            let done = known.contains(&parent.task) && shard.durable.state(parent.task) == StateName::Succeeded;
            assert_eq!(children, if done { 2 } else { 0 }, "after commit {at}");
            done
        };
        let mut shard = Shard::new();
        shard.durable = durable;
        let before = {
            shard.restart();
            whole(&shard)
        };
        shard.resume(1, 1, &["parent"], &[parent]);
        shard.drain();
        let said = complete_with(&mut shard, parent, &[1, 2]);
        accepted += usize::from(said == Verdict::Accepted(StateName::Succeeded));
        assert!(!before || said == Verdict::Stale(None), "after commit {at}: {said:?}");
        whole(&shard);
        assert!(shard.durable.tasks.len() <= 3);
        shard.drain();
    }
    assert_eq!(accepted, 2, "from its enqueue to its end");
}

/// It did what it was to do: that its children have no place may change.
#[test]
fn a_run_whose_children_have_no_place_is_tried_three_times() {
    let mut shard = full_of_queues(limits::MAX_QUEUES - 2);
    shard.connect(1, 1, &["parent"]);
    let task = shard.enqueue(&spec("parent"));
    for attempt in 1..=limits::MIN_ATTEMPTS_AT_LIMIT {
        let parent = shard.assigned().token;
        let verdict = complete_into(&mut shard, parent, &["another", "one-more"]);
        if attempt == limits::MIN_ATTEMPTS_AT_LIMIT {
            assert_eq!(verdict, Verdict::Accepted(StateName::Dead));
            break;
        }
        assert_eq!(verdict, Verdict::Accepted(StateName::Scheduled));
        for _ in 0..limits::BACKOFF_BASE.as_secs() * 4 {
            shard.advance(Duration::from_secs(1));
            shard.apply(Event::Heartbeat(session(1)));
        }
    }
    let failure = shard.durable.record(task).failure.clone().expect("it says why");
    assert_eq!(failure.kind, "limit");
    assert!(failure.message.contains("queues"), "{}", failure.message);
    shard.drain();
}

/// A queue is one, however many of them go there.
#[test]
fn children_that_share_a_new_queue_need_one_place_for_it() {
    let mut shard = full_of_queues(limits::MAX_QUEUES - 2);
    shard.connect(1, 1, &["parent"]);
    shard.enqueue(&spec("parent"));
    let parent = shard.assigned().token;
    let verdict = complete_into(&mut shard, parent, &["another", "another", "default", "another"]);
    assert_eq!(verdict, Verdict::Accepted(StateName::Succeeded));
    shard.drain();
}

/// A shard that knows so many queues, `default` not among them.
fn full_of_queues(queues: usize) -> Shard {
    let mut shard = Shard::new();
    shard.check_each_step = false;
    for n in 0..queues {
        let queue: &'static str = Box::leak(format!("queue-{n}").into_boxed_str());
        shard.enqueue(&Spec {
            queue,
            ..spec("nobody")
        });
    }
    shard
}

/// Completes the run with a child in each of these queues.
fn complete_into(shard: &mut Shard, token: LeaseToken, queues: &[&'static str]) -> Verdict {
    let child = |(n, &queue)| {
        let spec = Spec { queue, ..spec("child") };
        task_spec(token.child(n), &spec)
    };
    let children = (1..).zip(queues).map(child).collect();
    shard.apply(Event::CompletedWith {
        session: session(1),
        token,
        result: payload("1"),
        children,
    });
    shard.verdict(token)
}
