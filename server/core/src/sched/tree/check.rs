//! The tree's own invariants, for tests.

use crate::sched::class::Classes;
use crate::sched::tree::Tree;
use crate::sched::tree::node::{Kind, NodeId};

impl Tree {
    /// Asserts that every rank is where it should be and every level knows its
    /// children's heads.
    pub(crate) fn check(&self, classes: &Classes) {
        let mut tasks = 0;
        for (id, node) in &self.nodes {
            let id = NodeId(id as u32);
            let Some((parent, edge)) = node.parent else { continue };
            let level = self.node(parent).level().expect("a lane has a child");
            assert_eq!(
                level.children.get(&edge),
                Some(&id),
                "{edge:?} is not its parent's child"
            );
            assert!(!node.is_empty(), "{edge:?} is empty and not forgotten");
            for (class, rank) in node.ranks.iter() {
                let turns = level.classes.get(class);
                let ranked = turns.is_some_and(|turns| turns.ranks.iter().any(|r| r == rank));
                assert!(ranked, "{rank:?} is not in its level");
            }
            if let Kind::Lane { fifo, .. } = &node.kind {
                tasks += fifo.len();
            }
            let mut heads = Vec::new();
            node.for_each_head(classes, |class, niceness, seq| heads.push((class, niceness, seq)));
            assert!(heads.is_sorted(), "classes are out of order");
            let offered: Vec<_> = node.ranks.iter().map(|(class, r)| (class, r.niceness, r.seq)).collect();
            assert_eq!(offered, heads, "{edge:?} offers something else than its heads");
        }
        assert_eq!(tasks, self.len, "the tree's length is off");
        for (_, node) in &self.nodes {
            let Some(level) = node.level() else { continue };
            let ranked: usize = level.classes.iter().map(|(_, turns)| turns.ranks.iter().count()).sum();
            let offered: usize = level
                .children
                .values()
                .map(|&child| self.node(child).ranks.iter().count())
                .sum();
            assert_eq!(ranked, offered, "a level ranks what nobody offers");
        }
    }
}
