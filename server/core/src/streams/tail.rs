//! Items of a stream that has ended and that nobody has taken yet, as they are kept
//! with its end: packed into one value, and taken apart again.
//!
//! The packed form: for each batch the index of its first item and the position of
//! its first byte (8 bytes each), the length of its content type (4) and that, the
//! number of its items (4), the length of each (4), and the items. Little endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ItemBatch;
use crate::task::Payload;

/// The content type of a packed tail.
pub const ITEMS: &str = "application/vnd.asynq.items";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail(pub Vec<ItemBatch>);

impl Tail {
    /// As one value; `None` if there is nothing in it.
    #[must_use]
    pub fn pack(&self) -> Option<Payload> {
        if self.0.is_empty() {
            return None;
        }
        let size = |batch: &ItemBatch| 24 + batch.content_type.len() + 4 * batch.lengths.len() + batch.data.len();
        let mut data = BytesMut::with_capacity(self.0.iter().map(size).sum());
        for batch in &self.0 {
            data.put_u64_le(batch.first_index);
            data.put_u64_le(batch.first_byte);
            // Both far below 2³²: a batch is bounded.
            data.put_u32_le(batch.content_type.len() as u32);
            data.put_slice(batch.content_type.as_bytes());
            data.put_u32_le(batch.lengths.len() as u32);
            batch.lengths.iter().for_each(|&length| data.put_u32_le(length));
            data.put_slice(&batch.data);
        }
        Some(Payload {
            content_type: ITEMS.into(),
            data: data.freeze(),
        })
    }

    /// From the value, without a copy of the items; `None` if it is none.
    #[must_use]
    pub fn unpack(packed: &Payload) -> Option<Self> {
        if *packed.content_type != *ITEMS {
            return None;
        }
        let (mut rest, mut batches) = (packed.data.clone(), Vec::new());
        while rest.has_remaining() {
            batches.push(unpack(&mut rest)?);
        }
        Some(Self(batches))
    }
}

fn unpack(rest: &mut Bytes) -> Option<ItemBatch> {
    let first_index = rest.try_get_u64_le().ok()?;
    let first_byte = rest.try_get_u64_le().ok()?;
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

    fn batch() -> impl Strategy<Value = ItemBatch> {
        let items = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 1..6);
        (any::<u64>(), any::<u64>(), items, "[a-zß/]{0,6}").prop_map(
            |(first_index, first_byte, items, content_type)| ItemBatch {
                first_index,
                first_byte,
                lengths: items.iter().map(|item| item.len() as u32).collect(),
                data: items.concat().into(),
                content_type: content_type.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(batches in proptest::collection::vec(batch(), 1..5), cut in 1_usize..40) {
            let packed = Tail(batches.clone()).pack().unwrap();
            prop_assert_eq!(Tail::unpack(&packed), Some(Tail(batches.clone())));
            // Half of it is no tail, or one of whole batches.
            let short = packed.data.slice(..packed.data.len().saturating_sub(cut));
            let short = Payload { data: short, ..packed };
            if let Some(Tail(some)) = Tail::unpack(&short) {
                prop_assert!(some.len() < batches.len() && some[..] == batches[..some.len()]);
            }
        }

        #[test]
        fn nothing_that_is_no_tail_is_taken_for_one(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Tail::unpack(&Payload { content_type: ITEMS.into(), data: data.into() });
        }
    }
}
