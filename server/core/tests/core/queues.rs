//! What queues are told to be, and what it does.

use std::time::Duration;

use asynq_core::{Closed, DeadReason, Outcome, QueueSettings, QueueUpdate, StateName, limits};

use crate::shard::{Shard, Spec, spec};

const FAST: QueueUpdate = QueueUpdate {
    fast_requeue: Some(true),
};
const SLOW: QueueUpdate = QueueUpdate {
    fast_requeue: Some(false),
};

fn in_queue(queue: &'static str) -> Spec {
    Spec { queue, ..spec("echo") }
}

/// One run of each queue breaks off at the same moment: that of the fast one is run
/// elsewhere at once, the other waits for its worker.
#[test]
fn of_a_fast_queue_a_broken_run_is_run_elsewhere_at_once() {
    let mut shard = Shard::new();
    shard.set_queue("fast", FAST);
    shard.connect(1, 2, &["echo"]);
    let (fast, slow) = (shard.enqueue(&in_queue("fast")), shard.enqueue(&in_queue("slow")));
    shard.assigned();
    shard.assigned();
    shard.connect(2, 2, &["echo"]);
    shard.disconnect(1);
    let run = shard.assigned();
    assert_eq!((run.token.task, run.token.grant.attempt), (fast, 2));
    assert_eq!(shard.durable.record(fast).counters.losses, 1);
    shard.quiet();
    shard.advance(limits::RESET_GRACE);
    assert_eq!(shard.assigned().token.task, slow);
}

/// Its session is over with its last run, and silence is no break.
#[test]
fn with_its_last_run_a_session_is_over_and_silence_is_waited_for() {
    let mut shard = Shard::new();
    shard.set_queue("fast", FAST);
    shard.connect(1, 1, &["echo"]);
    shard.enqueue(&in_queue("fast"));
    shard.assigned();
    shard.disconnect(1);
    assert_eq!(shard.core.workers().len(), 0);
    shard.connect(2, 1, &["echo"]);
    shard.assigned();
    shard.close(2, Closed::Silent);
    shard.connect(3, 1, &["echo"]);
    shard.quiet();
}

/// Such a run may go on there, so it is waited for in any queue.
#[test]
fn what_must_not_begin_twice_is_waited_for() {
    let mut shard = Shard::new();
    shard.set_queue("fast", FAST);
    shard.connect(1, 2, &["echo"]);
    let once = shard.enqueue(&in_queue("fast").with(|options| options.at_most_once = true));
    let other = shard.enqueue(&in_queue("fast"));
    let token = shard.assigned().token;
    shard.assigned();
    shard.disconnect(1);
    assert_eq!(shard.core.live_state(once), Some(StateName::Running));
    assert_eq!(shard.core.live_state(other), Some(StateName::Ready));
    shard.resume(1, 1, &[], &[token]);
    shard.complete(1, token);
    shard.finished();
}

/// The crash of a suspect is told from a loss as in any queue.
#[test]
fn alone_it_is_a_crash() {
    let mut shard = Shard::new();
    shard.set_queue("fast", FAST);
    let task = shard.enqueue(&in_queue("fast"));
    for n in 1..=5 {
        shard.connect(n, 1, &["echo"]);
        assert_eq!(shard.assigned().token.task, task);
        shard.disconnect(n);
    }
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Poison));
}

#[test]
fn settings_are_changed_live_and_outlive_restarts_and_tasks() {
    let mut shard = Shard::new();
    let fast = QueueSettings { fast_requeue: true };
    assert_eq!(shard.set_queue("q", FAST).settings, fast);
    assert_eq!(
        shard.set_queue("q", QueueUpdate::default()).settings,
        fast,
        "what is not named stays"
    );
    shard.restart();
    let task = shard.enqueue(&in_queue("q"));
    shard.cancel(task);
    shard.finished();
    let seen = |shard: &Shard| -> Vec<_> {
        let queues = shard.core.queues(shard.now).into_iter();
        queues.map(|queue| (queue.name.to_string(), queue.settings)).collect()
    };
    assert_eq!(seen(&shard), [("q".to_owned(), fast)]);
    shard.connect(1, 1, &["echo"]);
    shard.enqueue(&in_queue("q"));
    shard.assigned();
    assert_eq!(shard.set_queue("q", SLOW).settings, QueueSettings::default());
    assert!(shard.durable.queues.is_empty());
    shard.disconnect(1);
    shard.connect(2, 1, &["echo"]);
    shard.quiet();
    shard.advance(limits::RESET_GRACE + Duration::from_millis(1));
    shard.assigned();
}
