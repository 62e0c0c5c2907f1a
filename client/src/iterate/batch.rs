//! Items as they travel: laid end to end, and taken apart without a copy.

use asynq_proto::{Payload, v1};

use crate::Error;

/// Consecutive items that have come together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    wire: v1::ItemBatch,
    /// How many have been taken.
    next: usize,
    /// Where the next one begins.
    at: usize,
}

impl Batch {
    /// Refuses one that is empty or does not add up.
    pub(super) fn new(wire: v1::ItemBatch) -> Result<Self, Error> {
        let bytes: u64 = wire.lengths.iter().copied().map(u64::from).sum();
        if wire.lengths.is_empty() || bytes != wire.data.len() as u64 {
            return Err(Error::unexpected("items of a stream that do not add up"));
        }
        Ok(Self { wire, next: 0, at: 0 })
    }

    pub(super) fn items(&self) -> u64 {
        self.wire.lengths.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.wire.data.len() as u64
    }
}

impl Iterator for Batch {
    type Item = Payload;

    fn next(&mut self) -> Option<Payload> {
        let length = *self.wire.lengths.get(self.next)? as usize;
        let data = self.wire.data.slice(self.at..self.at + length);
        (self.next, self.at) = (self.next + 1, self.at + length);
        Some(Payload::bytes(self.wire.content_type.as_str(), data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(lengths: &[u32], data: &'static [u8]) -> v1::ItemBatch {
        v1::ItemBatch {
            lengths: lengths.to_vec(),
            data: data.into(),
            content_type: "text/plain".to_owned(),
            ..v1::ItemBatch::default()
        }
    }

    #[test]
    fn items_come_apart_where_they_were_joined() {
        let batch = Batch::new(wire(&[1, 0, 3], b"abcd")).unwrap();
        assert_eq!((batch.items(), batch.bytes()), (3, 4));
        let items: Vec<_> = batch
            .map(|item| (item.content_type().to_owned(), item.into_data()))
            .collect();
        let expected = [&b"a"[..], b"", b"bcd"].map(|item| ("text/plain".to_owned(), item.into()));
        assert_eq!(items, expected);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        for lengths in [&[][..], &[3], &[5], &[u32::MAX, 5], &[2, 1]] {
            assert!(Batch::new(wire(lengths, b"abcd")).is_err(), "{lengths:?}");
        }
    }
}
