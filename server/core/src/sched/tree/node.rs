//! What the tree is made of, and what a node offers its parent: for each worker
//! class the head that class would take, with its rank.

use std::collections::BTreeMap;

use crate::ids::{Niceness, Seq};
use crate::names::NameId;
use crate::sched::class::{ClassId, Classes, PerClass};
use crate::sched::fifo::Fifo;
use crate::sched::ordered::Ordered;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(super) u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node is to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edge {
    Queue(NameId),
    Series(NameId),
    Niceness(Niceness),
    Route(NameId),
}

/// Where a level's child stands for one class: the smallest is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) tag: u64,
    pub(super) niceness: Niceness,
    pub(super) seq: Seq,
    pub(super) node: NodeId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Fair,
    /// By order of acceptance alone.
    Fifo,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: Option<(NodeId, Edge)>,
    pub(super) base: u64,
    /// Its ranks in the parent's level; none while nobody can run it.
    pub(super) ranks: PerClass<Rank>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Level(Level),
    Lane {
        route: NameId,
        niceness: Niceness,
        fifo: Fifo,
    },
}

#[derive(Debug)]
pub(super) struct Level {
    pub(super) rule: Rule,
    pub(super) classes: PerClass<Turns>,
    /// The largest V there has been: where a new class starts.
    pub(super) v_max: u64,
    pub(super) children: BTreeMap<Edge, NodeId>,
}

/// Whose turn it is in a level, for one class.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The class's virtual time.
    pub(super) v: u64,
    /// The children it can run something of.
    pub(super) ranks: Ordered<Rank>,
}

impl Node {
    pub(super) fn level(&self) -> Option<&Level> {
        match &self.kind {
            Kind::Level(level) => Some(level),
            Kind::Lane { .. } => None,
        }
    }

    pub(super) fn level_mut(&mut self) -> Option<&mut Level> {
        match &mut self.kind {
            Kind::Level(level) => Some(level),
            Kind::Lane { .. } => None,
        }
    }

    /// Nothing waits below it.
    pub(super) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Level(level) => level.children.is_empty(),
            Kind::Lane { fifo, .. } => fifo.is_empty(),
        }
    }

    /// Calls `with` for each class that can run something here, in their order,
    /// with the first task it would take.
    pub(super) fn for_each_head(&self, classes: &Classes, mut with: impl FnMut(ClassId, Niceness, Seq)) {
        match &self.kind {
            Kind::Level(level) => {
                for (class, turns) in level.classes.iter() {
                    if let Some(rank) = turns.ranks.first() {
                        with(class, rank.niceness, rank.seq);
                    }
                }
            }
            Kind::Lane { route, niceness, fifo } => {
                if let Some((seq, _)) = fifo.front() {
                    classes
                        .serving(*route)
                        .iter()
                        .for_each(|&class| with(class, *niceness, seq));
                }
            }
        }
    }

    /// The ranks it is due in its parent, which is `level`, as node `id`; sets its
    /// base if it becomes runnable.
    pub(super) fn due(&mut self, id: NodeId, level: &Level, classes: &Classes) -> PerClass<Rank> {
        if self.ranks.is_empty() {
            let mut base: Option<u64> = None;
            self.for_each_head(classes, |class, _, _| {
                let start = level.start(class);
                base = Some(base.map_or(start, |base| base.min(start)));
            });
            self.base = base.unwrap_or(0);
        }
        let mut due = PerClass::default();
        self.for_each_head(classes, |class, niceness, seq| {
            let tag = match level.rule {
                Rule::Fair => self.base + niceness.cost(),
                Rule::Fifo => 0,
            };
            let rank = Rank {
                tag,
                niceness,
                seq,
                node: id,
            };
            due.push(class, rank);
        });
        due
    }
}

impl Level {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            classes: PerClass::default(),
            v_max: 0,
            children: BTreeMap::new(),
        }
    }

    /// Where a child that becomes runnable starts for a class: at its V; or, if
    /// the class has been busy or idle while others went on, where those that
    /// wait for it have got to.
    fn start(&self, class: ClassId) -> u64 {
        self.classes.get(class).map_or(0, |turns| {
            let first = turns.ranks.first();
            turns
                .v
                .max(first.map_or(0, |rank| rank.tag.saturating_sub(rank.niceness.cost())))
        })
    }

    /// The child a slot of `class` takes next, not charged for.
    pub(super) fn peek(&self, class: ClassId) -> Option<Rank> {
        self.classes.get(class)?.ranks.first().copied()
    }

    /// The child a slot of `class` takes, charged for: its rank, and its base
    /// from now on, which stays as it is where order is all.
    pub(super) fn serve(&mut self, class: ClassId) -> Option<(Rank, Option<u64>)> {
        let turns = self.classes.get_mut(class)?;
        let rank = *turns.ranks.first()?;
        if self.rule == Rule::Fifo {
            return Some((rank, None));
        }
        turns.v = turns.v.max(rank.tag);
        self.v_max = self.v_max.max(turns.v);
        let base = rank.tag.max(turns.v.saturating_sub(Niceness::MAX_COST));
        Some((rank, Some(base)))
    }

    /// A child that was ranked as `old` says is ranked as `new` says.
    pub(super) fn rank(&mut self, old: &PerClass<Rank>, new: &PerClass<Rank>) {
        let mut left = old.len();
        for (class, &rank) in new.iter() {
            let ranks = &mut self.classes.entry(class).ranks;
            match old.get(class) {
                None => ranks.insert(rank),
                Some(before) => {
                    ranks.replace(before, rank);
                    left -= 1;
                }
            }
        }
        if left > 0 {
            let gone = old.iter().filter(|&(class, _)| new.get(class).is_none());
            gone.for_each(|(class, rank)| self.classes.entry(class).ranks.remove(rank));
        }
    }
}
