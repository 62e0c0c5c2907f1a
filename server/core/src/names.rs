//! Interned names: a task holds four bytes a name, however long it is. Counted,
//! so that a name goes with its last user.

use std::collections::BTreeMap;

use slab::Slab;

use crate::ids::Name;

/// An interned [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameId(u32);

#[derive(Debug, Default)]
pub(crate) struct Names {
    ids: BTreeMap<Name, NameId>,
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    users: usize,
}

impl Names {
    /// The name's id; one more user.
    pub(crate) fn acquire(&mut self, name: &Name) -> NameId {
        if let Some(&id) = self.ids.get(name) {
            self.entries[id.0 as usize].users += 1;
            return id;
        }
        let key = self.entries.insert(Entry {
            name: name.clone(),
            users: 1,
        });
        let id = NameId(u32::try_from(key).expect("limits keep names below 2^32"));
        self.ids.insert(name.clone(), id);
        id
    }

    /// One more user of a name that has some.
    pub(crate) fn share(&mut self, id: NameId) {
        self.entries[id.0 as usize].users += 1;
    }

    /// One user less.
    pub(crate) fn release(&mut self, id: NameId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.users -= 1;
        if entry.users == 0 {
            let entry = self.entries.remove(id.0 as usize);
            self.ids.remove(&entry.name);
        }
    }

    /// The name's id if it has users.
    pub(crate) fn find(&self, name: &Name) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    /// The name behind an id.
    pub(crate) fn get(&self, id: NameId) -> &Name {
        &self.entries[id.0 as usize].name
    }

    /// Users over all names, for [`crate::Core::check`].
    pub(crate) fn users(&self) -> usize {
        self.entries.iter().map(|(_, entry)| entry.users).sum()
    }
}
