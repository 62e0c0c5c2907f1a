//! What a task went through, as it is told afterwards.

use std::fmt::Write as _;
use std::time::Duration;

use asynq_core::{Cause, Event, StateName, TaskId, Verdict, limits};

use crate::shard::{Shard, Spec, failure, session, spec};

impl Shard {
    /// A line for each step: seconds since the enqueue, states, attempt, worker, cause.
    fn history(&self, id: TaskId) -> String {
        let told = match self.core.task(id) {
            Some(view) => view.record.history(view.worker.as_ref()),
            None => self.durable.record(id).history(None),
        };
        let mut text = String::new();
        for step in &told {
            let from = step.from.map_or("-", StateName::as_str);
            let worker = step.worker.as_ref().map_or("-", |worker| worker.as_str());
            let (to, cause) = (step.to.as_str(), step.cause.as_str());
            let after = step.at.since(told[0].at).as_secs();
            write!(text, "{after} {from}>{to} {} {worker} {cause}", step.attempt).expect("written");
            let message = if step.message.is_empty() { "" } else { ": " };
            writeln!(text, "{message}{}", step.message).expect("written");
        }
        text
    }

    fn second(&mut self) {
        self.advance(Duration::from_secs(1));
    }
}

fn thrice(name: &'static str) -> Spec {
    spec(name).with(|options| {
        options.max_attempts = Some(3);
        options.max_timeouts = Some(2);
    })
}

#[test]
fn an_ordinary_task_is_told_from_its_record() {
    let mut shard = Shard::new();
    let delayed = Spec {
        start_at: Some(shard.now + Duration::from_secs(3)),
        ..spec("echo")
    };
    let id = shard.enqueue(&delayed);
    assert_eq!(shard.history(id), "0 ->scheduled 0 - enqueued\n");
    shard.advance(Duration::from_secs(5));
    shard.connect(1, 1, &["echo"]);
    let token = shard.assigned().token;
    shard.second();
    assert_eq!(
        shard.history(id),
        "0 ->scheduled 0 - enqueued\n\
         3 scheduled>ready 0 - due\n\
         5 ready>running 1 worker-1 granted\n"
    );
    shard.complete(1, token);
    shard.finished();
    assert_eq!(
        shard.history(id),
        "0 ->scheduled 0 - enqueued\n\
         3 scheduled>ready 0 - due\n\
         5 ready>running 1 worker-1 granted\n\
         6 running>succeeded 1 worker-1 completed\n"
    );
    let record = shard.durable.record(id);
    assert_eq!(record.notes, None, "what is ordinary is not noted");
    assert_eq!(record.last_worker().map(asynq_core::Name::as_str), Some("worker-1"));
}

#[test]
fn a_task_that_has_seen_much_tells_it_all() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&thrice("work"));
    let token = shard.assigned().token;
    shard.release(1, token);
    let token = shard.assigned().token;
    shard.second();
    shard.fail(1, token, failure("disk full", true));
    // The draw of a back-off is the same in every replay.
    shard.second();
    let token = shard.assigned().token;
    shard.disconnect(1);
    shard.connect(2, 1, &["work"]);
    shard.advance(limits::RESET_GRACE);
    assert_eq!(shard.assigned().token.grant.attempt, token.grant.attempt + 1);
    shard.second();
    let token = shard.core.task(id).expect("it lives").record.grant;
    let token = asynq_core::LeaseToken { task: id, grant: token };
    shard.fail(2, token, failure("disk full still", true));
    shard.advance(Duration::from_secs(2));
    let token = shard.assigned().token;
    shard.cancel(id);
    shard.stopped();
    assert_eq!(shard.complete(2, token), Verdict::Accepted(StateName::Cancelled));
    shard.finished();
    let told = shard.history(id);
    let steps: Vec<_> = told
        .lines()
        .map(|line| line.split_once(' ').expect("a time").1)
        .collect();
    assert_eq!(
        steps,
        [
            "->ready 0 - enqueued",
            "ready>running 1 worker-1 granted",
            "running>ready 1 worker-1 released",
            "ready>running 2 worker-1 granted",
            "running>scheduled 2 worker-1 failed: error: disk full",
            "scheduled>ready 2 - due",
            "ready>running 3 worker-1 granted",
            "running>ready 3 worker-1 lost",
            "ready>running 4 worker-2 granted",
            "running>scheduled 4 worker-2 failed: error: disk full still",
            "scheduled>ready 4 - due",
            "ready>running 5 worker-2 granted",
            "running>stopping 5 worker-2 cancelled",
            "stopping>stopping 5 worker-2 too_late",
            "stopping>cancelled 5 worker-2 cancelled",
        ]
    );
    let times: Vec<u64> = told
        .lines()
        .map(|line| line.split_once(' ').expect("a time").0.parse().expect("seconds"))
        .collect();
    assert!(times.is_sorted(), "{told}");
    // Both are the same words, once from memory and once from what was kept.
    shard.restart();
    assert_eq!(shard.history(id), told);
}

