//! What is kept of a stream that has ended: where what nobody has acknowledged
//! begins, and that. It is packed into one value, and taken apart again.
//!
//! The packed form: the index where it begins and the position of that byte (8 bytes
//! each); then for each batch the length of its content type (4) and that, the number
//! of its items (4), the length of each (4), and the items. Little endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{ItemBatch, Place};
use crate::effect::Refusal;
use crate::ids::TaskId;
use crate::task::{Outcome, Payload};

/// The content type of a packed tail.
pub const ITEMS: &str = "application/vnd.asynq.items";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    index: u64,
    byte: u64,
    batches: Vec<ItemBatch>,
}

impl Tail {
    /// What is kept from that place on.
    pub(super) fn new(floor: Place, batches: Vec<ItemBatch>) -> Self {
        Self {
            index: floor.index,
            byte: floor.byte,
            batches,
        }
    }

    /// Of a stream of which nothing is to be read: for who wants to go on there.
    #[must_use]
    pub fn nothing(from: Place) -> Self {
        Self::new(from, Vec::new())
    }

    /// The items, in order.
    #[must_use]
    pub fn batches(&self) -> &[ItemBatch] {
        &self.batches
    }

    /// What a reader gets of it who wants items from a place on, and where they begin;
    /// or why it gets nothing, of a task that ended so.
    ///
    /// # Errors
    /// If the items are gone, or there are none that far.
    pub fn read(&self, task: TaskId, outcome: &Outcome, from: Place) -> Result<(Place, Vec<ItemBatch>), Refusal> {
        let end = self.batches.last();
        let (head, head_byte) = end.map_or((self.index, self.byte), |end| (end.end(), end.end_byte()));
        if from.index < self.index {
            let floor = self.index;
            return Err(Refusal::BelowFloor { task, floor });
        }
        // What a broker had that was restarted before the task died, its reader may
        // have had as well.
        if from.index > head && *outcome == Outcome::Succeeded {
            return Err(Refusal::BeyondHead { task, head });
        }
        let wanted = |batch: &ItemBatch| batch.from_index(from.index);
        let wanted: Vec<_> = self.batches.iter().filter_map(wanted).collect();
        let byte = match wanted.first() {
            Some(first) => first.first_byte,
            None if from.index == head => head_byte,
            None => from.byte,
        };
        Ok((Place { byte, ..from }, wanted))
    }

    /// As one value.
    #[must_use]
    pub fn pack(&self) -> Payload {
        let size = |batch: &ItemBatch| 8 + batch.content_type.len() + 4 * batch.lengths.len() + batch.data.len();
        let mut data = BytesMut::with_capacity(16 + self.batches.iter().map(size).sum::<usize>());
        data.put_u64_le(self.index);
        data.put_u64_le(self.byte);
        for batch in &self.batches {
            // Both far below 2³²: a batch is bounded.
            data.put_u32_le(batch.content_type.len() as u32);
            data.put_slice(batch.content_type.as_bytes());
            data.put_u32_le(batch.lengths.len() as u32);
            batch.lengths.iter().for_each(|&length| data.put_u32_le(length));
            data.put_slice(&batch.data);
        }
        Payload {
            content_type: ITEMS.into(),
            data: data.freeze(),
        }
    }

    /// From the value, without a copy of the items; `None` if it is none.
    #[must_use]
    pub fn unpack(packed: &Payload) -> Option<Self> {
        if *packed.content_type != *ITEMS {
            return None;
        }
        let mut rest = packed.data.clone();
        let (index, byte) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
        let (mut at, mut batches) = ((index, byte), Vec::new());
        while rest.has_remaining() {
            let batch = unpack(&mut rest, at)?;
            at = (batch.end(), batch.end_byte());
            batches.push(batch);
        }
        Some(Self { index, byte, batches })
    }
}

