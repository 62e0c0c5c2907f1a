//! Tasks in the order they were accepted. One that comes back (retried,
//! released, lost, due) takes its old place.

use std::collections::BTreeMap;

use crate::ids::Seq;
use crate::sched::TaskKey;

#[derive(Debug, Default)]
pub(crate) struct Fifo {
    entries: BTreeMap<Seq, TaskKey>,
}

impl Fifo {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn front(&self) -> Option<(Seq, TaskKey)> {
        self.entries.first_key_value().map(|(&seq, &key)| (seq, key))
    }

    pub(crate) fn insert(&mut self, seq: Seq, key: TaskKey) {
        let before = self.entries.insert(seq, key);
        debug_assert!(before.is_none(), "{seq:?} waits twice");
    }

    pub(crate) fn pop_front(&mut self) -> Option<TaskKey> {
        self.entries.pop_first().map(|(_, key)| key)
    }

    /// Whether the task was there.
    pub(crate) fn remove(&mut self, seq: Seq) -> bool {
        self.entries.remove(&seq).is_some()
    }

    /// How many wait before `seq`. Walks them: for people who ask, not for dispatch.
    pub(crate) fn ahead_of(&self, seq: Seq) -> usize {
        self.entries.range(..seq).count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        self.entries.iter().map(|(&seq, &key)| (seq, key))
    }
}