#[test]
fn timeouts_and_deadlines_are_told_apart() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let deadline = shard.now + Duration::from_secs(40);
    let id = shard.enqueue(&thrice("work").with(|options| {
        options.timeout = Some(Duration::from_secs(10));
        options.deadline = Some(deadline);
    }));
    let token = shard.assigned().token;
    shard.advance(Duration::from_secs(10));
    shard.stopped();
    shard.second();
    shard.ended(1, token);
    shard.second();
    let token = shard.assigned().token;
    shard.advance(Duration::from_secs(10));
    shard.stopped();
    shard.ended(1, token);
    shard.finished();
    let told = shard.history(id);
    let steps: Vec<_> = told
        .lines()
        .map(|line| line.split_once(' ').expect("a time").1)
        .collect();
    assert_eq!(
        steps,
        [
            "->ready 0 - enqueued",
            "ready>running 1 worker-1 granted",
            "running>stopping 1 worker-1 timed_out",
            "stopping>scheduled 1 worker-1 timed_out: timeout: attempt 1 ran longer than its timeout of 10s",
            "scheduled>ready 1 - due",
            "ready>running 2 worker-1 granted",
            "running>stopping 2 worker-1 timed_out",
            "stopping>dead 2 worker-1 timed_out: timeout: attempt 2 ran longer than its timeout of 10s",
        ]
    );
    let late = shard.enqueue(&spec("work").with(|options| options.deadline = Some(deadline)));
    let token = shard.assigned().token;
    shard.apply(Event::Heartbeat(session(1)));
    shard.advance(Duration::from_secs(20));
    shard.stopped();
    shard.ended(1, token);
    shard.finished();
    assert!(
        shard.history(late).ends_with(" stopping>expired 1 worker-1 expired\n"),
        "{}",
        shard.history(late)
    );
    let waiting = shard.enqueue(&spec("nobody"));
    shard.cancel(waiting);
    shard.finished();
    assert_eq!(
        shard.history(waiting),
        "0 ->ready 0 - enqueued\n0 ready>cancelled 0 - cancelled\n"
    );
}

#[test]
fn a_restart_of_the_broker_is_part_of_the_story() {
    let mut shard = Shard::new();
    shard.connect(1, 2, &["work"]);
    let [kept, gone] = [0, 1].map(|_| shard.enqueue(&thrice("work")));
    let token = shard.assigned().token;
    shard.assigned();
    shard.advance(limits::CLAIM_AFTER);
    shard.second();
    shard.restart();
    shard.second();
    shard.resume(1, 1, &["work"], &[token]);
    // Its worker is back without it: a loss.
    assert_eq!(
        shard.history(gone),
        "0 ->ready 0 - enqueued\n0 ready>running 1 worker-1 granted\n2 running>ready 1 worker-1 lost\n"
    );
    shard.fail(1, token, failure("no luck", true));
    shard.drain();
    let told = shard.history(kept);
    assert!(
        told.starts_with(
            "0 ->ready 0 - enqueued\n\
             0 ready>running 1 worker-1 granted\n\
             2 running>running 1 worker-1 adopted\n\
             2 running>scheduled 1 worker-1 failed: error: no luck\n"
        ),
        "{told}"
    );
    // One whose worker never comes back.
    let token = shard.core.task(gone).expect("it lives").record.grant;
    assert_eq!(token.attempt, 2);
    shard.advance(limits::CLAIM_AFTER);
    shard.restart();
    shard.advance(limits::LEASE);
    shard.drain();
    let told = shard.history(gone);
    assert!(told.ends_with(" running>ready 2 worker-1 not_resumed\n"), "{told}");
}

