//! A batch is what its changes are one after the other, however many there are
//! and however a store goes about them.

use asynq_core::{Change, Counters, DeadReason, Outcome, Payload, Seq, Timestamp};

use super::samples::{finish, id, task, value};
use super::{Fresh, Owner, START};
use crate::StoreError;

const LATER: Timestamp = Timestamp::MAX;

/// What a task is to be found as.
struct Expected {
    seq: Seq,
    change: Change,
    payload: Option<Payload>,
    result: Option<Payload>,
}

/// Around the numbers of rows a store may write at once.
pub fn batches_of_any_size_are_whole(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let mut expected = Vec::new();
    let mut next = 0;
    for size in [1, 7, 8, 9, 15, 63, 64, 65, 73, 200] {
        let mut inserts = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..size {
            next += 1;
            let arguments = value(next as usize * 37 % 3_000);
            let record = task(id(START, next), START, &arguments);
            let seq = owner.next_seq();
            let insert = Change::Insert {
                seq,
                record: Box::new(record.clone()),
                payload: arguments.clone(),
            };
            // Some come in with the batch in which others end, and end in it too.
            if next % 11 == 0 {
                ends.push(insert);
            } else {
                inserts.push(insert);
            }
            let result = (next % 3 != 0).then(|| value(next as usize * 91 % 2_500));
            let kept = result.clone().map(|result| (result, LATER));
            let (change, payload) = match next % 7 {
                3 => {
                    let mut record = Box::new(record);
                    record.counters = Counters {
                        releases: 1,
                        ..record.counters
                    };
                    (Change::Update { seq, record }, Some(arguments))
                }
                5 => {
                    let dead = Outcome::Dead(DeadReason::Rejected);
                    (finish(seq, record, dead, START, kept, LATER), Some(arguments))
                }
                _ => (finish(seq, record, Outcome::Succeeded, START, kept, LATER), None),
            };
            let result = if next % 7 == 3 { None } else { result };
            expected.push(Expected {
                seq,
                change,
                payload,
                result,
            });
        }
        let last = &expected[expected.len() - size..];
        owner.commit(&inserts);
        // Not in the order in which they came.
        ends.extend(last.iter().rev().map(|task| task.change.clone()));
        owner.commit(&ends);
    }
    let owner = Owner::open(shard.as_ref(), START);
    for Expected {
        seq,
        change,
        payload,
        result,
    } in &expected
    {
        let (Change::Update { record, .. } | Change::Finish { record, .. }) = change else {
            unreachable!("{change:?} is neither");
        };
        assert_eq!(owner.task(record.id), Some((*seq, record.as_ref().clone())));
        assert_eq!(&owner.result(*seq), result, "the result of {seq:?}");
        // Those of an ended task may be there or not, unless it is dead.
        if payload.is_some() {
            assert_eq!(&owner.payload(*seq), payload, "the arguments of {seq:?}");
        }
    }
}

/// Whether it never came in, or has been forgotten.
pub fn an_end_of_nothing_is_refused(fresh: Fresh<'_>) {
    for forgotten in [false, true] {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        let record = task(id(START, 1), START, &value(1));
        let end = |seq| finish(seq, record.clone(), Outcome::Succeeded, START, None, START);
        let mut seq = owner.insert(&record, &value(1));
        if forgotten {
            owner.commit(&[end(seq)]);
            assert_eq!(owner.prune_all(START).forgotten.len(), 1);
        } else {
            seq = owner.next_seq();
        }
        let done = owner.try_commit(&[end(seq)]);
        assert!(
            matches!(&done, Err(StoreError::Failed(what)) if what.contains("is not there")),
            "{done:?}"
        );
    }
}