fn unpack(rest: &mut Bytes, (first_index, first_byte): (u64, u64)) -> Option<ItemBatch> {
    let bytes = rest.try_get_u32_le().ok()? as usize;
    let content_type = (bytes <= rest.len()).then(|| rest.split_to(bytes))?;
    let content_type = str::from_utf8(&content_type).ok()?.into();
    let count = rest.try_get_u32_le().ok()? as usize;
    if count > rest.len() / 4 {
        return None;
    }
    let lengths: Vec<u32> = (0..count).map(|_| rest.get_u32_le()).collect();
    let bytes: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    let bytes = usize::try_from(bytes).ok().filter(|&bytes| bytes <= rest.len())?;
    // What is written here was counted; what is not must not overflow.
    first_index.checked_add(count as u64)?;
    first_byte.checked_add(bytes as u64)?;
    Some(ItemBatch {
        first_index,
        first_byte,
        lengths,
        data: rest.split_to(bytes),
        content_type,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::DeadReason;

    fn items() -> impl Strategy<Value = (Vec<Vec<u8>>, String)> {
        let items = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 1..6);
        (items, "[a-zß/]{0,6}")
    }

    fn tail(index: u64, byte: u64, batches: Vec<(Vec<Vec<u8>>, String)>) -> Tail {
        let mut at = (index, byte);
        let lay = |(items, content_type): (Vec<Vec<u8>>, String)| {
            let batch = ItemBatch {
                first_index: at.0,
                first_byte: at.1,
                lengths: items.iter().map(|item| item.len() as u32).collect(),
                data: items.concat().into(),
                content_type: content_type.into(),
            };
            at = (batch.end(), batch.end_byte());
            batch
        };
        let batches = batches.into_iter().map(lay).collect();
        Tail { index, byte, batches }
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            index in 0..u64::MAX / 2,
            byte in 0..u64::MAX / 2,
            batches in proptest::collection::vec(items(), 0..5),
            cut in 1_usize..40,
        ) {
            let tail = tail(index, byte, batches);
            let packed = tail.pack();
            prop_assert_eq!(Tail::unpack(&packed), Some(tail.clone()));
            // Half of it is no tail, or one of whole batches.
            let short = packed.data.slice(..packed.data.len().saturating_sub(cut));
            if let Some(some) = Tail::unpack(&Payload { data: short, ..packed }) {
                let n = some.batches.len();
                prop_assert!(n < tail.batches.len() && some.batches[..] == tail.batches[..n]);
            }
        }

        #[test]
        fn nothing_that_is_no_tail_is_taken_for_one(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Tail::unpack(&Payload { content_type: ITEMS.into(), data: data.into() });
        }
    }

    #[test]
    fn who_wants_what_is_gone_or_never_was_is_told() {
        let task = TaskId([1; 16]);
        let tail = tail(3, 30, vec![(vec![vec![0; 10]; 2], String::new())]);
        let read = |outcome, index| {
            let read = tail.read(task, &outcome, Place::at_index(index));
            read.map(|(at, batches)| {
                (
                    at.index,
                    at.byte,
                    batches.iter().map(|batch| batch.lengths.len()).sum::<usize>(),
                )
            })
        };
        let below = Err(Refusal::BelowFloor { task, floor: 3 });
        let beyond = Err(Refusal::BeyondHead { task, head: 5 });
        assert_eq!(read(Outcome::Succeeded, 2), below);
        assert_eq!(read(Outcome::Succeeded, 3), Ok((3, 30, 2)));
        assert_eq!(read(Outcome::Succeeded, 4), Ok((4, 40, 1)));
        assert_eq!(read(Outcome::Succeeded, 5), Ok((5, 50, 0)));
        assert_eq!(read(Outcome::Succeeded, 6), beyond);
        let dead = || Outcome::Dead(DeadReason::Error);
        assert_eq!((read(dead(), 2), read(dead(), 6)), (below, Ok((6, 0, 0))));
    }
}