#[test]
fn a_run_the_store_did_not_know_of_is_told_too() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&spec("work"));
    let token = shard.assigned().token;
    shard.restart();
    shard.second();
    shard.resume(1, 1, &["work"], &[token]);
    shard.complete(1, token);
    shard.finished();
    assert_eq!(
        shard.history(id),
        "0 ->ready 0 - enqueued\n\
         1 ready>running 1 worker-1 adopted\n\
         1 running>succeeded 1 worker-1 completed\n"
    );
}

#[test]
fn a_long_story_keeps_its_beginning_and_its_end() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&spec("work"));
    let releases = 3 * limits::MAX_NOTES as u32;
    for _ in 0..releases {
        let token = shard.assigned().token;
        shard.release(1, token);
        shard.advance(Duration::from_millis(1));
    }
    let token = shard.assigned().token;
    shard.fail(1, token, failure(&"é".repeat(limits::MAX_FAILURE_BYTES), true));
    shard.finished();
    let record = shard.durable.record(id);
    assert_eq!(
        record.notes.as_ref().map(|notes| notes.as_slice().len()),
        Some(limits::MAX_NOTES)
    );
    let told = record.history(None);
    let left_out: Vec<_> = told.iter().filter(|step| step.cause == Cause::LeftOut).collect();
    let [gap] = left_out[..] else { panic!("{left_out:?}") };
    assert_eq!(gap.left_out, releases - (limits::MAX_NOTES as u32 - 1));
    let released = told.iter().filter(|step| step.cause == Cause::Released);
    let first = u32::try_from(limits::FIRST_NOTES).expect("few");
    let kept: Vec<_> = (1..=first).chain(first + gap.left_out + 1..=releases).collect();
    assert_eq!(released.map(|step| step.attempt).collect::<Vec<_>>(), kept);
    assert!(told.is_sorted_by_key(|step| step.at));
    let end = told.last().expect("it has ended");
    assert_eq!((end.cause, end.attempt), (Cause::Failed, releases + 1));
    assert!(end.message.len() <= limits::MAX_NOTE_BYTES && end.message.len() > limits::MAX_NOTE_BYTES - 2);
}

#[test]
fn crashes_are_told_with_what_is_known_of_them() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&spec("work"));
    for _ in 0..limits::MAX_CRASHES {
        let token = shard.assigned().token;
        shard.crash(1, token, failure("signal 11", true));
    }
    shard.finished();
    let told = shard.durable.record(id).history(None);
    let crashes: Vec<_> = told.iter().filter(|step| step.cause == Cause::Crashed).collect();
    assert_eq!(crashes.len(), 3);
    assert!(crashes.iter().all(|step| step.message.contains("signal 11")));
    assert_eq!((crashes[0].to, crashes[2].to), (StateName::Ready, StateName::Dead));
}

#[test]
fn a_second_life_tells_of_the_first() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["work"]);
    let id = shard.enqueue(&spec("work"));
    let token = shard.assigned().token;
    shard.second();
    shard.fail(1, token, failure("no luck", true));
    shard.finished();
    shard.disconnect(1);
    shard.retry(id);
    let record = shard.durable.record(id).clone();
    let causes: Vec<_> = record.history(None).iter().map(|step| (step.cause, step.to)).collect();
    assert_eq!(
        causes,
        [
            (Cause::Enqueued, StateName::Ready),
            (Cause::Granted, StateName::Running),
            (Cause::Failed, StateName::Dead),
            (Cause::Retried, StateName::Ready),
        ]
    );
}
