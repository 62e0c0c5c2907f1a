//! Items that were sent and are not acknowledged: where an Emit broke, the next
//! one begins with them. Plain data, no wire.

use std::collections::VecDeque;

use asynq_proto::Place;
use asynq_proto::v1::{Checkpoint, ItemBatch};

use super::marks::Marks;

/// Batches end to end. They are within the reader's window, and so is the memory
/// they take.
#[derive(Debug)]
pub(super) struct Kept {
    /// Each with the place it begins at.
    batches: VecDeque<(Place, ItemBatch)>,
    /// Behind the last of them.
    head: Place,
    /// Checkpoints, none behind the head.
    marks: Marks,
}

impl Kept {
    pub(super) fn new(start: Place) -> Self {
        Self {
            batches: VecDeque::new(),
            head: start,
            marks: Marks::default(),
        }
    }

    /// A batch that begins at the head is sent; `head` is behind it.
    pub(super) fn push(&mut self, batch: ItemBatch, head: Place) {
        self.batches.push_back((self.head, batch));
        self.head = head;
    }

    /// A checkpoint at the head or before it is sent.
    pub(super) fn mark(&mut self, checkpoint: Checkpoint) {
        self.marks.push(checkpoint);
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// All items before `acked` are taken. What is left of a batch stays with the rest of it.
    pub(super) fn forget(&mut self, acked: u64) {
        while self.batches.front().is_some_and(|(_, batch)| end(batch) <= acked) {
            self.batches.pop_front();
        }
        self.marks.forget(acked);
    }

    /// The first item that is still here.
    pub(super) fn floor(&self) -> Place {
        self.batches.front().map_or(self.head, |(place, _)| *place)
    }

    /// Behind the last item that was sent.
    pub(super) fn head(&self) -> Place {
        self.head
    }

    /// All items from this one on; `None` if it is not here, nor the next to come.
    pub(super) fn from(&self, index: u64) -> Option<impl Iterator<Item = ItemBatch>> {
        let here = (self.floor().index..=self.head.index).contains(&index);
        let behind = move |(_, batch): &&(Place, ItemBatch)| end(batch) > index;
        here.then(|| {
            self.batches
                .iter()
                .filter(behind)
                .map(move |(_, batch)| cut(batch, index))
        })
    }
}

/// One past its last item.
fn end(batch: &ItemBatch) -> u64 {
    batch.first_index + batch.lengths.len() as u64
}

/// The batch without its items before `index`. The data is shared.
fn cut(batch: &ItemBatch, index: u64) -> ItemBatch {
    let skipped = index.saturating_sub(batch.first_index);
    let (before, lengths) = batch.lengths.split_at(skipped as usize);
    let bytes = before.iter().map(|length| u64::from(*length)).sum::<u64>();
    ItemBatch {
        first_index: batch.first_index + skipped,
        first_byte: batch.first_byte + bytes,
        lengths: lengths.to_vec(),
        data: batch.data.slice(bytes as usize..),
        content_type: batch.content_type.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The item of this index, which none other is like.
    fn item(index: u64) -> Vec<u8> {
        let length = index % 5;
        (0..length).map(|i| (index * 7 + i) as u8).collect()
    }

    fn batch(at: &mut Place, count: u64) -> ItemBatch {
        let first = *at;
        let mut lengths = vec![];
        let mut data = vec![];
        for index in first.index..first.index + count {
            let item = item(index);
            at.pass(&item);
            lengths.push(item.len() as u32);
            data.extend(item);
        }
        ItemBatch {
            first_index: first.index,
            first_byte: first.byte,
            lengths,
            data: data.into(),
            content_type: "a".into(),
        }
    }

    /// What happens to a stream.
    #[derive(Debug, Clone)]
    enum Step {
        Send(u64),
        Ack(prop::sample::Index),
        /// Cut off, and gone on with from somewhere.
        Resume(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1..6_u64).prop_map(Step::Send),
            2 => any::<prop::sample::Index>().prop_map(Step::Ack),
            2 => any::<prop::sample::Index>().prop_map(Step::Resume),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn from_anywhere_each_item_comes_once_and_in_order(steps in steps(), start in 0..3_u64) {
            let mut begin = Place::START;
            batch(&mut begin, start);
            let mut head = begin;
            let mut kept = Kept::new(begin);
            let mut acked = start;
            for step in steps {
                match step {
                    Step::Send(count) => {
                        let batch = batch(&mut head, count);
                        kept.push(batch, head);
                    }
                    Step::Ack(at) => {
                        acked += at.index((head.index - acked) as usize + 1) as u64;
                        kept.forget(acked);
                    }
                    Step::Resume(at) => {
                        let from = acked + at.index((head.index - acked) as usize + 1) as u64;
                        let mut place = Place::START;
                        batch(&mut place, from);
                        for again in kept.from(from).expect("it is kept") {
                            prop_assert_eq!((again.first_index, again.first_byte), (place.index, place.byte));
                            prop_assert!(!again.lengths.is_empty());
                            prop_assert_eq!(&again.content_type, "a");
                            let same = batch(&mut place, again.lengths.len() as u64);
                            prop_assert_eq!((again.lengths, again.data), (same.lengths, same.data));
                        }
                        prop_assert_eq!(place.index, head.index);
                    }
                }
                // Nothing is kept for nothing, nor lost.
                let floor = kept.floor();
                prop_assert!(floor.index <= acked || floor == head);
                prop_assert!(kept.batches.front().is_none_or(|(_, batch)| end(batch) > acked));
                let mut same = Place::START;
                batch(&mut same, floor.index);
                prop_assert_eq!(floor, same);
                prop_assert_eq!(kept.head(), head);
                prop_assert!(kept.from(head.index + 1).is_none());
                prop_assert!(floor.index == 0 || kept.from(floor.index - 1).is_none());
            }
        }
    }
}
