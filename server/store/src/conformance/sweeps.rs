//! What is past its time goes, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use asynq_core::{Change, DeadReason, Key, Outcome, Seq, State, StateName, TaskFilter, TaskId, TaskRecord, Timestamp};

use super::samples::{finish, id, name, task, value};
use super::{Fresh, Owner, START};
use crate::Query;

fn after(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// Inserts and finishes `count` tasks in one batch: task n's result stays
/// `n + 10` seconds, its memory `n + 20`.
fn finished(owner: &mut Owner, count: u64, result_bytes: usize) -> Vec<(Seq, TaskId)> {
    let mut changes = Vec::new();
    let mut tasks = Vec::new();
    for n in 0..count {
        let record = task(id(START, n), START, &value(10));
        let seq = owner.next_seq();
        tasks.push((seq, record.id));
        changes.push(Change::Insert {
            seq,
            record: Box::new(record.clone()),
            payload: value(10),
        });
        let result = Some((value(result_bytes), after(n + 10)));
        changes.push(finish(seq, record, Outcome::Succeeded, START, result, after(n + 20)));
    }
    owner.commit(&changes);
    tasks
}

/// A result goes when its record says, the rest when the change says.
pub fn results_go_first_then_the_memory(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let tasks = finished(&mut owner, 5, 30);
    let key = (name("default"), StateName::Succeeded);

    for seconds in 0..30_u64 {
        let pruned = owner.prune_all(after(seconds));
        assert_eq!(pruned.results, u64::from((10..15).contains(&seconds)), "at {seconds} s");
        let forgotten: BTreeMap<_, _> = (20..25)
            .contains(&seconds)
            .then(|| (key.clone(), 1))
            .into_iter()
            .collect();
        assert_eq!(pruned.forgotten, forgotten, "at {seconds} s");
        if seconds == 17 {
            // Drops are durable, and what is left is found by the next owner too.
            owner = Owner::open(shard.as_ref(), after(seconds));
        }
        for (n, (seq, id)) in (0..).zip(&tasks) {
            assert_eq!(
                owner.result(*seq).is_some(),
                seconds < n + 10,
                "result {n} at {seconds} s"
            );
            assert_eq!(owner.task(*id).is_some(), seconds < n + 20, "task {n} at {seconds} s");
        }
    }
}

/// Whatever the time, a task that has not ended stays, and so does a young one.
pub fn live_tasks_stay(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let mut kept = Vec::new();
    for n in 0..100 {
        let record = task(id(START, n), START, &value(10));
        let seq = owner.insert(&record, &value(10));
        match n % 3 {
            0 => kept.push((seq, record)),
            1 => owner.commit(&[finish(seq, record, Outcome::Expired, START, None, after(1))]),
            _ => {
                let dead = Outcome::Dead(DeadReason::Poison);
                owner.commit(&[finish(seq, record, dead, START, None, Timestamp::MAX)]);
            }
        }
    }
    let pruned = owner.prune_all(after(1_000_000_000));
    assert_eq!(
        pruned.forgotten,
        BTreeMap::from([((name("default"), StateName::Expired), 33)])
    );
    assert_eq!(pruned.results, 0);
    let owner = Owner::open(shard.as_ref(), START);
    assert_eq!(owner.live, kept);
    assert_eq!(
        owner.opened.finished,
        BTreeMap::from([((name("default"), StateName::Dead), 33)])
    );
}

/// No call drops more than it may look at, and none returns without getting on.
pub fn a_sweep_keeps_its_budget(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    finished(&mut owner, 2_500, 3);
    for (now, results) in [(after(10_000), false), (after(10_000), false)] {
        let (mut calls, mut forgotten) = (0, 0);
        loop {
            let pruned = owner.try_prune(now, 100).expect("the sweep goes on");
            let count: u64 = pruned.forgotten.values().sum();
            assert!(count + pruned.results <= 100, "{pruned:?}");
            assert_eq!(pruned.results > 0, results);
            forgotten += count;
            calls += 1;
            if pruned.complete {
                break;
            }
            assert_eq!(count, 100, "all of them are past their time");
        }
        assert!(forgotten == 2_500 && (25..=26).contains(&calls) || forgotten == 0 && calls == 1);
    }
}

/// Tasks that end behind the sweep are found the next time round.
pub fn a_sweep_goes_on_where_it_was(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let records: Vec<_> = (0..3_000).map(|n| task(id(START, n), START, &value(1))).collect();
    let seqs: Vec<_> = records.iter().map(|_| owner.next_seq()).collect();
    let inserts = seqs.iter().zip(&records).map(|(&seq, record)| Change::Insert {
        seq,
        record: Box::new(record.clone()),
        payload: value(1),
    });
    owner.commit(&inserts.collect::<Vec<_>>());
    let end = |i: usize| finish(seqs[i], records[i].clone(), Outcome::Succeeded, START, None, after(5));

    // Every other one first; then, in the middle of the sweep, one in front of it
    // and one behind it, both in blocks begun or done.
    owner.commit(&(0..3_000).step_by(2).map(end).collect::<Vec<_>>());
    let first = owner.try_prune(after(9), 1_500).expect("the sweep goes on");
    assert!(!first.complete);
    owner.commit(&[end(1), end(1_201), end(2_999)]);
    let rest = owner.prune_all(after(9));
    let again = owner.prune_all(after(9));
    let sum = |pruned: &crate::Pruned| pruned.forgotten.values().sum::<u64>();
    assert_eq!(sum(&first) + sum(&rest) + sum(&again), 1_503);
    for i in [0, 1, 1_201, 2_998, 2_999] {
        assert_eq!(owner.task(records[i].id), None, "task {i}");
    }
    assert!(owner.task(records[3].id).is_some());
    assert_eq!(Owner::open(shard.as_ref(), START).live.len(), 1_497);
}

/// What an open counts, less what sweeps report, is what the next open counts.
pub fn counts_agree_with_the_next_open(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    for n in 0..400 {
        let mut record = task(id(START, n), START, &value(1));
        record.queue = name(["a", "b", "c"][n as usize % 3]);
        let seq = owner.insert(&record, &value(1));
        let outcome =
            [Outcome::Succeeded, Outcome::Cancelled, Outcome::Dead(DeadReason::Error)][n as usize % 7 % 3].clone();
        owner.commit(&[finish(seq, record, outcome, START, None, after(n % 50))]);
    }
    for seconds in [10, 20, 60] {
        owner = Owner::open(shard.as_ref(), START);
        let mut expected = owner.opened.finished.clone();
        for (key, gone) in owner.prune_all(after(seconds)).forgotten {
            let count = expected.get_mut(&key).expect("only what was counted is forgotten");
            *count -= gone;
            if *count == 0 {
                expected.remove(&key);
            }
        }
        assert_eq!(Owner::open(shard.as_ref(), START).opened.finished, expected);
        owner = Owner::open(shard.as_ref(), START);
    }
    assert!(owner.opened.finished.is_empty());
}

/// Values with a row of their own go with their task.
pub fn large_results_go_too(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    let tasks = finished(&mut owner, 4, 50_000);
    let pruned = owner.prune_all(after(12));
    assert_eq!(pruned.results, 3);
    let kept: Vec<_> = tasks.iter().map(|(seq, _)| owner.result(*seq).is_some()).collect();
    assert_eq!(kept, [false, false, false, true]);
    assert_eq!(owner.result(tasks[3].0), Some(value(50_000)));
    owner.prune_all(after(1_000));
    assert_eq!(owner.result(tasks[3].0), None);
}

/// But for a record that tells its id and its key: no value, large or small, no
/// listing and no count knows it, for a next owner neither; its neighbours stay.
/// What is left goes at its time.
pub fn what_is_purged_leaves_its_id(fresh: Fresh<'_>) {
    for bytes in [30, 100_000] {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        let tasks = finished(&mut owner, 7, bytes);
        let mut dead = task(id(START, 99), START, &value(bytes));
        let key = Key::new("k").expect("a key");
        dead.options.key = Some(key.clone());
        let seq = owner.insert(&dead, &value(bytes));
        let outcome = Outcome::Dead(DeadReason::Error);
        owner.commit(&[finish(seq, dead.clone(), outcome, START, None, after(20))]);
        let gone = [tasks[1], (seq, dead.id), tasks[3], tasks[2]];
        let bare = gone.map(|(_, id)| {
            let (seq, mut record) = owner.task(id).expect("it is remembered");
            if let State::Finished(finish) = &mut record.state {
                (finish.purged, finish.result) = (true, None);
            }
            (seq, record)
        });
        let purge = |(seq, record): &(Seq, TaskRecord)| Change::Purge {
            seq: *seq,
            record: Box::new(record.clone()),
            forget_at: after(90),
        };
        owner.commit(&bare.iter().map(purge).collect::<Vec<_>>());
        // Once more does no harm.
        owner.commit(&[purge(&bare[0])]);
        let everything = Query {
            filter: TaskFilter::ALL,
            before: None,
            limit: 100,
            budget: 100,
            bytes: 1_000_000,
        };
        for restarted in [false, true] {
            if restarted {
                owner = Owner::open(shard.as_ref(), START);
                let left = owner.opened.finished.values().sum::<u64>();
                assert_eq!(left, 4);
            }
            for (seq, record) in &bare {
                assert_eq!(owner.task(record.id).as_ref(), Some(&(*seq, record.clone())));
                assert_eq!((owner.payload(*seq), owner.result(*seq)), (None, None));
            }
            let keyed = owner.reader().keyed(&dead.queue, &key).expect("a look-up");
            assert_eq!(keyed.map(|(seq, _)| seq), Some(seq));
            let left = [tasks[0], tasks[4], tasks[5], tasks[6]];
            for (seq, id) in left {
                assert_eq!(owner.task(id).map(|(seq, _)| seq), Some(seq));
                assert!(owner.result(seq).is_some());
            }
            let listed = owner.tasks(&everything).tasks;
            let listed: BTreeSet<Seq> = listed.into_iter().map(|(seq, _)| seq).collect();
            assert_eq!(listed, left.into_iter().map(|(seq, _)| seq).collect());
        }
        let pruned = owner.prune_all(after(60));
        assert_eq!(pruned.forgotten.values().sum::<u64>(), 4);
        assert!(owner.task(dead.id).is_some(), "its time has not come");
        assert!(owner.prune_all(after(90)).forgotten.is_empty());
        assert_eq!(owner.task(dead.id), None);
        assert_eq!(owner.reader().keyed(&dead.queue, &key).expect("a look-up"), None);
    }
}
