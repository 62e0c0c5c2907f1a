//! What operators ask of tasks that have ended: a second life, or none at all.

use std::time::Duration;

use asynq_core::{
    Counters, Credit, DeadReason, Outcome, Place, Refusal, Reply, StateName, StateSet, TaskId, Verdict, limits,
};

use crate::shard::{Shard, failure, spec};
use crate::streams::reader;

fn revived(task: TaskId) -> Reply {
    Reply::Retried {
        task,
        revived: true,
        state: StateName::Ready,
    }
}

fn counts(shard: &Shard) -> Vec<(StateName, u64)> {
    let queues = shard.core.queues(shard.now);
    let counts = queues.iter().flat_map(|queue| queue.counts.clone());
    counts.filter(|&(_, count)| count > 0).collect()
}

/// A worker that fails what it gets.
fn kill(shard: &mut Shard) -> TaskId {
    let token = shard.assigned().token;
    assert_eq!(
        shard.fail(1, token, failure("no", false)),
        Verdict::Accepted(StateName::Dead)
    );
    assert_eq!(shard.finished().task, token.task);
    token.task
}

#[test]
fn a_dead_task_lives_again_where_it_stood() {
    let mut shard = Shard::new();
    let (first, second) = (shard.enqueue(&spec("a")), shard.enqueue(&spec("a")));
    shard.connect(1, 1, &["a"]);
    let before = shard.assigned().token;
    shard.fail(1, before, failure("no", true));
    shard.finished();
    let other = shard.assigned().token;
    assert_eq!((before.task, other.task), (first, second));
    assert_eq!(counts(&shard), [(StateName::Running, 1), (StateName::Dead, 1)]);
    let third = shard.enqueue(&spec("a"));

    assert_eq!(shard.retry(first), revived(first));
    assert_eq!(counts(&shard), [(StateName::Ready, 2), (StateName::Running, 1)]);
    let record = shard.durable.record(first).clone();
    assert_eq!(
        (record.counters, record.state.name()),
        (Counters::default(), StateName::Ready)
    );
    assert_eq!(record.failure.unwrap().message, "no", "it is still told why it died");
    // Once more does no harm.
    let again = Reply::Retried {
        task: first,
        revived: false,
        state: StateName::Ready,
    };
    assert_eq!(shard.retry(first), again);
    for restarted in [false, true] {
        if restarted {
            shard.restart();
            shard.resume(1, 1, &["a"], &[other]);
            assert_eq!(counts(&shard), [(StateName::Ready, 2), (StateName::Running, 1)]);
        }
        // The run of before is over, also while its grant is the last.
        assert_eq!(shard.complete(1, before), Verdict::Stale(Some(StateName::Ready)));
    }
    shard.complete(1, other);
    shard.finished();
    let run = shard.assigned().token;
    assert_eq!(run.task, first, "it keeps its place before {third}");
    assert!(
        run > before && run.grant.attempt == before.grant.attempt + 1,
        "grants rise"
    );
    assert_eq!(shard.complete(1, before), Verdict::Stale(Some(StateName::Running)));
    assert_eq!(shard.complete(1, run), Verdict::Accepted(StateName::Succeeded));
    assert_eq!(shard.finished().outcome, Outcome::Succeeded);
    assert_eq!(shard.assigned().token.task, third);
    assert_eq!(counts(&shard), [(StateName::Running, 1), (StateName::Succeeded, 2)]);
}

#[test]
fn its_whole_budget_is_there_again() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["a"]);
    let task = shard.enqueue(&spec("a").with(|o| o.max_attempts = Some(2)));
    for life in 1..=3 {
        for attempt in 1..=2 {
            let run = shard.assigned().token;
            assert_eq!(run.grant.attempt, 2 * (life - 1) + attempt);
            shard.fail(1, run, failure("no", true));
            if attempt == 1 {
                shard.advance(limits::BACKOFF_BASE);
            }
        }
        assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Error));
        assert_eq!(shard.durable.record(task).counters.failures, 2);
        assert_eq!(shard.retry(task), revived(task));
    }
    shard.drain();
}

#[test]
fn what_is_not_dead_or_of_no_use_alive_is_refused() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["a"]);
    let succeeded = shard.enqueue(&spec("a"));
    let run = shard.assigned().token;
    shard.complete(1, run);
    shard.finished();
    let not_dead = Refusal::NotDead {
        task: succeeded,
        state: StateName::Succeeded,
    };
    assert_eq!(shard.retry(succeeded), Reply::Refused(not_dead));

    let soon = shard.now + Duration::from_secs(1);
    shard.enqueue(&spec("a").with(|o| o.deadline = Some(soon)));
    let late = kill(&mut shard);
    // It has started once, and in time.
    shard.enqueue(&spec("a").with(|o| o.start_before = Some(soon)));
    let started = kill(&mut shard);
    let reader = reader(1, Place::START, Credit::default());
    let stream = shard.new_id();
    shard.try_iterate(stream, &spec("a"), Some(reader));
    shard.reading();
    kill(&mut shard);
    assert_eq!(shard.retry(late), revived(late));
    assert_eq!(kill(&mut shard), late);
    shard.advance(Duration::from_secs(1));
    assert_eq!(shard.retry(started), revived(started));
    assert_eq!(kill(&mut shard), started);
    for (task, part) in [(late, "deadline"), (stream, "reader is gone")] {
        match shard.retry(task) {
            Reply::Refused(refusal @ Refusal::NotRetryable { .. }) => {
                assert!(refusal.to_string().contains(part), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(shard.durable.state(task), StateName::Dead);
    }
    shard.quiet();
}

#[test]
fn a_purged_task_is_gone_and_not_counted() {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["a"]);
    shard.enqueue(&spec("a"));
    let dead = kill(&mut shard);
    let other = |state| Reply::Refused(Refusal::OtherState { task: dead, state });
    let only = |state| StateSet::default().with(state);
    assert_eq!(shard.purge(dead, only(StateName::Cancelled)), other(StateName::Dead));
    assert_eq!(counts(&shard), [(StateName::Dead, 1)]);
    let purged = Reply::Purged {
        task: dead,
        state: StateName::Dead,
    };
    assert_eq!(shard.purge(dead, only(StateName::Dead)), purged);
    assert!(shard.core.queues(shard.now).is_empty());
    // All that is left says that there was such a task: for as long as its id may
    // be sent again.
    let left = shard.durable.record(dead).clone();
    assert!(left.is_purged() && left.failure.is_none() && left.payload_bytes == 0);
    assert_eq!(left.forget_at(), Some(shard.now + limits::MIN_DEDUP_TTL));
    for again in [shard.purge(dead, StateSet::ENDED), shard.retry(dead)] {
        assert_eq!(again, Reply::Refused(Refusal::NotFound(dead)));
    }
    shard.restart();
    assert!(shard.core.queues(shard.now).is_empty());
    shard.connect(1, 1, &["a"]);

    shard.enqueue(&spec("a"));
    let dead = kill(&mut shard);
    shard.retry(dead);
    let run = shard.assigned().token;
    let running = Reply::Refused(Refusal::OtherState {
        task: dead,
        state: StateName::Running,
    });
    assert_eq!(shard.purge(dead, StateSet::ENDED), running);
    shard.complete(1, run);
    shard.drain();
}
