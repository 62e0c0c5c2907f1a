//! Tasks in the order they were accepted. One that comes back (retried,
//! released, lost, due) takes its old place.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::Seq;
use crate::sched::TaskKey;

/// Most tasks come in order and leave in order: they are a ring of 16 bytes
/// each. A step costs O(log n), spread over those before it.
#[derive(Debug, Default)]
pub(crate) struct Fifo {
    /// Those that came after all that were here. What is taken from between
    /// others leaves a gap; the first is never one.
    ring: VecDeque<(Seq, Option<TaskKey>)>,
    gaps: usize,
    /// Those that came late.
    late: BTreeMap<Seq, TaskKey>,
}

/// A ring of fewer places is not worth shrinking.
const SMALL_RING: usize = 64;

impl Fifo {
    pub(crate) fn len(&self) -> usize {
        self.ring.len() - self.gaps + self.late.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.late.is_empty()
    }

    pub(crate) fn front(&self) -> Option<(Seq, TaskKey)> {
        let ring = self.ring.front().and_then(|&(seq, key)| Some((seq, key?)));
        let late = self.late.first_key_value().map(|(&seq, &key)| (seq, key));
        match (ring, late) {
            (Some(ring), Some(late)) => Some(ring.min(late)),
            (ring, late) => ring.or(late),
        }
    }

    pub(crate) fn insert(&mut self, seq: Seq, key: TaskKey) {
        if self.ring.back().is_none_or(|&(last, _)| last < seq) {
            self.ring.push_back((seq, Some(key)));
        } else {
            let before = self.late.insert(seq, key);
            debug_assert!(before.is_none(), "{seq:?} waits twice");
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<TaskKey> {
        let (seq, key) = self.front()?;
        if self.ring.front().is_some_and(|&(first, _)| first == seq) {
            self.ring.pop_front();
            self.tidy();
        } else {
            self.late.pop_first();
        }
        Some(key)
    }

    /// Whether the task was there.
    pub(crate) fn remove(&mut self, seq: Seq) -> bool {
        let Ok(at) = self.ring.binary_search_by_key(&seq, |&(seq, _)| seq) else {
            return self.late.remove(&seq).is_some();
        };
        if self.ring[at].1.take().is_none() {
            return self.late.remove(&seq).is_some();
        }
        self.gaps += 1;
        self.tidy();
        true
    }

    /// Lets go of gaps before the first task, of gaps that are more than the
    /// tasks, and of memory that is mostly unused.
    fn tidy(&mut self) {
        while let Some((_, None)) = self.ring.front() {
            self.ring.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > self.ring.len() / 2 {
            self.ring.retain(|(_, key)| key.is_some());
            self.gaps = 0;
        }
        if self.ring.capacity() > SMALL_RING && self.ring.len() < self.ring.capacity() / 4 {
            self.ring.shrink_to(self.ring.capacity() / 2);
        }
    }

    /// How many wait before `seq`. Walks them: for people who ask, not for dispatch.
    pub(crate) fn ahead_of(&self, seq: Seq) -> usize {
        self.iter().filter(|&(other, _)| other < seq).count()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        let ring = self.ring.iter().filter_map(|&(seq, key)| Some((seq, key?)));
        ring.chain(self.late.iter().map(|(&seq, &key)| (seq, key)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_keeps_the_order_of_acceptance(steps in proptest::collection::vec((0_u8..6, 0_u64..80), 0..400)) {
            let (mut fifo, mut all, mut next) = (Fifo::default(), BTreeMap::new(), 100);
            for (step, n) in steps {
                match step {
                    0..=2 => {
                        // Mostly in order; else an old place, if it is not taken.
                        let seq = Seq(if n < 60 { next } else { n });
                        let key = TaskKey(seq.0 as u32);
                        next += 1;
                        if all.insert(seq, key).is_none() {
                            fifo.insert(seq, key);
                        }
                    }
                    3 => prop_assert_eq!(fifo.pop_front(), all.pop_first().map(|(_, key)| key)),
                    _ => {
                        let some = all.keys().nth(n as usize % all.len().max(1)).copied();
                        let seq = some.filter(|_| step == 4).unwrap_or(Seq(n));
                        prop_assert_eq!(fifo.remove(seq), all.remove(&seq).is_some());
                    }
                }
                prop_assert_eq!(fifo.front(), all.first_key_value().map(|(&seq, &key)| (seq, key)));
                prop_assert_eq!((fifo.len(), fifo.is_empty()), (all.len(), all.is_empty()));
                prop_assert_eq!(fifo.ahead_of(Seq(next - 5)), all.range(..Seq(next - 5)).count());
                prop_assert_eq!(fifo.iter().collect::<BTreeMap<_, _>>(), all.clone());
            }
        }
    }

    #[test]
    fn a_long_one_that_has_been_served_gives_its_memory_back() {
        let mut fifo = Fifo::default();
        (0..10_000).for_each(|n| fifo.insert(Seq(n), TaskKey(n as u32)));
        // From the middle and from the front.
        (5_000..9_990).for_each(|n| assert!(fifo.remove(Seq(n))));
        (0..5_000).for_each(|n| assert_eq!(fifo.pop_front(), Some(TaskKey(n))));
        assert_eq!(fifo.len(), 10);
        assert!(fifo.ring.capacity() <= 2 * SMALL_RING, "{}", fifo.ring.capacity());
    }
}
