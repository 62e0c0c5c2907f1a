//! Why a task is where it is: each reason once, as an operator reads it.

use std::time::Duration;

use asynq_core::{Explanation, LeaseToken, Reason, TaskId, limits};

use crate::shard::{Shard, Spec, failure, spec};

impl Shard {
    /// The explanation, which is to give this reason.
    #[track_caller]
    fn because(&self, id: TaskId, reason: Reason) -> Explanation {
        let why = self.core.explain(self.now, id).expect("the task lives");
        assert_eq!(why.reason, reason, "{why:?}");
        why
    }
}

#[test]
fn not_due() {
    let mut shard = Shard::new();
    let start = shard.now + Duration::from_secs(90);
    let delayed = Spec {
        start_at: Some(start),
        ..spec("work")
    };
    let id = shard.enqueue(&delayed);
    let why = shard.because(id, Reason::NotDue);
    assert_eq!(why.message, "It was enqueued to start later: in 90.0s.");
    assert_eq!(why.details["due_at_ms"], start.as_millis().to_string());
    assert_eq!(why.details["due_in_ms"], "90000");

    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&spec("work").with(|options| options.max_attempts = Some(2)));
    let token = shard.assigned().token;
    shard.fail(1, token, failure("no space left on device", true));
    for restarted in [false, true] {
        if restarted {
            shard.restart();
        }
        let why = shard.because(id, Reason::NotDue);
        let begins = "Attempt 1 failed (error: no space left on device); it is tried again in ";
        assert!(why.message.starts_with(begins), "{why:?}");
        assert_eq!(
            (why.details["failure"].as_str(), why.details["attempt"].as_str()),
            ("error: no space left on device", "1")
        );
        assert!(why.details["due_in_ms"].parse::<u64>().expect("a number") <= 1_000);
    }
}

#[test]
fn no_worker_no_free_slot_and_behind() {
    let mut shard = Shard::new();
    let id = shard.enqueue(&spec("work"));
    let why = shard.because(id, Reason::NoWorker);
    assert_eq!(why.message, "No connected worker has registered the task name work.");
    shard.connect(1, 1, &["work"]);
    shard.assigned();
    let [next, last] = [0, 1].map(|_| shard.enqueue(&spec("work")));
    let why = shard.because(next, Reason::NoFreeSlot);
    assert_eq!(
        why.message,
        "It is next, but all 1 slots of the workers that could run it are taken."
    );
    let why = shard.because(last, Reason::Behind);
    assert_eq!(why.details["at_most_ahead"], "1");
}

#[test]
fn running_stopping_and_resuming() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&spec("work"));
    let token = shard.assigned().token;
    shard.advance(Duration::from_secs(2));
    let why = shard.because(id, Reason::Running);
    assert_eq!(why.message, "Worker worker-1 has run attempt 1 for 2.0s.");

    shard.disconnect(1);
    let why = shard.because(id, Reason::Resuming);
    assert_eq!(
        why.message,
        "Worker worker-1 holds it but has no connection; it is given up in 5.0s."
    );
    shard.resume(1, 1, &["work"], &[token]);
    shard.cancel(id);
    shard.stopped();
    let why = shard.because(id, Reason::Stopping);
    assert_eq!(
        why.message,
        "Worker worker-1 has been told to stop it because it was cancelled; it has not confirmed yet."
    );
    shard.disconnect(1);
    let why = shard.because(id, Reason::Stopping);
    assert_eq!(
        why.message,
        "It is to stop because it was cancelled, but worker worker-1, which holds it, has no connection; if it does \
         not come back, this ends in 5.0s."
    );
}

#[test]
fn resuming_after_a_restart() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["work"]);
    let claimed = shard.enqueue(&spec("work"));
    shard.assigned();
    shard.advance(limits::CLAIM_AFTER);
    let young = shard.enqueue(&spec("work"));
    let token: LeaseToken = shard.assigned().token;
    shard.restart();
    let why = shard.because(claimed, Reason::Resuming);
    assert_eq!(
        why.message,
        "Worker worker-1 holds it but has not come back since the broker restarted; it is given up in 30.0s."
    );
    let why = shard.because(young, Reason::Resuming);
    assert_eq!(
        why.message,
        "The broker has restarted and gives workers up to 2s to say that they still run it; yet to come back: 1."
    );
    assert_eq!(why.details["awaited_workers"], "1");
    shard.resume(1, 2, &["work"], &[token]);
    shard.because(young, Reason::Running);
    shard.drain();
}
