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
//! step costs O(k log n) for k classes and n children. `node` is what the tree
//! is made of, `questions` what people ask of it.

mod check;
mod node;
mod questions;

use slab::Slab;

use crate::ids::{Niceness, Seq};
use crate::sched::TaskKey;
use crate::sched::class::{ClassId, Classes, PerClass};
use crate::sched::fifo::Fifo;
pub(crate) use node::Edge;
use node::{Kind, Level, Node, NodeId, Rule};

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
                    let (rank, base) = level.serve(class)?;
                    at = rank.node;
                    if let Some(base) = base {
                        self.node_mut(at).base = base;
                    }
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
                Kind::Level(level) => at = level.peek(class)?.node,
            }
        }
    }

    /// A class has come: it may run what waits for its routes.
    pub(crate) fn add_class(&mut self, class: ClassId, classes: &Classes) {
        let mut lanes = Vec::new();
        for (id, node) in &mut self.nodes {
            match &mut node.kind {
                Kind::Level(level) => level.classes.entry(class).v = level.v_max,
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
                level.classes.remove(class);
            }
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    fn level_mut(&mut self, id: NodeId) -> &mut Level {
        self.node_mut(id).level_mut().expect("lanes have no children")
    }

    fn find(&self, path: &[Edge]) -> Option<NodeId> {
        path.iter()
            .try_fold(self.root, |at, edge| self.node(at).level()?.children.get(edge).copied())
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
        while let Some((above, edge)) = self.node(at).parent {
            let (node, parent) = self
                .nodes
                .get2_mut(at.index(), above.index())
                .expect("a node has its parent");
            let level = parent.level_mut().expect("lanes have no children");
            let due = node.due(at, level, classes);
            let gone = node.is_empty();
            if due == node.ranks && !gone {
                return;
            }
            level.rank(&node.ranks, &due);
            node.ranks = due;
            if gone {
                level.children.remove(&edge);
                self.nodes.remove(at.index());
            }
            at = above;
        }
    }
}
