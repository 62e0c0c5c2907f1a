//! Every task is found by its id, and no other.

use std::time::Duration;

use asynq_core::{Change, Key, Outcome, Seq, TaskId, TaskRecord, Timestamp};

use super::samples::{finish, id, name, task, value};
use super::{Fresh, Owner, START};

/// Inserts a task per id, 50 µs after one another; every third has ended and
/// may be forgotten after an hour.
fn insert(owner: &mut Owner, ids: &[TaskId]) -> Vec<(Seq, TaskRecord)> {
    let mut tasks = Vec::new();
    let forget_at = START + Duration::from_hours(1);
    let mut at = START;
    for chunk in ids.chunks(2_000) {
        let mut changes = Vec::new();
        for (n, &id) in chunk.iter().enumerate() {
            at = at + Duration::from_micros(50);
            let mut record = task(id, at, &value(1));
            let seq = owner.next_seq();
            changes.push(Change::Insert {
                seq,
                record: Box::new(record.clone()),
                payload: value(1),
            });
            if n % 3 == 0 {
                let end = finish(seq, record.clone(), Outcome::Succeeded, at, None, forget_at);
                if let Change::Finish { record: ended, .. } = &end {
                    record = (**ended).clone();
                }
                changes.push(end);
            }
            tasks.push((seq, record));
        }
        owner.commit(&changes);
    }
    tasks
}

fn assert_found(owner: &Owner, tasks: &[(Seq, TaskRecord)]) {
    let mut reader = owner.reader();
    for (seq, record) in tasks {
        let found = reader.task(record.id).expect("a task can be looked up");
        assert_eq!(found.as_ref(), Some(&(*seq, record.clone())));
    }
}

/// 12,000 of them, before and after a restart, and none that is not there.
pub fn every_id_is_found(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let time = |n: u64| START + Duration::from_micros(50 * n);
    let ids: Vec<_> = (0..12_000).map(|n| id(time(n), n)).collect();
    let tasks = insert(&mut owner, &ids);
    assert_found(&owner, &tasks);
    let owner = Owner::open(shard.as_ref(), START);
    assert_found(&owner, &tasks);
    let mut reader = owner.reader();
    for n in 0..12_000 {
        assert_eq!(reader.task(id(time(n), n + 1_000_000)).expect("a look-up"), None);
    }
    for unknown in [TaskId([0; 16]), TaskId([0xff; 16])] {
        assert_eq!(reader.task(unknown).expect("a look-up"), None);
    }
}

/// Shuffled a little, by minutes, by years; no ids of time at all.
pub fn ids_out_of_order_are_found(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let shuffled = |n: u64, of: u64| n.wrapping_mul(0x2545_f491_4f6c_dd1d) % of;
    let ids: Vec<_> = (0..5_000)
        .map(|n| match n % 10 {
            0..=5 => id(START + Duration::from_millis(shuffled(n, 2_000)), n),
            6 => id(START - Duration::from_secs(shuffled(n, 59)), n),
            7 => id(START + Duration::from_secs(61 + shuffled(n, 240)), n),
            8 => id(START - Duration::from_secs(shuffled(n, 1_000_000_000)), n),
            _ => TaskId(
                (u128::from(n) + 1)
                    .wrapping_mul(0x0123_4567_89ab_cdef_1122_3344_5566_7789)
                    .to_be_bytes(),
            ),
        })
        .collect();
    let tasks = insert(&mut owner, &ids);
    assert_found(&owner, &tasks);
    assert_found(&Owner::open(shard.as_ref(), START), &tasks);
    // The clock of a broker that starts later.
    assert_found(&Owner::open(shard.as_ref(), START + Duration::from_hours(9)), &tasks);
}

/// An id goes with its task, wherever the look-up keeps it.
pub fn forgotten_ids_are_not_found(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let ids: Vec<_> = (0..4_000)
        .map(|n| {
            if n % 5 == 0 {
                id(Timestamp::from_millis(n), n)
            } else {
                id(START, n)
            }
        })
        .collect();
    let tasks = insert(&mut owner, &ids);
    let (gone, kept): (Vec<_>, Vec<_>) = tasks
        .into_iter()
        .partition(|(_, record)| record.state.name().is_terminal());
    let now = START + Duration::from_hours(2);
    assert_eq!(owner.prune_all(now).forgotten.values().sum::<u64>(), gone.len() as u64);
    for _ in 0..2 {
        let mut reader = owner.reader();
        for (_, record) in &gone {
            assert_eq!(reader.task(record.id).expect("a look-up"), None);
        }
        assert_found(&owner, &kept);
        owner = Owner::open(shard.as_ref(), now);
    }
}

/// The last task that came with a key has it, in its queue; it goes with that task.
pub fn a_key_finds_its_task(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let key = |n: u64| Key::new(&format!("key {n} ☃")).expect("a key");
    let mut tasks = Vec::new();
    for n in 0..300 {
        let mut record = task(id(START, n), START, &value(1));
        record.queue = name(["a", "b"][n as usize % 2]);
        // Each third has none.
        record.options.key = (n % 3 != 0).then(|| key(n));
        let seq = owner.insert(&record, &value(1));
        tasks.push((seq, record));
    }
    // In one batch: comes in, ends, and its key goes to the next.
    let (seq, mut before) = (owner.next_seq(), task(id(START, 1_000), START, &value(1)));
    before.queue = name("a");
    before.options.key = Some(key(1_000));
    let (next_seq, mut next) = (owner.next_seq(), before.clone());
    next.id = id(START, 1_001);
    let insert = |seq, record: &TaskRecord| Change::Insert {
        seq,
        record: Box::new(record.clone()),
        payload: value(1),
    };
    let mut replaced = before.clone();
    replaced.options.key = None;
    let end = finish(seq, replaced, Outcome::Cancelled, START, None, START);
    owner.commit(&[insert(seq, &before), end, insert(next_seq, &next)]);
    // And in another.
    let (last_seq, mut last) = (owner.next_seq(), next.clone());
    last.id = id(START, 1_002);
    let mut replaced = next.clone();
    replaced.options.key = None;
    let end = finish(next_seq, replaced, Outcome::Cancelled, START, None, START);
    owner.commit(&[end, insert(last_seq, &last)]);
    let ended = tasks.split_off(200);
    let ends = ended.iter().map(|(seq, record)| {
        let outcome = Outcome::Succeeded;
        finish(
            *seq,
            record.clone(),
            outcome,
            START,
            None,
            START + Duration::from_secs(60),
        )
    });
    owner.commit(&ends.collect::<Vec<_>>());
    for (restarted, pruned) in [(false, false), (true, false), (false, true), (true, true)] {
        if pruned {
            owner.prune_all(START + Duration::from_secs(60));
        }
        if restarted {
            owner = Owner::open(shard.as_ref(), START);
        }
        let mut reader = owner.reader();
        let mut found = |queue: &str, n| {
            let found = reader.keyed(&name(queue), &key(n)).expect("a look-up");
            found.map(|(seq, record)| (seq, record.id))
        };
        for n in 0..300 {
            let (queue, other) = [("a", "b"), ("b", "a")][n as usize % 2];
            let (seq, record) = tasks.get(n as usize).unwrap_or_else(|| &ended[n as usize - 200]);
            let is_there = n % 3 != 0 && (n < 200 || !pruned);
            assert_eq!(found(queue, n), is_there.then_some((*seq, record.id)), "{n}");
            assert_eq!(found(other, n), None);
            assert_eq!(found("no.such.queue", n), None);
        }
        assert_eq!(found("a", 1_000), Some((last_seq, last.id)));
    }
}
