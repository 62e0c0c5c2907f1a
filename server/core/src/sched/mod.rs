//! Which task runs next: chosen when a slot is free, never earlier.

mod class;
mod fifo;
mod ordered;
mod tree;

use std::collections::BTreeMap;

use class::Classes;
pub(crate) use class::{ClassId, Routes};
use tree::{Edge, Tree};

use crate::ids::{Niceness, Seq, SessionId};
use crate::names::NameId;
use crate::task::Placement;

/// Where the core keeps a task while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskKey(pub(crate) u32);

impl TaskKey {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the scheduler needs to know of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) key: TaskKey,
    pub(crate) seq: Seq,
    pub(crate) queue: NameId,
    pub(crate) series: NameId,
    pub(crate) route: NameId,
    pub(crate) niceness: Niceness,
    pub(crate) placement: Placement,
}

/// Tasks that wait for a slot, and the slots that are free.
#[derive(Debug)]
pub(crate) struct Scheduler {
    classes: Classes,
    next: Tree,
    fair: Tree,
    last: Tree,
    /// A task or a slot has come since the last [`Scheduler::pair`] found none.
    changed: bool,
}

impl Scheduler {
    pub(crate) fn new() -> Self {
        Self {
            classes: Classes::default(),
            next: Tree::fifo(),
            fair: Tree::fair(),
            last: Tree::fifo(),
            changed: false,
        }
    }

    /// A task waits from now on.
    pub(crate) fn insert(&mut self, task: &Waiting) {
        self.changed = true;
        let classes = &self.classes;
        match task.placement {
            Placement::Fair => self
                .fair
                .insert(&fair_path(task), task.niceness, task.seq, task.key, classes),
            Placement::Next => self
                .next
                .insert(&fifo_path(task), Niceness::default(), task.seq, task.key, classes),
            Placement::Last => self
                .last
                .insert(&fifo_path(task), Niceness::default(), task.seq, task.key, classes),
        }
    }

    /// A task waits no longer, without being run.
    pub(crate) fn remove(&mut self, task: &Waiting) -> bool {
        match task.placement {
            Placement::Fair => self.fair.remove(&fair_path(task), task.seq, &self.classes),
            Placement::Next => self.next.remove(&fifo_path(task), task.seq, &self.classes),
            Placement::Last => self.last.remove(&fifo_path(task), task.seq, &self.classes),
        }
    }

    /// Pairs the next task with a free slot, until one or the other is used up.
    pub(crate) fn pair(&mut self) -> Option<(TaskKey, SessionId)> {
        if !self.changed {
            return None;
        }
        let mut class = None;
        while let Some(id) = self.classes.next_idle(class) {
            class = Some(id);
            let Some(session) = self.classes.freest(id) else {
                continue;
            };
            let trees = [&mut self.next, &mut self.fair, &mut self.last];
            if let Some(key) = trees.into_iter().find_map(|tree| tree.pop(id, &self.classes)) {
                return Some((key, session));
            }
        }
        self.changed = false;
        None
    }

    /// A worker that may run `routes` has come.
    pub(crate) fn join(&mut self, routes: &Routes) -> ClassId {
        let (id, new) = self.classes.join(routes);
        if new {
            for tree in [&mut self.next, &mut self.fair, &mut self.last] {
                tree.add_class(id, &self.classes);
            }
        }
        id
    }

    /// A worker of the class has gone; its free slots have been taken back.
    pub(crate) fn leave(&mut self, id: ClassId) {
        if self.classes.leave(id) {
            for tree in [&mut self.next, &mut self.fair, &mut self.last] {
                tree.remove_class(id);
            }
        }
    }

    /// A session has `now` free slots; it had `before`.
    pub(crate) fn set_free(&mut self, class: ClassId, session: SessionId, before: u32, now: u32) {
        self.changed |= now > before;
        self.classes.set_free(class, session, before, now);
    }

