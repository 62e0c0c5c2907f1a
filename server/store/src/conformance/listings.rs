//! Tasks are listed newest first, in parts, each once.

use std::time::Duration;

use asynq_core::{
    Change, Failure, Name, Outcome, Seq, State, StateName, StateSet, TaskFilter, TaskId, TaskRecord, Timestamp,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::samples::{any_live_state, finish, id, name, task, value};
use super::{Fresh, Owner, START, property};
use crate::{Listed, Query};

const ALL: Query = Query {
    filter: TaskFilter::ALL,
    before: None,
    limit: usize::MAX,
    budget: usize::MAX,
    bytes: usize::MAX,
};

fn sample(n: u64) -> TaskRecord {
    task(id(START, n), START + Duration::from_secs(n), &value(1))
}

/// All parts, one after the other.
fn parts(owner: &Owner, query: &Query) -> Vec<Listed> {
    let mut parts = vec![owner.tasks(query)];
    while let Some(Listed { next: Some(next), .. }) = parts.last() {
        let before = Some(*next);
        let further = query.before.is_none_or(|before| *next <= before) && parts.len() < 10_000;
        assert!(further, "the listing does not come to its end");
        parts.push(owner.tasks(&Query {
            before,
            ..query.clone()
        }));
    }
    parts
}

fn places(listed: &Listed) -> Vec<u64> {
    listed.tasks.iter().map(|(seq, _)| seq.0).collect()
}

fn finish_at(seq: Seq, record: TaskRecord, outcome: Outcome) -> Change {
    finish(seq, record, outcome, START, None, START + Duration::from_hours(1))
}

/// Whatever a part's size; what comes in meanwhile is newer and not seen.
pub fn newest_first_in_parts(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    assert_eq!(owner.tasks(&ALL), Listed::default());
    let inserted: Vec<_> = (1..=25)
        .map(|n| (owner.insert(&sample(n), &value(1)), sample(n)))
        .collect();
    let newest_first: Vec<_> = inserted.into_iter().rev().collect();
    assert_eq!(
        owner.tasks(&ALL),
        Listed {
            tasks: newest_first.clone(),
            next: None
        }
    );
    for limit in [1, 5, 7, 24, 25, 26] {
        let parts = parts(&owner, &Query { limit, ..ALL });
        assert_eq!(
            parts.len(),
            25_usize.div_ceil(limit),
            "a part that is full and the last says so"
        );
        let all: Vec<_> = parts.into_iter().flat_map(|part| part.tasks).collect();
        assert_eq!(all, newest_first);
    }
    let first = owner.tasks(&Query { limit: 10, ..ALL });
    owner.insert(&sample(26), &value(1));
    let rest = owner.tasks(&Query {
        before: first.next,
        ..ALL
    });
    assert_eq!((rest.tasks.as_slice(), rest.next), (&newest_first[10..], None));
    // A place far beyond the last is a place.
    for far in [1_000, u64::MAX / 2, u64::MAX] {
        let before = Some(Seq(far));
        assert_eq!(owner.tasks(&Query { before, ..ALL }).tasks.len(), 26);
    }
    assert_eq!(
        owner.tasks(&Query {
            before: Some(Seq(0)),
            ..ALL
        }),
        Listed::default()
    );
    assert_eq!(
        places(&Owner::open(shard.as_ref(), START).tasks(&ALL)),
        (1..=26).rev().collect::<Vec<_>>()
    );
}

fn any_record(n: u64) -> impl Strategy<Value = (TaskRecord, Option<Outcome>)> {
    let one_of =
        |names: [&'static str; 3]| select(names.to_vec()).prop_map(|text| Name::or_empty(text).expect("a name"));
    let ends = vec![Outcome::Succeeded, Outcome::Cancelled, Outcome::Expired];
    let labels = (
        one_of(["a", "b", "ab"]),
        one_of(["a", "b", "q"]),
        one_of(["", "a", "b"]),
    );
    (labels, any_live_state(), option::of(select(ends))).prop_map(move |((name, queue, series), state, end)| {
        let record = TaskRecord {
            name,
            queue,
            series,
            state,
            ..sample(n)
        };
        (record, end)
    })
}

fn any_filter() -> impl Strategy<Value = TaskFilter> {
    let label = || option::of(select(vec!["", "a", "b", "none"]));
    let states = prop_oneof![
        1 => Just(StateSet::ALL),
        2 => subsequence(StateName::ALL.to_vec(), 0..4).prop_map(StateSet::from_iter),
    ];
    (states, [label(), label(), label()], 0..40_u64).prop_map(|(states, [name, queue, series], since)| {
        let label = |text: Option<&str>| text.map(|text| Name::or_empty(text).expect("a name"));
        TaskFilter {
            states,
            name: label(name),
            queue: label(queue),
            series: label(series),
            since: match since {
                0..10 => Timestamp::ZERO,
                n => START + Duration::from_secs(n - 10),
            },
        }
    })
}

/// Any tasks, any filter, any bounds: what fits, all of it, in order.
pub fn as_a_filter_over_all_records(fresh: Fresh<'_>) {
    let records = (1..=30).map(any_record).collect::<Vec<_>>();
    let bounds = (
        1..9_usize,
        1..9_usize,
        prop_oneof![Just(1), Just(2_000), Just(usize::MAX)],
    );
    let inputs = (records, vec((any_filter(), bounds), 1..6));
    let listed_as_filtered = |(records, listings): (Vec<(TaskRecord, Option<Outcome>)>, Vec<_>)| {
        let shard = fresh();
        let mut owner = Owner::open(shard.as_ref(), START);
        let mut kept = Vec::new();
        for (mut record, end) in records {
            let seq = owner.insert(&record, &value(1));
            if let Some(outcome) = end {
                let change = finish_at(seq, record, outcome);
                owner.commit(std::slice::from_ref(&change));
                let Change::Finish { record: ended, .. } = change else {
                    unreachable!("it is one")
                };
                record = *ended;
            }
            kept.push((seq, record));
        }
        kept.reverse();
        for (filter, (limit, budget, bytes)) in listings {
            let query = Query {
                filter,
                limit,
                budget,
                bytes,
                before: None,
            };
            let fitting = kept.iter().filter(|(_, record)| query.filter.fits(record));
            let listed: Vec<_> = parts(&owner, &query).into_iter().flat_map(|part| part.tasks).collect();
            prop_assert!(listed.iter().eq(fitting), "{query:?}: {listed:?}");
        }
        Ok(())
    };
    property(40)
        .run(&inputs, listed_as_filtered)
        .expect("the property holds");
}

/// Of a part, each of them; what does not fit costs budget too.
pub fn bounds_hold(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    for n in 1..=40 {
        let rare = if n == 3 { "rare" } else { "resize" };
        let failure = Failure {
            trace: "x".repeat(1_000),
            ..Failure::default()
        };
        let record = TaskRecord {
            name: name(rare),
            failure: Some(Box::new(failure)),
            ..sample(n)
        };
        owner.insert(&record, &value(1));
    }
    let rare = TaskFilter {
        name: Some(name("rare")),
        ..TaskFilter::ALL
    };
    let query = Query {
        filter: rare,
        budget: 10,
        ..ALL
    };
    let found: Vec<_> = parts(&owner, &query)
        .iter()
        .map(|part| (places(part), part.next.map(|seq| seq.0)))
        .collect();
    assert_eq!(
        found,
        [
            (vec![], Some(31)),
            (vec![], Some(21)),
            (vec![], Some(11)),
            (vec![3], None)
        ]
    );
    let parts_of = |bytes| {
        let parts = parts(&owner, &Query { bytes, ..ALL });
        parts.iter().map(|part| part.tasks.len()).collect::<Vec<_>>()
    };
    assert_eq!(parts_of(1), [1; 40], "one at least");
    let few = parts_of(8_000);
    assert!(few.iter().all(|tasks| (2..8).contains(tasks)), "{few:?}");
}

/// The place is what counts, and no task changes its place.
pub fn what_ends_or_goes_between_parts_is_listed_once(fresh: Fresh<'_>) {
    let shard = fresh();
    let mut owner = Owner::open(shard.as_ref(), START);
    for n in 1..=12 {
        owner.insert(&sample(n), &value(1));
    }
    let query = Query { limit: 4, ..ALL };
    let first = owner.tasks(&query);
    assert_eq!(places(&first), [12, 11, 10, 9]);
    // One before the place, the one at it, and one after it end; one of these is forgotten.
    for n in [11, 9, 7, 5] {
        owner.commit(&[finish_at(Seq(n), sample(n), Outcome::Succeeded)]);
    }
    let running = TaskRecord {
        state: State::Scheduled { at: START },
        ..sample(6)
    };
    owner.commit(&[Change::Update {
        seq: Seq(6),
        record: Box::new(running),
    }]);
    let second = owner.tasks(&Query {
        before: first.next,
        ..query.clone()
    });
    let states: Vec<_> = second
        .tasks
        .iter()
        .map(|(seq, record)| (seq.0, record.state.name()))
        .collect();
    assert_eq!(
        states,
        [
            (8, StateName::Ready),
            (7, StateName::Succeeded),
            (6, StateName::Scheduled),
            (5, StateName::Succeeded)
        ]
    );
    owner.prune_all(START + Duration::from_hours(2));
    let ended = TaskFilter {
        states: StateSet::ENDED,
        ..TaskFilter::ALL
    };
    assert_eq!(owner.tasks(&Query { filter: ended, ..ALL }), Listed::default());
    let ids: Vec<TaskId> = parts(&owner, &query)
        .into_iter()
        .flat_map(|part| part.tasks)
        .map(|(_, record)| record.id)
        .collect();
    assert_eq!(ids, [12, 10, 8, 6, 4, 3, 2, 1].map(|n| id(START, n)));
}
