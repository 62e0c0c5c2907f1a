//! Owners, batches, restarts.

use std::time::Duration;

use asynq_core::{
    Change, DeadReason, Epoch, OnLoss, Outcome, QueueSettings, Run, Seq, SessionId, SessionRecord, State, StateName,
    Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::samples::{any_session, finish, id, name, task, value};
use super::{Fresh, Owner, START, property};
use crate::limits::NOTE_INTERVAL;
use crate::{Belief, StoreError};

const LATER: Timestamp = Timestamp::MAX;

/// Nothing in it, and numbers begin at 1.
pub fn a_fresh_shard_is_empty(fresh: Fresh<'_>) {
    let shard = fresh();
    let owner = Owner::open(shard.as_ref(), START);
    assert!(owner.live.is_empty() && owner.opened.sessions.is_empty() && owner.opened.finished.is_empty());
    assert_eq!((owner.opened.last_batch, owner.opened.next_seq), (0, Seq(1)));
    assert_eq!(owner.epoch(), Epoch(START.as_micros()));
    assert_eq!(owner.opened.latest, Timestamp::ZERO);
    assert_eq!(owner.task(id(START, 1)), None);
}

/// From the newer open on, the older owner changes nothing.
pub fn a_newer_owner_deposes(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut old = Owner::open(shard.as_ref(), START);
    let record = task(id(START, 1), START, &value(1));
    let seq = old.insert(&record, &value(1));
    let soon = START + Duration::from_secs(1);
    let mut new = Owner::open(shard.as_ref(), soon);

    let ends = [finish(seq, record.clone(), Outcome::Cancelled, START, None, START)];
    let refused = [old.try_commit(&ends).err(), old.try_prune(soon, 10).err()];
    for error in refused {
        match error {
            Some(StoreError::Deposed { stored, held }) => assert_eq!((stored, held), (new.epoch(), old.epoch())),
            other => panic!("the older owner is deposed, not {other:?}"),
        }
    }
    assert_eq!(new.task(record.id), Some((seq, record.clone())));
    new.commit(&ends);
    assert_eq!(new.prune_all(soon).forgotten.values().sum::<u64>(), 1);
}

/// Also when it stands still or steps back.
pub fn epochs_rise_whatever_the_clock_says(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut last = Epoch(0);
    for back in [0, 0, 3_600, 7_200] {
        let epoch = Owner::open(shard.as_ref(), START - Duration::from_secs(back)).epoch();
        assert!(epoch > last, "{epoch:?} after {last:?}");
        last = epoch;
    }
    let later = START + Duration::from_secs(5);
    assert_eq!(Owner::open(shard.as_ref(), later).epoch(), Epoch(later.as_micros()));
}

/// A clock set back is noticed even where nothing was written since: what is
/// written by it would be past its time once the clock is right again.
pub fn a_clock_set_back_is_noticed(fresh: Fresh<'_>) {
    let shard = fresh();
    let first = Owner::open(shard.as_ref(), START);
    let second = Owner::open(shard.as_ref(), START - Duration::from_hours(24));
    assert_eq!(second.opened.latest.as_micros(), first.epoch().0);
}

/// Neither the time of the open, nor what is written by that clock, nor a sweep: the
/// next open finds the time that was believed last.
pub fn times_in_doubt_do_not_count(fresh: Fresh<'_>) {
    let shard = fresh();
    drop(Owner::open(shard.as_ref(), START));
    let ahead = START + Duration::from_hours(24 * 3_650);
    for _ in 0..2 {
        let mut owner = Owner::open_by(shard.as_ref(), ahead, Belief::Doubted);
        assert_eq!(owner.opened.latest, START);
        let record = task(id(ahead, owner.opened.next_seq.0), ahead, &value(3));
        owner.insert(&record, &value(3));
        owner.prune_all(ahead);
    }
    assert_eq!(Owner::open(shard.as_ref(), START).opened.latest, START);
}

/// Whatever was written before, and however far it is behind that.
pub fn a_time_that_is_vouched_for_counts_from_then_on(fresh: Fresh<'_>) {
    let shard = fresh();
    let ahead = START + Duration::from_hours(24 * 3_650);
    let mut owner = Owner::open(shard.as_ref(), ahead);
    owner.insert(&task(id(ahead, 1), ahead, &value(3)), &value(3));
    let mut owner = Owner::open_by(shard.as_ref(), START, Belief::Trusted);
    assert_eq!(owner.opened.latest, ahead);
    assert!(owner.epoch().0 > ahead.as_micros(), "an epoch is more than a time");
    let soon = START + Duration::from_secs(5);
    owner.insert(&task(id(soon, 2), soon, &value(3)), &value(3));
    assert_eq!(Owner::open(shard.as_ref(), soon).opened.latest, soon);
}

/// With nothing written for a week it is no shard that was closed for a week.
pub fn an_idle_shard_notes_the_time(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let soon = START + NOTE_INTERVAL;
    owner.prune_all(soon);
    assert_eq!(Owner::open(shard.as_ref(), START).opened.latest, START, "not each time");
    let mut owner = Owner::open(shard.as_ref(), START);
    let later = START + Duration::from_hours(24 * 7);
    owner.prune_all(later);
    assert_eq!(Owner::open(shard.as_ref(), later).opened.latest, later);
}

/// A batch that cannot be applied leaves nothing.
pub fn a_batch_is_all_or_nothing(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let first = task(id(START, 1), START, &value(1));
    let seq = owner.insert(&first, &value(1));
    let second = task(id(START, 2), START, &value(9_000));
    let session = SessionRecord {
        id: SessionId([1; 16]),
        worker: name("w"),
        opened_at: START,
    };
    let batch = [
        Change::Insert {
            seq: Seq(seq.0 + 1),
            record: Box::new(second.clone()),
            payload: value(9_000),
        },
        finish(seq, first.clone(), Outcome::Succeeded, START, None, LATER),
        Change::SessionOpened(session),
        Change::Update {
            seq: Seq(seq.0 + 100),
            record: Box::new(second.clone()),
        },
    ];
    assert!(matches!(owner.try_commit(&batch), Err(StoreError::Failed(_))));

    let owner = Owner::open(shard.as_ref(), START);
    assert_eq!(owner.opened.last_batch, 1);
    assert_eq!(owner.opened.next_seq, Seq(seq.0 + 1));
    assert!(owner.opened.sessions.is_empty() && owner.opened.finished.is_empty());
    assert_eq!(owner.live, [(seq, first)]);
    assert_eq!(owner.task(second.id), None);
    assert_eq!(owner.payload(Seq(seq.0 + 1)), None);
}

/// A number left out or used again is refused; the last one is found again.
pub fn batches_follow_one_another(fresh: Fresh<'_>) {
    for wrong in [1, 3] {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        owner.commit(&[]);
        let epoch = owner.epoch();
        let error = owner.store().commit(epoch, wrong, &[]).err();
        assert!(
            matches!(error, Some(StoreError::Failed(_))),
            "batch {wrong} after 1: {error:?}"
        );
        let mut owner = Owner::open(shard.as_ref(), START);
        assert_eq!(owner.opened.last_batch, 1);
        owner.commit(&[]);
        assert_eq!(Owner::open(shard.as_ref(), START).opened.last_batch, 2);
    }
}

/// Live tasks in order, counts of the others, the latest time, all numbers.
pub fn an_open_finds_all(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let outcomes = [
        None,
        Some(Outcome::Succeeded),
        Some(Outcome::Dead(DeadReason::Timeout)),
        None,
        Some(Outcome::Cancelled),
        Some(Outcome::Expired),
    ];
    let mut live = Vec::new();
    for n in 0..60_u64 {
        let mut record = task(id(START, n), START + Duration::from_secs(n), &value(3));
        record.queue = name(if n % 2 == 0 { "even" } else { "odd" });
        let seq = owner.insert(&record, &value(3));
        match &outcomes[n as usize % 6] {
            None => live.push((seq, record)),
            Some(outcome) => owner.commit(&[finish(seq, record, outcome.clone(), START, None, LATER)]),
        }
    }
    // A plan is no time that has been; a start is.
    let started_at = START + Duration::from_secs(500);
    live[0].1.state = State::Running(Run {
        session: SessionId([3; 16]),
        started_at,
        extended: None,
        on_loss: OnLoss::Fail,
    });
    live[1].1.state = State::Scheduled {
        at: START + Duration::from_secs(9_000),
    };
    for (seq, record) in &live[..2] {
        owner.commit(&[Change::Update {
            seq: *seq,
            record: Box::new(record.clone()),
        }]);
    }

    let opened = Owner::open(shard.as_ref(), START);
    assert_eq!(opened.live, live);
    let counts: Vec<_> = opened
        .opened
        .finished
        .iter()
        .map(|((q, s), n)| (q.as_str(), *s, *n))
        .collect();
    use StateName::{Cancelled, Dead, Expired, Succeeded};
    assert_eq!(
        counts,
        [
            ("even", Dead, 10),
            ("even", Cancelled, 10),
            ("odd", Succeeded, 10),
            ("odd", Expired, 10)
        ]
    );
    assert_eq!(opened.opened.next_seq, Seq(61));
    assert_eq!(opened.opened.latest, started_at);
}

/// Not even after all memory of the tasks that had them is gone.
pub fn places_are_never_given_twice(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    for n in 0..5 {
        let record = task(id(START, n), START, &value(3));
        let seq = owner.insert(&record, &value(3));
        owner.commit(&[finish(seq, record, Outcome::Succeeded, START, None, START)]);
    }
    assert_eq!(
        owner
            .prune_all(START + Duration::from_secs(1))
            .forgotten
            .values()
            .sum::<u64>(),
        5
    );
    let opened = Owner::open(shard.as_ref(), START).opened;
    assert_eq!(opened.next_seq, Seq(6));
    assert!(opened.finished.is_empty());
    assert_eq!(opened.latest, START);
}

/// Opened, opened again with other words, closed, closed again.
pub fn sessions_are_kept_until_closed(fresh: Fresh<'_>) {
    let result = property(24).run(&vec((any_session(), any::<bool>(), any::<bool>()), 0..30), |sessions| {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        let mut expected = std::collections::BTreeMap::new();
        for (mut session, again, closed) in sessions {
            owner.commit(&[Change::SessionOpened(session.clone())]);
            if again {
                session.worker = name("again");
                owner.commit(&[Change::SessionOpened(session.clone())]);
            }
            expected.insert(session.id, session.clone());
            if closed {
                owner.commit(&[Change::SessionClosed(session.id), Change::SessionClosed(session.id)]);
                expected.remove(&session.id);
            }
        }
        let found = Owner::open(shard.as_ref(), START).opened.sessions;
        let found: std::collections::BTreeMap<_, _> = found.into_iter().map(|session| (session.id, session)).collect();
        prop_assert_eq!(found, expected);
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

/// The last word counts, over restarts and with no task there.
pub fn queues_stay_as_they_were_told(fresh: Fresh<'_>) {
    let result = property(24).run(&vec((0..4_u8, any::<bool>()), 0..20), |told| {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        let mut expected = std::collections::BTreeMap::new();
        for (n, fast_requeue) in told {
            let (queue, settings) = (name(&format!("queue-{n}")), QueueSettings { fast_requeue });
            expected.insert(queue.clone(), settings);
            expected.retain(|_, settings| *settings != QueueSettings::default());
            owner.commit(&[Change::QueueSet { queue, settings }]);
            if fast_requeue {
                owner = Owner::open(shard.as_ref(), START);
            }
        }
        prop_assert_eq!(Owner::open(shard.as_ref(), START).opened.queues, expected);
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

/// A reader made before a commit sees it once it returned, on any thread.
pub fn readers_see_what_was_committed(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let mut reader = owner.reader();
    for n in 0..20 {
        let record = task(id(START, n), START, &value(3));
        assert_eq!(reader.task(record.id).expect("read"), None);
        let seq = owner.insert(&record, &value(3));
        let thread = std::thread::spawn(move || {
            let seen = (
                reader.task(record.id).expect("read"),
                reader.payloads(&[seq]).expect("read"),
            );
            (reader, record, seen)
        });
        let (returned, record, seen) = thread.join().expect("the reading thread ends");
        reader = returned;
        assert_eq!(seen, (Some((seq, record)), vec![Some(value(3))]));
    }
}
