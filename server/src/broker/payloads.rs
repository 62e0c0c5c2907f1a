//! The arguments of tasks that wait, as far as they fit into memory. The store
//! has them all, once they are durable.

use std::collections::VecDeque;

use asynq_core::{Payload, Seq};
use asynq_proto::limits::INLINE_BYTES;
use bytes::Bytes;
use foldhash::HashMap;

/// What the cache knows of a task's arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    /// Here they are; the cache has them no more.
    Here(Payload),
    /// They are too large to ride in a message: the worker fetches them.
    Large,
    /// They must be read from the store.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PayloadCache {
    entries: HashMap<Seq, Option<Payload>>,
    /// In the order they came, so in the order of `Seq`; taken ones included.
    order: VecDeque<Seq>,
    bytes: usize,
    max_bytes: usize,
    durable: Seq,
}

impl PayloadCache {
    pub(crate) fn new(max_bytes: usize, durable: Seq) -> Self {
        Self {
            entries: HashMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            max_bytes,
            durable,
        }
    }

    /// Keeps the arguments of a task that has just been accepted.
    pub(crate) fn insert(&mut self, seq: Seq, payload: &Payload) {
        let entry = (payload.data.len() <= INLINE_BYTES).then(|| Payload {
            content_type: payload.content_type.clone(),
            // A copy: the bytes are a slice of a whole message, which would
            // stay in memory for the sake of one task that waits.
            data: Bytes::copy_from_slice(&payload.data),
        });
        self.bytes += weight(entry.as_ref());
        self.entries.insert(seq, entry);
        self.order.push_back(seq);
        self.evict();
    }

    /// Takes a task's arguments out, to send them.
    pub(crate) fn take(&mut self, seq: Seq) -> Cached {
        match self.remove(seq) {
            Some(Some(payload)) => Cached::Here(payload),
            Some(None) => Cached::Large,
            None => Cached::Unknown,
        }
    }

    /// Forgets a task that has ended.
    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Option<Payload>> {
        let entry = self.entries.remove(&seq)?;
        self.bytes -= weight(entry.as_ref());
        // Places of what has been taken are dropped from the front as they
        // come up, and all at once when they are most of the queue.
        while self.order.front().is_some_and(|seq| !self.entries.contains_key(seq)) {
            self.order.pop_front();
        }
        if self.order.len() > 1024 && self.order.len() > 2 * self.entries.len() {
            let entries = &self.entries;
            self.order.retain(|seq| entries.contains_key(seq));
        }
        Some(entry)
    }

    /// Everything up to `seq` is in the store.
    pub(crate) fn durable(&mut self, seq: Seq) {
        self.durable = self.durable.max(seq);
        self.evict();
    }

    /// Whether the store can be asked for a task's arguments.
    pub(crate) fn is_durable(&self, seq: Seq) -> bool {
        seq <= self.durable
    }

    /// Oldest first, but only what the store has.
    fn evict(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(&seq) = self.order.front().filter(|&&seq| seq <= self.durable) else {
                return;
            };
            self.order.pop_front();
            if let Some(entry) = self.entries.remove(&seq) {
                self.bytes -= weight(entry.as_ref());
            }
        }
    }
}

/// Bytes an entry takes, bookkeeping included.
fn weight(entry: Option<&Payload>) -> usize {
    const BOOKKEEPING: usize = 96;
    BOOKKEEPING + entry.map_or(0, |payload| payload.data.len() + payload.content_type.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(len: usize) -> Payload {
        Payload {
            content_type: "".into(),
            data: vec![7; len].into(),
        }
    }

    #[test]
    fn the_oldest_durable_ones_make_room() {
        let mut cache = PayloadCache::new(3_500, Seq(0));
        for n in 1..=5 {
            cache.insert(Seq(n), &payload(1_000));
        }
        assert!(cache.bytes > 5_000, "nothing that is not durable is dropped");
        cache.durable(Seq(1));
        assert!(cache.bytes > 4_000, "only the first is durable");
        cache.durable(Seq(4));
        assert!(cache.bytes <= 3_500);
        assert_eq!(cache.take(Seq(1)), Cached::Unknown);
        assert_eq!(cache.take(Seq(2)), Cached::Unknown);
        assert_eq!(cache.take(Seq(3)), Cached::Here(payload(1_000)));
        assert_eq!(cache.take(Seq(5)), Cached::Here(payload(1_000)));
        assert_eq!(cache.take(Seq(5)), Cached::Unknown);
        assert!(cache.is_durable(Seq(4)) && !cache.is_durable(Seq(5)));
    }

    #[test]
    fn large_ones_are_only_noted() {
        let mut cache = PayloadCache::new(10_000_000, Seq(0));
        cache.insert(Seq(1), &payload(INLINE_BYTES + 1));
        cache.insert(Seq(2), &payload(INLINE_BYTES));
        assert!(cache.bytes < INLINE_BYTES + 1_000);
        assert_eq!(cache.take(Seq(1)), Cached::Large);
        assert_eq!(cache.take(Seq(2)), Cached::Here(payload(INLINE_BYTES)));
        assert_eq!((cache.bytes, cache.order.len()), (0, 0));
    }

    #[test]
    fn what_waits_for_long_does_not_make_the_bookkeeping_grow() {
        let mut cache = PayloadCache::new(10_000_000, Seq(0));
        cache.insert(Seq(1), &payload(1));
        for n in 2..100_000 {
            cache.insert(Seq(n), &payload(1));
            cache.remove(Seq(n));
        }
        assert!(cache.order.len() <= 1_025, "{}", cache.order.len());
        assert_eq!(cache.take(Seq(1)), Cached::Here(payload(1)));
    }
}
