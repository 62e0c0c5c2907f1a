//! What is stored is what comes back.

use std::time::Duration;

use asynq_core::{Change, DeadReason, Finish, Outcome, Payload, State, StateName, TaskRecord, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::samples::{any_end, any_live_state, any_task, finish, id, task, value};
use super::{Fresh, Owner, START, property};

const LATER: Timestamp = Timestamp::MAX;

/// Every field of any record, through insert, update, finish, a dead task's
/// second life and a restart, however that is cut into batches.
pub fn come_back_equal(fresh: Fresh<'_>) {
    let life = (
        any_task(),
        proptest::option::of(any_live_state()),
        proptest::option::of(any_end()),
        proptest::option::of(any_live_state()),
    );
    let cases = (vec(life, 1..20), any::<bool>(), prop_oneof![1..4_usize, 4..80_usize]);
    let result = property(64).run(&cases, |(lives, one_by_one, batch)| {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        let mut expected = Vec::new();
        // The first changes of all tasks, the second ones, and so on.
        let mut rounds: [Vec<Change>; 4] = Default::default();
        for (n, ((mut record, payload), state, end, second_life)) in lives.into_iter().enumerate() {
            // Ids are given once; any other part may repeat.
            record.id.0[15] = n as u8;
            record.id.0[14] = 0;
            let seq = owner.next_seq();
            let mut changes = vec![Change::Insert {
                seq,
                record: Box::new(record.clone()),
                payload: payload.clone(),
            }];
            let update = |record: &TaskRecord| Change::Update {
                seq,
                record: Box::new(record.clone()),
            };
            if let Some(state) = state {
                record.state = state;
                changes.push(update(&record));
            }
            let mut result = None;
            if let Some((end, value)) = end {
                record.state = State::Finished(end);
                result = value;
                changes.push(Change::Finish {
                    seq,
                    record: Box::new(record.clone()),
                    result: result.clone(),
                    forget_at: LATER,
                });
            }
            if let Some(state) = second_life
                && record.state.name() == StateName::Dead
            {
                record.state = state;
                result = None;
                changes.push(update(&record));
            }
            for (n, change) in changes.into_iter().enumerate() {
                rounds[if one_by_one { 0 } else { n }].push(change);
            }
            expected.push((seq, record, payload, result));
        }
        for changes in rounds.concat().chunks(batch) {
            owner.commit(changes);
        }
        for restarted in [false, true] {
            if restarted {
                owner = Owner::open(shard.as_ref(), START);
            }
            for (seq, record, payload, result) in &expected {
                prop_assert_eq!(owner.task(record.id), Some((*seq, record.clone())));
                prop_assert_eq!(&owner.result(*seq), result);
                if !record.state.name().is_terminal() || record.state.name() == StateName::Dead {
                    prop_assert_eq!(owner.payload(*seq), Some(payload.clone()));
                }
            }
        }
        let live: Vec<_> = expected
            .iter()
            .filter(|task| !task.1.state.name().is_terminal())
            .collect();
        prop_assert_eq!(owner.live.len(), live.len());
        for ((seq, record), expected) in owner.live.iter().zip(live) {
            prop_assert_eq!((seq, record), (&expected.0, &expected.1));
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

/// Of many changes to one task the last one is remembered.
pub fn last_change_counts(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let mut record = task(id(START, 1), START, &value(10));
    let seq = owner.insert(&record, &value(10));
    for attempt in 1..=50 {
        record.grant.attempt = attempt;
        // Grows and shrinks.
        record.failure = Some(Box::default());
        record.failure.as_mut().expect("set").message = "x".repeat(attempt as usize % 7 * 1_000);
        owner.commit(&[Change::Update {
            seq,
            record: Box::new(record.clone()),
        }]);
    }
    assert_eq!(owner.task(record.id), Some((seq, record)));
    assert_eq!(owner.payload(seq), Some(value(10)));
}

/// An empty value is a value.
pub fn empty_is_not_absent(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let empty = Payload {
        content_type: "".into(),
        data: bytes::Bytes::new(),
    };
    let mut seqs = Vec::new();
    for n in 0..2 {
        let record = task(id(START, n), START, &empty);
        let seq = owner.insert(&record, &empty);
        assert_eq!(owner.payload(seq), Some(empty.clone()));
        let result = (n == 0).then(|| (empty.clone(), LATER));
        owner.commit(&[finish(seq, record, Outcome::Succeeded, START, result, LATER)]);
        seqs.push(seq);
    }
    assert_eq!(owner.result(seqs[0]), Some(empty));
    assert_eq!(owner.result(seqs[1]), None);
    let unknown = asynq_core::Seq(1_000_000);
    assert_eq!(owner.result(unknown), None);
    assert_eq!(owner.payload(unknown), None);
}

/// Arguments and results around the size at which stores treat them apart, and
/// of the largest size there is.
pub fn large_values_come_back(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let inline = crate::limits::INLINE_BYTES;
    let sizes = [inline - 1, inline, inline + 1, 4_095, 4_096, 70_000, 4 * 1024 * 1024];
    let mut seqs = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        let record = task(id(START, n as u64), START, &value(size));
        seqs.push((owner.insert(&record, &value(size)), record));
    }
    let mut owner = Owner::open(shard.as_ref(), START);
    let mut order: Vec<_> = seqs.iter().map(|(seq, _)| *seq).collect();
    order.reverse();
    order.push(asynq_core::Seq(9_999));
    let mut expected: Vec<_> = sizes.into_iter().rev().map(|size| Some(value(size))).collect();
    expected.push(None);
    assert!(
        owner.reader().payloads(&order).expect("arguments can be read") == expected,
        "in the order asked for"
    );

    for ((seq, mut record), size) in seqs.iter().cloned().zip(sizes) {
        record.grant.attempt = 1;
        let update = Change::Update {
            seq,
            record: Box::new(record.clone()),
        };
        owner.commit(&[update]);
        assert!(
            owner.payload(seq) == Some(value(size)),
            "arguments of {size} bytes outlive an update"
        );
        let result = Some((value(size), LATER));
        owner.commit(&[finish(seq, record, Outcome::Succeeded, START, result, LATER)]);
    }
    let owner = Owner::open(shard.as_ref(), START);
    for ((seq, _), size) in seqs.iter().zip(sizes) {
        assert!(owner.result(*seq) == Some(value(size)), "a result of {size} bytes");
        assert!(
            owner.payload(*seq).is_none(),
            "arguments of {size} bytes are dropped with the end"
        );
    }
}

/// An operator can run a dead task again.
pub fn dead_tasks_keep_their_arguments(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    for (n, size) in [100, 100_000].into_iter().enumerate() {
        let record = task(id(START, n as u64), START, &value(size));
        let seq = owner.insert(&record, &value(size));
        let dead = Outcome::Dead(DeadReason::Error);
        owner.commit(&[finish(seq, record.clone(), dead, START, None, LATER)]);
        owner = Owner::open(shard.as_ref(), START);
        owner.commit(&[Change::Update {
            seq,
            record: Box::new(record.clone()),
        }]);
        assert_eq!(owner.payload(seq), Some(value(size)));
        assert_eq!(owner.task(record.id), Some((seq, record)));
    }
    assert_eq!(Owner::open(shard.as_ref(), START).live.len(), 2);
}

/// Insert, update and finish may come together.
pub fn a_task_may_pass_in_one_batch(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let record = task(id(START, 1), START, &value(5_000));
    let seq = owner.next_seq();
    let result = Some((value(3), LATER));
    owner.commit(&[
        Change::Insert {
            seq,
            record: Box::new(record.clone()),
            payload: value(5_000),
        },
        Change::Update {
            seq,
            record: Box::new(record.clone()),
        },
        finish(seq, record.clone(), Outcome::Succeeded, START, result, LATER),
    ]);
    let owner = Owner::open(shard.as_ref(), START);
    assert!(owner.live.is_empty());
    assert_eq!(owner.result(seq), Some(value(3)));
    let (_, found) = owner.task(record.id).expect("it is remembered");
    assert!(matches!(
        found.state,
        State::Finished(Finish {
            outcome: Outcome::Succeeded,
            ..
        })
    ));
}

/// A dead task that runs again is not swept away at its old time.
pub fn a_second_life_forgets_the_end(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let record = task(id(START, 1), START, &value(10));
    let seq = owner.insert(&record, &value(10));
    let soon = START + Duration::from_secs(1);
    owner.commit(&[finish(
        seq,
        record.clone(),
        Outcome::Dead(DeadReason::Error),
        START,
        None,
        soon,
    )]);
    owner.commit(&[Change::Update {
        seq,
        record: Box::new(record.clone()),
    }]);
    assert!(owner.prune_all(soon + Duration::from_secs(1)).forgotten.is_empty());
    assert_eq!(owner.task(record.id), Some((seq, record)));
}
