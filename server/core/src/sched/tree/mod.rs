//! The tree that shares slots out: queues, in them series, in them nicenesses,
//! in them first-in-first-out lanes by route. One rule holds at every fair
//! level (self-clocked fair queueing, semantics §4):
//!
//! - a level keeps a virtual time V per worker class;
//! - a child's tag is its base plus the cost of its head; a slot of class w
//!   takes the smallest tag among the heads w may run, ties by niceness, then
//!   by order of acceptance;
//! - then V of w becomes max(V, tag), and the child's base max(tag, V − the
//!   largest cost);
//! - a child that becomes runnable starts at the smallest V of the classes that
//!   may run it, where a class whose V has fallen behind those that wait for it
//!   counts as far as they are (docs/adr/0007).
//!
//! Each level holds its children's heads in one ordered set per class, so a
//! step costs O(k log n) for k classes and n children.

use std::collections::{BTreeMap, BTreeSet};

use slab::Slab;

use crate::ids::{Niceness, Seq};
use crate::names::NameId;
use crate::sched::TaskKey;
use crate::sched::class::{ClassId, Classes, Few, PerClass};
use crate::sched::fifo::Fifo;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

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
pub(crate) struct Rank {
    tag: u64,
    niceness: Niceness,
    seq: Seq,
    node: NodeId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Fair,
    /// By order of acceptance alone.
    Fifo,
}

#[derive(Debug)]
struct Node {
    parent: Option<(NodeId, Edge)>,
    base: u64,
    /// Its ranks in the parent's index; none while nobody can run it.
    ranks: PerClass<Rank>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Level(Level),
    Lane {
        route: NameId,
        niceness: Niceness,
        fifo: Fifo,
    },
}

#[derive(Debug)]
struct Level {
    rule: Rule,
    v: PerClass<u64>,
    /// The largest V there has been: where a new class starts.
    v_max: u64,
    children: BTreeMap<Edge, NodeId>,
    index: PerClass<BTreeSet<Rank>>,
}

impl Level {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            v: PerClass::default(),
            v_max: 0,
            children: BTreeMap::new(),
            index: PerClass::default(),
        }
    }

    fn v(&self, class: ClassId) -> u64 {
        self.v.get(class).copied().unwrap_or(0)
    }

    /// Where a child that becomes runnable starts for a class: at its V; or, if
    /// the class has been busy or idle while others went on, where those that
    /// wait for it have got to.
    fn start(&self, class: ClassId) -> u64 {
        let first = self.index.get(class).and_then(BTreeSet::first);
        self.v(class)
            .max(first.map_or(0, |rank| rank.tag.saturating_sub(rank.niceness.cost())))
    }

    /// What the level offers its parent: the first rank of each class.
    fn heads(&self) -> impl Iterator<Item = (ClassId, Niceness, Seq)> {
        self.index
            .iter()
            .filter_map(|(class, ranks)| ranks.first().map(|rank| (class, rank.niceness, rank.seq)))
    }
}

/// One tree. The scheduler has three: `do_next`, fair, `do_last`.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Slab<Node>,
    root: NodeId,
    len: usize,
}

impl Tree {
    /// A tree of lanes served by order of acceptance.
    pub(crate) fn fifo() -> Self {
        Self::new(Rule::Fifo)
    }

    /// A tree of queues served fairly.
    pub(crate) fn fair() -> Self {
        Self::new(Rule::Fair)
    }

