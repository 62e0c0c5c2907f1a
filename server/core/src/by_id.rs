//! Which live task has an id. A hash table, because an id is looked for four
//! times in the life of its task and ids come in no order. It is never walked:
//! its order, and the seed, show nowhere.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::TaskId;
use crate::sched::TaskKey;

#[derive(Debug)]
pub(crate) struct ById {
    /// Callers choose ids. Who does not know the seed cannot choose such as meet
    /// in the table.
    seed: u64,
    table: HashTable<Entry>,
}

/// The hash saves a look at most of the tasks with another id, and at all of
/// them when the table grows.
#[derive(Debug)]
struct Entry {
    hash: u32,
    key: TaskKey,
}

impl ById {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            table: HashTable::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The task with this id; `has_it` tells whether a task has it.
    pub(crate) fn get(&self, id: TaskId, has_it: impl Fn(TaskKey) -> bool) -> Option<TaskKey> {
        let hash = self.hash(id);
        let found = self
            .table
            .find(spread(hash), |entry| entry.hash == hash && has_it(entry.key));
        found.map(|entry| entry.key)
    }

    /// Adds a task whose id is not there.
    pub(crate) fn insert(&mut self, id: TaskId, key: TaskKey) {
        let hash = self.hash(id);
        self.table
            .insert_unique(spread(hash), Entry { hash, key }, |entry| spread(entry.hash));
    }

    pub(crate) fn remove(&mut self, id: TaskId, key: TaskKey) {
        let entry = self.table.find_entry(spread(self.hash(id)), |entry| entry.key == key);
        debug_assert!(entry.is_ok(), "{id} was not there");
        if let Ok(entry) = entry {
            entry.remove();
        }
    }

    fn hash(&self, id: TaskId) -> u32 {
        xxh3_64_with_seed(&id.0, self.seed) as u32
    }
}

/// The table takes its place from the low bits and a tag from the high ones: 2^64
/// divided by the golden ratio spreads 32 bits over both (Fibonacci hashing).
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_is_there(seed: u64, steps in proptest::collection::vec((any::<bool>(), 0_u8..40), 0..200)) {
            let (mut by_id, mut reference) = (ById::new(seed), BTreeMap::new());
            let mut ids = Vec::new();
            for (add, n) in steps {
                let id = TaskId([n; 16]);
                match reference.get(&id).copied() {
                    None if add => {
                        let key = TaskKey(ids.len() as u32);
                        ids.push(id);
                        reference.insert(id, key);
                        by_id.insert(id, key);
                    }
                    Some(key) if !add => {
                        reference.remove(&id);
                        by_id.remove(id, key);
                    }
                    _ => {}
                }
                prop_assert_eq!(by_id.len(), reference.len());
                for n in 0..40 {
                    let id = TaskId([n; 16]);
                    let found = by_id.get(id, |key| ids[key.index()] == id);
                    prop_assert_eq!(found, reference.get(&id).copied());
                }
            }
        }
    }
}
