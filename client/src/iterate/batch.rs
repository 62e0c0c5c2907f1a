//! Items as they travel: laid end to end, and taken apart without a copy.

use asynq_proto::{Payload, Place, digest_after, v1};

use crate::Error;

/// Consecutive items that have come together.
#[derive(Debug)]
pub(super) struct Batch {
    wire: v1::ItemBatch,
    /// How many have been taken.
    next: usize,
    /// Where the next one begins.
    at: usize,
    /// Before the next one.
    place: Place,
    /// The digest behind each item; empty where that before the first is not known.
    digests: Vec<u64>,
}

impl Batch {
    /// No items, at a place.
    pub(super) fn none(place: Place) -> Self {
        Self {
            wire: v1::ItemBatch::default(),
            next: 0,
            at: 0,
            place,
            digests: Vec::new(),
        }
    }

    /// Items that begin at `place`. Refuses a batch that is empty, begins elsewhere
    /// or does not add up.
    pub(super) fn new(wire: v1::ItemBatch, place: Place) -> Result<Self, Error> {
        if (wire.first_index, wire.first_byte) != (place.index, place.byte) {
            return Err(Error::unexpected("items of a stream that do not follow on"));
        }
        let bytes: u64 = wire.lengths.iter().copied().map(u64::from).sum();
        if wire.lengths.is_empty() || bytes != wire.data.len() as u64 {
            return Err(Error::unexpected("items of a stream that do not add up"));
        }
        let digests = place.digest.map_or_else(Vec::new, |digest| digests(&wire, digest));
        Ok(Self {
            wire,
            next: 0,
            at: 0,
            place,
            digests,
        })
    }

    /// The place before the next item.
    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// The place behind the last item.
    pub(super) fn end(&self) -> Place {
        let left = self.wire.lengths.len() - self.next;
        let last = self.digests.len().checked_sub(2);
        Place {
            index: self.place.index + left as u64,
            byte: self.place.byte + (self.wire.data.len() - self.at) as u64,
            digest: self.digests.last().copied().or(self.place.digest),
            before: match (left, last) {
                (0, _) => self.place.before,
                // The last item is the first one, too.
                (_, None) => self.place.digest,
                (_, Some(last)) => self.digests.get(last).copied(),
            },
        }
    }

    /// Leaves out all items before `index`.
    pub(super) fn skip_to(&mut self, index: u64) {
        while self.place.index < index && self.step().is_some() {}
    }

    /// Goes on behind the next item, and says where in the data that lies.
    fn step(&mut self) -> Option<(usize, usize)> {
        let (from, length) = (self.at, *self.wire.lengths.get(self.next)? as usize);
        self.place = Place {
            index: self.place.index + 1,
            byte: self.place.byte + length as u64,
            digest: self.digests.get(self.next).copied(),
            before: self.place.digest,
        };
        (self.next, self.at) = (self.next + 1, from + length);
        Some((from, self.at))
    }
}

fn digests(wire: &v1::ItemBatch, mut digest: u64) -> Vec<u64> {
    let mut rest = &wire.data[..];
    let behind = wire.lengths.iter().map(|&length| {
        let (item, behind) = rest.split_at(length as usize);
        rest = behind;
        digest = digest_after(digest, item);
        digest
    });
    behind.collect()
}

impl Iterator for Batch {
    type Item = Payload;

    fn next(&mut self) -> Option<Payload> {
        let (from, to) = self.step()?;
        let data = self.wire.data.slice(from..to);
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
        let batch = Batch::new(wire(&[1, 0, 3], b"abcd"), Place::START).unwrap();
        assert_eq!((batch.end().index, batch.end().byte), (3, 4));
        let items: Vec<_> = batch
            .map(|item| (item.content_type().to_owned(), item.into_data()))
            .collect();
        let expected = [&b"a"[..], b"", b"bcd"].map(|item| ("text/plain".to_owned(), item.into()));
        assert_eq!(items, expected);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        for lengths in [&[][..], &[3], &[5], &[u32::MAX, 5], &[2, 1]] {
            assert!(Batch::new(wire(lengths, b"abcd"), Place::START).is_err(), "{lengths:?}");
        }
        for elsewhere in [(1, 0), (0, 1)] {
            let (index, byte) = elsewhere;
            let place = Place {
                index,
                byte,
                ..Place::START
            };
            assert!(Batch::new(wire(&[4], b"abcd"), place).is_err(), "{elsewhere:?}");
        }
    }

    #[test]
    fn places_are_those_of_the_items_one_by_one() {
        for known in [true, false] {
            let mut place = Place::START;
            place.digest = place.digest.filter(|_| known);
            let mut batch = Batch::new(wire(&[1, 0, 3], b"abcd"), place).unwrap();
            let mut end = place;
            for item in [&b"a"[..], b"", b"bcd"] {
                end.pass(item);
            }
            assert_eq!(batch.end(), end);
            place.pass(b"a");
            assert!(batch.next().is_some());
            assert_eq!((batch.place(), batch.end()), (place, end));
            batch.skip_to(2);
            place.pass(b"");
            assert_eq!((batch.place(), batch.end()), (place, end));
            batch.skip_to(9);
            assert_eq!((batch.place(), batch.end()), (end, end));
            assert!(batch.next().is_none());
        }
        assert_eq!(Batch::none(Place::START).end(), Place::START);
    }
}
