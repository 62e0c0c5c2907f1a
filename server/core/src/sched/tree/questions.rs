//! What people ask of the tree: who waits where. Dispatch asks none of it.

use crate::ids::Seq;
use crate::sched::TaskKey;
use crate::sched::tree::Tree;
use crate::sched::tree::node::{Edge, Kind, NodeId};

/// What waits below a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) tasks: usize,
    pub(crate) min_cost: u64,
    pub(crate) max_cost: u64,
}

impl Tree {
    /// The runnable children of the level at `path`: edge, tasks waiting below, the
    /// smallest and the largest cost among their lanes.
    pub(crate) fn siblings(&self, path: &[Edge]) -> impl Iterator<Item = (Edge, Share)> {
        let level = self.find(path).and_then(|id| self.node(id).level());
        level
            .into_iter()
            .flat_map(|level| &level.children)
            .filter(|&(_, &child)| !self.node(child).ranks.is_empty())
            .map(|(&edge, &child)| (edge, self.share(child)))
    }

    /// How many wait before `seq` in the lanes of the level at `path`, at most.
    pub(crate) fn ahead_in_order(&self, path: &[Edge], seq: Seq) -> usize {
        let Some(level) = self.find(path).and_then(|id| self.node(id).level()) else {
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
}