    /// Whether some worker may run the route.
    pub(crate) fn is_served(&self, route: NameId) -> bool {
        !self.classes.serving(route).is_empty()
    }

    /// Whether the task is the next of some class that may run it.
    pub(crate) fn is_head(&self, task: &Waiting) -> bool {
        let head = |&class: &ClassId| {
            [&self.next, &self.fair, &self.last]
                .into_iter()
                .find_map(|tree| tree.peek(class))
                == Some(task.key)
        };
        self.classes.serving(task.route).iter().any(head)
    }

    /// How many tasks can be started before this one, at most, later arrivals
    /// of other series included (semantics §4, "Waiting"). Holds while workers
    /// stay as they are and nothing comes in with `do_next`.
    pub(crate) fn ahead_of(&self, task: &Waiting) -> Ahead {
        match task.placement {
            Placement::Next => {
                let own = self.next.ahead_in_order(&[], task.seq);
                Ahead {
                    in_series: own,
                    bound: Some(own),
                }
            }
            Placement::Last => {
                let own = self.last.ahead_in_order(&[], task.seq);
                Ahead {
                    in_series: own,
                    bound: None,
                }
            }
            Placement::Fair => {
                let path = fair_path(task);
                let in_series = self.fair.ahead_in_order(&path[..3], task.seq);
                let bound = (0..3)
                    .rev()
                    .fold(in_series, |ahead, depth| self.ahead_at(&path, depth, ahead));
                Ahead {
                    in_series,
                    bound: Some(bound + self.next.len()),
                }
            }
        }
    }

    /// With `ahead` tasks before it in the child it is in, how many are before
    /// it in the level at `depth`: of each other child ⌊k·c/c_j⌋ + 1, where k is
    /// its place and c the cost of each.
    fn ahead_at(&self, path: &[Edge], depth: usize, ahead: usize) -> usize {
        let (mut own, mut others) = (1, Vec::new());
        for (edge, share) in self.fair.siblings(&path[..depth]) {
            if edge == path[depth] {
                own = share.max_cost;
            } else {
                others.push(share);
            }
        }
        let place = ahead as u64 + 1;
        ahead
            + others
                .iter()
                .map(|other| (place.saturating_mul(own) / other.min_cost.max(1)) as usize + 1)
                .sum::<usize>()
    }

    /// Every waiting task, for [`crate::Core::check`].
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        self.next.iter().chain(self.fair.iter()).chain(self.last.iter())
    }

    /// The first task of every lane.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        self.next.heads().chain(self.fair.heads()).chain(self.last.heads())
    }

    /// Free slots by session, for [`crate::Core::check`].
    pub(crate) fn free_slots(&self) -> BTreeMap<SessionId, u32> {
        self.classes.free_slots()
    }

    /// Asserts the scheduler's own invariants, and that no task waits beside a
    /// free slot that could run it.
    pub(crate) fn check(&self) {
        for tree in [&self.next, &self.fair, &self.last] {
            tree.check(&self.classes);
            for (id, class) in self.classes.iter() {
                assert!(
                    !class.routes.is_empty() || tree.peek(id).is_none(),
                    "a class without routes has a head"
                );
                if self.classes.freest(id).is_some() {
                    assert_eq!(tree.peek(id), None, "a task waits beside a free slot that could run it");
                }
            }
        }
    }
}

/// How far from its turn a task is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    /// Before it by order of acceptance: same series and niceness, or all of
    /// `do_next` or `do_last`.
    pub(crate) in_series: usize,
    /// Before it in all, at most; `None` where anything may pass it.
    pub(crate) bound: Option<usize>,
}

fn fair_path(task: &Waiting) -> [Edge; 4] {
    [
        Edge::Queue(task.queue),
        Edge::Series(task.series),
        Edge::Niceness(task.niceness),
        Edge::Route(task.route),
    ]
}

fn fifo_path(task: &Waiting) -> [Edge; 1] {
    [Edge::Route(task.route)]
}
