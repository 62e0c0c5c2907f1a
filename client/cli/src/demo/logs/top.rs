//! The most frequent of many values, in bounded memory.

use std::collections::HashMap;

use crate::limits::{MAX_TOP_VALUE_BYTES, MAX_TOP_VALUES};

/// Counts of values. With more different ones than fit, the rare half is
/// forgotten now and then: a count may then be too small, by no more than
/// [`short`](Self::short).
#[derive(Debug, Default)]
pub(super) struct Top {
    counts: HashMap<String, u64>,
    short: u64,
}

impl Top {
    pub(super) fn add(&mut self, value: &str) {
        let value = &value[..value.floor_char_boundary(MAX_TOP_VALUE_BYTES)];
        if let Some(count) = self.counts.get_mut(value) {
            *count += 1;
            return;
        }
        if self.counts.len() == MAX_TOP_VALUES {
            self.forget();
        }
        self.counts.insert(value.to_owned(), 1);
    }

    /// The `n` most frequent, and how many others are known.
    pub(super) fn most(&self, n: usize) -> (Vec<(&str, u64)>, usize) {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .map(|(value, count)| (value.as_str(), *count))
            .collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let others = all.len().saturating_sub(n);
        all.truncate(n);
        (all, others)
    }

    /// How much too small a count may be.
    pub(super) fn short(&self) -> u64 {
        self.short
    }

    fn forget(&mut self) {
        let mut counts: Vec<_> = self.counts.values().copied().collect();
        let (_, middle, _) = counts.select_nth_unstable(MAX_TOP_VALUES / 2);
        let middle = *middle;
        self.counts.retain(|_, count| *count > middle);
        self.short += middle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first_and_ties_by_name() {
        let mut top = Top::default();
        for value in ["b", "a", "c", "c", "d"] {
            top.add(value);
        }
        assert_eq!(top.most(3), (vec![("c", 2), ("a", 1), ("b", 1)], 1));
        assert_eq!(top.short(), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_error_is_known() {
        let mut top = Top::default();
        for i in 0..5 * MAX_TOP_VALUES {
            top.add("often");
            top.add(&format!("once {i}"));
        }
        assert!(top.counts.len() <= MAX_TOP_VALUES);
        let (most, _) = top.most(1);
        assert_eq!(most[0].0, "often");
        let sent = 5 * MAX_TOP_VALUES as u64;
        assert!(
            (sent - top.short()..=sent).contains(&most[0].1) && top.short() > 0,
            "{most:?}"
        );
        // A long value is cut, between characters.
        let mut top = Top::default();
        top.add(&"é".repeat(MAX_TOP_VALUE_BYTES));
        assert!(top.most(1).0[0].0.len() <= MAX_TOP_VALUE_BYTES);
    }
}
