//! Worker classes: workers that may run the same tasks are one class, and fair
//! shares are kept per class.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use slab::Slab;
use smallvec::SmallVec;

use crate::ids::SessionId;
use crate::names::NameId;
use crate::sched::ordered::Ordered;

/// One class. Reused after its last worker has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassId(u32);

/// What a class may run. Until tasks can require labels, a route is a task name.
pub(crate) type Routes = BTreeSet<NameId>;

#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) routes: Routes,
    /// Sessions in it, connected or not.
    members: usize,
    /// Sessions with free slots, the freest first.
    free: Ordered<(Reverse<u32>, SessionId)>,
}

#[derive(Debug, Default)]
pub(crate) struct Classes {
    classes: Slab<Class>,
    by_routes: BTreeMap<Routes, ClassId>,
    /// The classes that may run a route, in order.
    by_route: BTreeMap<NameId, Vec<ClassId>>,
    /// Classes with a free slot.
    idle: Ordered<ClassId>,
}

impl Classes {
    /// The class that runs `routes`, with one more member; `true` if it is new.
    pub(crate) fn join(&mut self, routes: &Routes) -> (ClassId, bool) {
        if let Some(&id) = self.by_routes.get(routes) {
            self.classes[id.0 as usize].members += 1;
            return (id, false);
        }
        let key = self.classes.insert(Class {
            routes: routes.clone(),
            members: 1,
            free: Ordered::default(),
        });
        let id = ClassId(u32::try_from(key).expect("limits keep classes below 2^32"));
        self.by_routes.insert(routes.clone(), id);
        for &route in routes {
            let classes = self.by_route.entry(route).or_default();
            classes.insert(classes.partition_point(|&other| other < id), id);
        }
        (id, true)
    }

    /// One member less; `true` if it was the last and the class is gone.
    pub(crate) fn leave(&mut self, id: ClassId) -> bool {
        let class = &mut self.classes[id.0 as usize];
        class.members -= 1;
        if class.members > 0 {
            return false;
        }
        let class = self.classes.remove(id.0 as usize);
        self.by_routes.remove(&class.routes);
        self.idle.remove(&id);
        for route in &class.routes {
            let Some(classes) = self.by_route.get_mut(route) else {
                continue;
            };
            classes.retain(|&c| c != id);
            if classes.is_empty() {
                self.by_route.remove(route);
            }
        }
        true
    }

    /// A session of the class has `now` free slots; it had `before`.
    pub(crate) fn set_free(&mut self, id: ClassId, session: SessionId, before: u32, now: u32) {
        if before == now {
            return;
        }
        let free = &mut self.classes[id.0 as usize].free;
        let was_idle = !free.is_empty();
        match (before, now) {
            (0, _) => free.insert((Reverse(now), session)),
            (_, 0) => free.remove(&(Reverse(before), session)),
            (_, _) => free.replace(&(Reverse(before), session), (Reverse(now), session)),
        }
        match (was_idle, !free.is_empty()) {
            (false, true) => self.idle.insert(id),
            (true, false) => self.idle.remove(&id),
            (true, true) | (false, false) => {}
        }
    }

    /// The session of the class with the most free slots.
    pub(crate) fn freest(&self, id: ClassId) -> Option<SessionId> {
        self.classes[id.0 as usize].free.first().map(|&(_, session)| session)
    }

    /// The first class with a free slot, from `from` on.
    pub(crate) fn next_idle(&self, from: Option<ClassId>) -> Option<ClassId> {
        match from {
            None => self.idle.first().copied(),
            Some(last) => self.idle.after(&last).copied(),
        }
    }

    /// The classes that may run a route, in order.
    pub(crate) fn serving(&self, route: NameId) -> &[ClassId] {
        self.by_route.get(&route).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes.iter().map(|(key, class)| (ClassId(key as u32), class))
    }

    /// Free slots by session, for [`crate::Core::check`].
    pub(crate) fn free_slots(&self) -> BTreeMap<SessionId, u32> {
        let all = self.classes.iter().flat_map(|(_, class)| class.free.iter());
        all.map(|&(Reverse(free), session)| (session, free)).collect()
    }
}

/// A value per class, in their order. There are few, and most often one: the
/// workers of a cluster tend to be alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PerClass<T>(SmallVec<[(ClassId, T); 1]>);

impl<T> Default for PerClass<T> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T> PerClass<T> {
    fn find(&self, class: ClassId) -> Result<usize, usize> {
        match &self.0[..] {
            [(only, _)] if *only == class => Ok(0),
            all => all.binary_search_by_key(&class, |&(c, _)| c),
        }
    }

    pub(crate) fn get(&self, class: ClassId) -> Option<&T> {
        let at = self.find(class).ok()?;
        Some(&self.0[at].1)
    }

    pub(crate) fn get_mut(&mut self, class: ClassId) -> Option<&mut T> {
        let at = self.find(class).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Adds a value for a class that comes after all that are there.
    pub(crate) fn push(&mut self, class: ClassId, value: T) {
        debug_assert!(
            self.0.last().is_none_or(|&(last, _)| last < class),
            "classes come in order"
        );
        self.0.push((class, value));
    }

    pub(crate) fn remove(&mut self, class: ClassId) -> Option<T> {
        let at = self.find(class).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn entry(&mut self, class: ClassId) -> &mut T
    where
        T: Default,
    {
        let at = match self.find(class) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (class, T::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &T)> {
        self.0.iter().map(|(class, value)| (*class, value))
    }
}
