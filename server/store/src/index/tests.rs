//! The index against a map, and what it costs.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::conformance::START;
use crate::conformance::samples::id;

fn at(seconds: i64) -> Timestamp {
    let length = std::time::Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { START - length } else { START + length }
}

proptest! {
    /// Any ids in any order of places, with some forgotten on the way.
    #[test]
    fn finds_what_a_map_finds(
        tasks in vec((0..4_u64, 0..20_000_u64, -200..200_i64, 0..100_i64, any::<bool>()), 1..300)
    ) {
        let mut index = Index::default();
        let mut map = BTreeMap::new();
        let (mut last, mut clock) = (0, 0);
        for (n, (kind, jump, drift, passed, forgotten)) in tasks.into_iter().enumerate() {
            clock += passed;
            let number = match kind {
                0 => jump,
                1 => last + jump,
                _ => last + 1,
            };
            let seq = Seq(number);
            if map.contains_key(&seq) {
                continue;
            }
            last = number.max(last);
            let id = id(at(clock + drift), n as u64);
            index.insert(seq, id, at(clock));
            map.insert(seq, id);
            if forgotten {
                let (&seq, &id) = map.iter().nth(n % map.len()).expect("one is there");
                map.remove(&seq);
                index.remove(&[(seq, id)]);
                prop_assert!(!index.candidates(id).contains(&seq));
            }
        }
        for (seq, id) in &map {
            prop_assert!(index.candidates(*id).contains(seq), "{} at {}", id, seq.0);
        }
        let kept: usize = index.blocks.iter().map(|block| block.tasks.len()).sum();
        prop_assert_eq!(kept, map.len());
        prop_assert!(index.strays.len() <= map.len());
    }
}

/// A look-up of a new id, made for every enqueue, reads next to nothing.
#[test]
fn an_unknown_id_has_few_candidates() {
    let mut index = Index::default();
    let time = |n: u64| Timestamp::from_micros(START.as_micros() + 50 * n);
    for n in 0..50_000 {
        index.insert(Seq(n + 1), id(time(n), n), time(n));
    }
    assert!(index.strays.is_empty());
    let reads: usize = (0..10_000)
        .map(|n| index.candidates(id(time(5 * n), 1_000_000 + n)).len())
        .sum();
    assert!(reads < 1_000, "{reads} rows read for 10,000 unknown ids");
}

/// An empty block is no block.
#[test]
fn nothing_is_left_of_what_is_forgotten() {
    let mut index = Index::default();
    let tasks: Vec<_> = (1..=5_000).map(|n| (Seq(n), id(at(n as i64 % 200), n))).collect();
    for &(seq, id) in &tasks {
        index.insert(seq, id, START);
    }
    assert!(!index.strays.is_empty());
    for block in tasks.chunk_by(|a, b| block_of(a.0) == block_of(b.0)) {
        index.remove(block);
    }
    assert!(index.blocks.is_empty() && index.strays.is_empty());
}

/// A block is looked through only once something in it is due.
#[test]
fn blocks_wait_until_something_is_due() {
    let mut index = Index::default();
    for n in 0..4_096 {
        index.insert(Seq(n), id(START, n), START);
    }
    assert_eq!(index.next_due(Seq(0), Timestamp::MAX.min(at(1_000))), None);
    index.due(Seq(1_500), at(20));
    index.due(Seq(1_501), at(10));
    index.due(Seq(4_000), at(5));
    assert_eq!(index.next_due(Seq(0), at(4)), None);
    assert_eq!(index.next_due(Seq(0), at(9)), Some((Seq(3_072), Seq(4_095))));
    assert_eq!(index.next_due(Seq(0), at(10)), Some((Seq(1_024), Seq(2_047))));
    assert_eq!(index.next_due(Seq(2_048), at(10)), Some((Seq(3_072), Seq(4_095))));
    index.clear_due(Seq(1_024));
    assert_eq!(index.next_due(Seq(0), at(10)), Some((Seq(3_072), Seq(4_095))));
}
