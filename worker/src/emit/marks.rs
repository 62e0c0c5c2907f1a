//! Checkpoints that were sent: a broker that is restarted is told them again. Plain
//! data, no wire.

use std::collections::VecDeque;

use asynq_proto::v1::Checkpoint;

use crate::limits::{KEPT_CHECKPOINT_BYTES, KEPT_CHECKPOINTS};

/// As many as may be of use, in order.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<Checkpoint>);

impl Marks {
    /// One is sent, behind all others.
    pub(super) fn push(&mut self, checkpoint: Checkpoint) {
        self.0.pop_back_if(|last| last.index == checkpoint.index);
        self.0.push_back(checkpoint);
        while self.is_crowded() {
            // The reader passes the first before the others, and a run begins at the last.
            let gap = |&at: &usize| self.0[at + 1].index - self.0[at - 1].index;
            let Some(closest) = (1..self.0.len() - 1).min_by_key(gap) else {
                break;
            };
            self.0.remove(closest);
        }
    }

    fn is_crowded(&self) -> bool {
        let bytes = || self.0.iter().map(|it| it.token.len()).sum::<usize>();
        self.0.len() > KEPT_CHECKPOINTS || bytes() > KEPT_CHECKPOINT_BYTES
    }

    /// All items before `acked` are taken: of the checkpoints up to there the last is enough.
    pub(super) fn forget(&mut self, acked: u64) {
        while self.0.get(1).is_some_and(|second| second.index <= acked) {
            self.0.pop_front();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Checkpoint> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(index: u64, bytes: usize) -> Checkpoint {
        let token = vec![0; bytes].into();
        Checkpoint { index, token }
    }

    fn indexes(marks: &Marks) -> Vec<u64> {
        marks.iter().map(|it| it.index).collect()
    }

    #[test]
    fn few_are_kept_the_first_and_the_last_among_them() {
        let mut marks = Marks::default();
        (1..=100).for_each(|index| marks.push(mark(index, 1)));
        let kept = indexes(&marks);
        assert_eq!((kept.len(), kept[0], kept[7]), (KEPT_CHECKPOINTS, 1, 100));
        marks.forget(kept[3]);
        assert_eq!(indexes(&marks), kept[3..]);
        marks.forget(1_000);
        assert_eq!(indexes(&marks), [100], "the last that is taken stays");
        let mut marks = Marks::default();
        (1..=9).for_each(|index| marks.push(mark(index, KEPT_CHECKPOINT_BYTES / 4)));
        assert_eq!(marks.iter().count(), 4);
        let mut marks = Marks::default();
        (1..=9).for_each(|index| marks.push(mark(index, KEPT_CHECKPOINT_BYTES)));
        assert_eq!(indexes(&marks), [1, 9]);
    }
}
