//! A queue of tasks in the order they were accepted. A task that comes back
//! (retried, released, lost) takes its old place; one taken out of the middle
//! leaves a hole that is swept up later.

use std::collections::VecDeque;

use crate::ids::Seq;
use crate::sched::TaskKey;

#[derive(Debug, Default)]
pub(crate) struct Fifo {
    entries: VecDeque<(Seq, Option<TaskKey>)>,
    holes: usize,
}

impl Fifo {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.holes
    }

    /// Never a hole: holes at the ends are swept at once.
    pub(crate) fn front(&self) -> Option<(Seq, TaskKey)> {
        self.entries
            .front()
            .map(|&(seq, key)| (seq, key.expect("no hole at the front")))
    }

    /// Puts a task at its place. Those that come back are older than nearly all
    /// that wait, so the place is near an end and the move short.
    pub(crate) fn insert(&mut self, seq: Seq, key: TaskKey) {
        if self.entries.back().is_none_or(|&(last, _)| last < seq) {
            self.entries.push_back((seq, Some(key)));
            return;
        }
        match self.entries.binary_search_by_key(&seq, |&(s, _)| s) {
            Ok(at) => {
                debug_assert!(self.entries[at].1.is_none(), "{seq:?} waits twice");
                self.entries[at].1 = Some(key);
                self.holes -= 1;
            }
            Err(at) => self.entries.insert(at, (seq, Some(key))),
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<TaskKey> {
        let (_, key) = self.entries.pop_front()?;
        self.sweep();
        key
    }

    /// Whether the task was there.
    pub(crate) fn remove(&mut self, seq: Seq) -> bool {
        let Ok(at) = self.entries.binary_search_by_key(&seq, |&(s, _)| s) else {
            return false;
        };
        if self.entries[at].1.take().is_none() {
            return false;
        }
        self.holes += 1;
        self.sweep();
        true
    }

    /// How many wait before `seq`, at most: holes count until they are swept.
    pub(crate) fn ahead_of(&self, seq: Seq) -> usize {
        self.entries.partition_point(|&(s, _)| s < seq).min(self.len())
    }

    fn sweep(&mut self) {
        while self.entries.front().is_some_and(|(_, key)| key.is_none()) {
            self.entries.pop_front();
            self.holes -= 1;
        }
        while self.entries.back().is_some_and(|(_, key)| key.is_none()) {
            self.entries.pop_back();
            self.holes -= 1;
        }
        // Amortised: a sweep of n entries follows n / 2 removals.
        if self.holes > self.entries.len() / 2 {
            self.entries.retain(|(_, key)| key.is_some());
            self.holes = 0;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        self.entries.iter().filter_map(|&(seq, key)| Some((seq, key?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is done to it, it behaves as a sorted map.
        #[test]
        fn like_a_sorted_map(steps in proptest::collection::vec((0_u8..4, 0_u64..40), 1..400)) {
            let (mut fifo, mut model) = (Fifo::default(), BTreeMap::new());
            for (what, n) in steps {
                let (seq, key) = (Seq(n), TaskKey(n as u32));
                match what {
                    0 | 1 if !model.contains_key(&seq) => {
                        fifo.insert(seq, key);
                        model.insert(seq, key);
                    }
                    2 => prop_assert_eq!(fifo.remove(seq), model.remove(&seq).is_some()),
                    _ => prop_assert_eq!(fifo.pop_front(), model.pop_first().map(|(_, key)| key)),
                }
                prop_assert_eq!(fifo.len(), model.len());
                prop_assert_eq!(fifo.front(), model.first_key_value().map(|(&s, &k)| (s, k)));
                prop_assert!(fifo.iter().eq(model.iter().map(|(&s, &k)| (s, k))));
                if model.contains_key(&seq) {
                    prop_assert!(fifo.ahead_of(seq) >= model.range(..seq).count());
                    prop_assert!(fifo.ahead_of(seq) <= fifo.len());
                }
            }
        }
    }
}