    fn new(rule: Rule) -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node {
            parent: None,
            base: 0,
            ranks: PerClass::default(),
            kind: Kind::Level(Level::new(rule)),
        });
        Self {
            nodes,
            root: NodeId(root as u32),
            len: 0,
        }
    }

    /// Tasks that wait in the tree.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts a task into the lane at the end of `path`, whose last edge is its route.
    pub(crate) fn insert(&mut self, path: &[Edge], niceness: Niceness, seq: Seq, key: TaskKey, classes: &Classes) {
        let lane = self.lane(path, niceness);
        let Kind::Lane { fifo, .. } = &mut self.node_mut(lane).kind else {
            unreachable!("paths end in lanes")
        };
        fifo.insert(seq, key);
        let is_head = fifo.front().is_some_and(|(front, _)| front == seq);
        self.len += 1;
        if is_head {
            self.refresh(lane, classes);
        }
    }

    /// Takes a task out, wherever it stands. Whether it was there.
    pub(crate) fn remove(&mut self, path: &[Edge], seq: Seq, classes: &Classes) -> bool {
        let Some(lane) = self.find(path) else { return false };
        let Kind::Lane { fifo, .. } = &mut self.node_mut(lane).kind else {
            unreachable!("paths end in lanes")
        };
        let was_head = fifo.front().is_some_and(|(front, _)| front == seq);
        if !fifo.remove(seq) {
            return false;
        }
        self.len -= 1;
        if was_head {
            self.refresh(lane, classes);
        }
        true
    }

    /// Takes the task a free slot of `class` is to run, and charges for it.
    pub(crate) fn pop(&mut self, class: ClassId, classes: &Classes) -> Option<TaskKey> {
        let mut at = self.root;
        let key = loop {
            match &mut self.node_mut(at).kind {
                Kind::Lane { fifo, .. } => break fifo.pop_front()?,
                Kind::Level(level) => {
                    let rank = *level.index.get(class)?.first()?;
                    if level.rule == Rule::Fair {
                        let v = level.v(class).max(rank.tag);
                        level.v.insert(class, v);
                        level.v_max = level.v_max.max(v);
                        self.node_mut(rank.node).base = rank.tag.max(v.saturating_sub(Niceness::MAX_COST));
                    }
                    at = rank.node;
                }
            }
        };
        self.len -= 1;
        self.refresh(at, classes);
        Some(key)
    }

    /// The task a free slot of `class` would take.
    pub(crate) fn peek(&self, class: ClassId) -> Option<TaskKey> {
        let mut at = self.root;
        loop {
            match &self.node(at).kind {
                Kind::Lane { fifo, .. } => return fifo.front().map(|(_, key)| key),
                Kind::Level(level) => at = level.index.get(class)?.first()?.node,
            }
        }
    }

    /// A class has come: it may run what waits for its routes.
    pub(crate) fn add_class(&mut self, class: ClassId, classes: &Classes) {
        let mut lanes = Vec::new();
        for (id, node) in &mut self.nodes {
            match &mut node.kind {
                Kind::Level(level) => level.v.insert(class, level.v_max),
                Kind::Lane { route, .. } if classes.serving(*route).contains(&class) => lanes.push(NodeId(id as u32)),
                Kind::Lane { .. } => {}
            }
        }
        for lane in lanes {
            self.refresh(lane, classes);
        }
    }

    /// A class has gone.
    pub(crate) fn remove_class(&mut self, class: ClassId) {
        for (_, node) in &mut self.nodes {
            node.ranks.remove(class);
            if let Kind::Level(level) = &mut node.kind {
                level.index.remove(class);
                level.v.remove(class);
            }
        }
    }

    /// The runnable children of the level at `path`: edge, tasks waiting below, the
    /// smallest and the largest cost among their lanes.
    pub(crate) fn siblings(&self, path: &[Edge]) -> impl Iterator<Item = (Edge, Share)> {
        let level = self.find(path).and_then(|id| match &self.node(id).kind {
            Kind::Level(level) => Some(level),
            Kind::Lane { .. } => None,
        });
        level
            .into_iter()
            .flat_map(|level| &level.children)
            .filter(|&(_, &child)| !self.node(child).ranks.is_empty())
            .map(|(&edge, &child)| (edge, self.share(child)))
    }

    /// How many wait before `seq` in the lanes of the level at `path`, at most.
    pub(crate) fn ahead_in_order(&self, path: &[Edge], seq: Seq) -> usize {
        let Some(Kind::Level(level)) = self.find(path).map(|id| &self.node(id).kind) else {
            return 0;
        };
        let ahead = |&lane: &NodeId| match &self.node(lane).kind {
            Kind::Lane { fifo, .. } if !self.node(lane).ranks.is_empty() => fifo.ahead_of(seq),
            // Nobody can run it, so it is in nobody's way.
            Kind::Lane { .. } | Kind::Level(_) => 0,
        };
        level.children.values().map(ahead).sum()
    }

    fn share(&self, id: NodeId) -> Share {
        match &self.node(id).kind {
            Kind::Lane { niceness, fifo, .. } => Share {
                tasks: fifo.len(),
                min_cost: niceness.cost(),
                max_cost: niceness.cost(),
            },
            Kind::Level(level) => level.children.values().map(|&child| self.share(child)).fold(
                Share {
                    tasks: 0,
                    min_cost: u64::MAX,
                    max_cost: 0,
                },
                |a, b| Share {
                    tasks: a.tasks + b.tasks,
                    min_cost: a.min_cost.min(b.min_cost),
                    max_cost: a.max_cost.max(b.max_cost),
                },
            ),
        }
    }

    /// The first task of every lane.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        self.nodes.iter().filter_map(|(_, node)| match &node.kind {
            Kind::Lane { fifo, .. } => fifo.front(),
            Kind::Level(_) => None,
        })
    }

    /// Every waiting task, for [`crate::Core::check`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, TaskKey)> {
        self.nodes.iter().flat_map(|(_, node)| {
            match &node.kind {
                Kind::Lane { fifo, .. } => Some(fifo.iter()),
                Kind::Level(_) => None,
            }
            .into_iter()
            .flatten()
        })
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    fn level_mut(&mut self, id: NodeId) -> &mut Level {
        match &mut self.node_mut(id).kind {
            Kind::Level(level) => level,
            Kind::Lane { .. } => unreachable!("lanes have no children"),
        }
    }

    fn find(&self, path: &[Edge]) -> Option<NodeId> {
        path.iter().try_fold(self.root, |at, edge| match &self.node(at).kind {
            Kind::Level(level) => level.children.get(edge).copied(),
            Kind::Lane { .. } => None,
        })
    }

    /// The lane at the end of `path`, made if it is not there.
    fn lane(&mut self, path: &[Edge], niceness: Niceness) -> NodeId {
        let mut at = self.root;
        for &edge in path {
            at = match self.level_mut(at).children.get(&edge) {
                Some(&child) => child,
                None => self.add_child(at, edge, niceness),
            };
        }
        at
    }

    fn add_child(&mut self, parent: NodeId, edge: Edge, niceness: Niceness) -> NodeId {
        let kind = match edge {
            Edge::Queue(_) | Edge::Series(_) => Kind::Level(Level::new(Rule::Fair)),
            Edge::Niceness(_) => Kind::Level(Level::new(Rule::Fifo)),
            Edge::Route(route) => Kind::Lane {
                route,
                niceness,
                fifo: Fifo::default(),
            },
        };
        let node = Node {
            parent: Some((parent, edge)),
            base: 0,
            ranks: PerClass::default(),
            kind,
        };
        let child = NodeId(u32::try_from(self.nodes.insert(node)).expect("limits keep nodes below 2^32"));
        self.level_mut(parent).children.insert(edge, child);
        child
    }

    /// Puts right what a node offers its ancestors, after its head or its base
    /// has changed. Forgets nodes that have become empty.
    fn refresh(&mut self, from: NodeId, classes: &Classes) {
        let mut at = from;
        while let Some((parent, edge)) = self.node(at).parent {
            let ranks = self.ranks(at, parent, classes);
            let old = std::mem::replace(&mut self.node_mut(at).ranks, ranks.clone());
            if self.is_empty(at) {
                self.level_mut(parent).children.remove(&edge);
                self.nodes.remove(at.0 as usize);
            } else if old == ranks {
                return;
            }
            let level = self.level_mut(parent);
            // The new ones first: a set that never runs empty keeps its memory.
            for (class, &rank) in ranks.iter() {
                level.index.entry(class).insert(rank);
            }
            for (class, rank) in old.iter() {
                if ranks.get(class) != Some(rank) {
                    level.index.entry(class).remove(rank);
                }
            }
            at = parent;
        }
    }

    /// The ranks `id` is due in its parent; sets its base if it becomes runnable.
    fn ranks(&mut self, id: NodeId, parent: NodeId, classes: &Classes) -> PerClass<Rank> {
        let node = self.node(id);
        let heads: Few<(ClassId, Niceness, Seq)> = match &node.kind {
            Kind::Level(level) => level.heads().collect(),
            Kind::Lane { route, niceness, fifo } => fifo.front().map_or_else(Few::new, |(seq, _)| {
                classes
                    .serving(*route)
                    .iter()
                    .map(|&class| (class, *niceness, seq))
                    .collect()
            }),
        };
        let Kind::Level(level) = &self.node(parent).kind else {
            unreachable!("lanes have no children")
        };
        let rule = level.rule;
        let base = if node.ranks.is_empty() {
            heads.iter().map(|&(class, ..)| level.start(class)).min().unwrap_or(0)
        } else {
            node.base
        };
        self.node_mut(id).base = base;
        let rank = |(class, niceness, seq): (ClassId, Niceness, Seq)| {
            let tag = match rule {
                Rule::Fair => base + niceness.cost(),
                Rule::Fifo => 0,
            };
            (
                class,
                Rank {
                    tag,
                    niceness,
                    seq,
                    node: id,
                },
            )
        };
        heads.into_iter().map(rank).collect()
    }

    fn is_empty(&self, id: NodeId) -> bool {
        match &self.node(id).kind {
            Kind::Level(level) => level.children.is_empty(),
            Kind::Lane { fifo, .. } => fifo.len() == 0,
        }
    }

    /// Asserts that every rank is where it should be and every level knows its
    /// children's heads.
    pub(crate) fn check(&self, classes: &Classes) {
        let mut tasks = 0;
        for (id, node) in &self.nodes {
            let id = NodeId(id as u32);
            let Some((parent, edge)) = node.parent else { continue };
            let Kind::Level(level) = &self.node(parent).kind else {
                panic!("a lane has a child")
            };
            assert_eq!(
                level.children.get(&edge),
                Some(&id),
                "{edge:?} is not its parent's child"
            );
            assert!(!self.is_empty(id), "{edge:?} is empty and not forgotten");
            for (class, rank) in node.ranks.iter() {
                assert!(
                    level.index.get(class).is_some_and(|ranks| ranks.contains(rank)),
                    "{rank:?} is not indexed"
                );
            }
            let heads: Vec<_> = match &node.kind {
                Kind::Level(level) => level.heads().collect(),
                Kind::Lane { route, niceness, fifo } => {
                    tasks += fifo.len();
                    let (seq, _) = fifo.front().expect("not empty");
                    classes
                        .serving(*route)
                        .iter()
                        .map(|&class| (class, *niceness, seq))
                        .collect()
                }
            };
            let mut offered: Vec<_> = node.ranks.iter().map(|(class, r)| (class, r.niceness, r.seq)).collect();
            let mut heads = heads;
            heads.sort_unstable();
            offered.sort_unstable();
            assert_eq!(offered, heads, "{edge:?} offers something else than its heads");
        }
        assert_eq!(tasks, self.len, "the tree's length is off");
        for (_, node) in &self.nodes {
            let Kind::Level(level) = &node.kind else { continue };
            let ranked: usize = level.index.iter().map(|(_, ranks)| ranks.len()).sum();
            let offered: usize = level
                .children
                .values()
                .map(|&child| self.node(child).ranks.iter().count())
                .sum();
            assert_eq!(ranked, offered, "a level ranks what nobody offers");
        }
    }
}

/// What waits below a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) tasks: usize,
    pub(crate) min_cost: u64,
    pub(crate) max_cost: u64,
}
