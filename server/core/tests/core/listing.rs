//! What sessions hold, newest first.

use asynq_core::{Seq, StateName, StateSet, TaskFilter, TaskId, Timestamp};

use crate::shard::{Shard, name, spec};

fn held(states: StateSet) -> TaskFilter {
    TaskFilter {
        states,
        ..TaskFilter::ALL
    }
}

fn list(shard: &Shard, filter: &TaskFilter, before: Option<u64>, limit: usize) -> (Vec<TaskId>, bool) {
    let (tasks, more) = shard.core.held_tasks(filter, before.map(Seq), limit);
    assert!(tasks.is_sorted_by(|(a, _), (b, _)| a > b));
    let ids = tasks.into_iter().map(|(_, view)| {
        assert_eq!(Some(&view), shard.core.task(view.record.id).as_ref());
        view.record.id
    });
    (ids.collect(), more)
}

/// Eight run in two sessions, two of them are to stop; two wait.
#[test]
fn runs_are_listed_newest_first() {
    let mut shard = Shard::new();
    let mut ids = Vec::new();
    for n in 0..10 {
        let series = if n % 2 == 0 { "even" } else { "" };
        ids.push(shard.enqueue(&spec(if n < 5 { "a" } else { "b" }).series(series)));
    }
    shard.connect(1, 5, &["a"]);
    shard.connect(2, 3, &["b"]);
    for _ in 0..8 {
        shard.assigned();
    }
    let running: Vec<_> = ids
        .iter()
        .copied()
        .filter(|&id| shard.core.task(id).is_some_and(|view| view.worker.is_some()))
        .rev()
        .collect();
    assert_eq!(running.len(), 8);
    assert_eq!(list(&shard, &held(StateSet::HELD), None, 8), (running.clone(), false));
    assert_eq!(
        list(&shard, &held(StateSet::HELD), None, 7),
        (running[..7].to_vec(), true)
    );
    // Places are counted from 1.
    let older: Vec<_> = running.iter().copied().filter(|id| ids[..3].contains(id)).collect();
    assert_eq!(list(&shard, &held(StateSet::HELD), Some(4), 10), (older, false));
    assert_eq!(list(&shard, &held(StateSet::HELD), Some(1), 10), (vec![], false));

    shard.cancel(ids[1]);
    shard.cancel(ids[3]);
    shard.drain();
    let stopping = held(StateSet::default().with(StateName::Stopping));
    assert_eq!(list(&shard, &stopping, None, 10), (vec![ids[3], ids[1]], false));
    let only = |set: &dyn Fn(&mut TaskFilter)| {
        let mut filter = held(StateSet::HELD);
        set(&mut filter);
        list(&shard, &filter, None, 10).0
    };
    let newest = |wanted: &[TaskId]| {
        running
            .iter()
            .copied()
            .filter(|id| wanted.contains(id))
            .collect::<Vec<_>>()
    };
    assert_eq!(only(&|filter| filter.name = Some(name("a"))), newest(&ids[..5]));
    let odd: Vec<_> = ids.iter().copied().skip(1).step_by(2).collect();
    assert_eq!(only(&|filter| filter.series = Some(name(""))), newest(&odd));
    assert_eq!(only(&|filter| filter.queue = Some(name("default"))), running);
    assert_eq!(only(&|filter| filter.queue = Some(name("none"))), []);
    assert_eq!(only(&|filter| filter.since = shard.now), running);
    assert_eq!(only(&|filter| filter.since = Timestamp::MAX), []);
}
