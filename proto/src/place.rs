//! Places in a stream of items, and the digest by which two sides know that they
//! have read the same.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::v1::StreamPosition;

/// A place in a stream: before item `index`.
///
/// What is known of all items before it is a digest: that of the beginning is 0,
/// that behind an item is the XXH3-64 hash of the item's bytes, seeded with the
/// digest before it.
///
/// ```
/// use asynq_proto::Place;
///
/// let (mut one, mut other) = (Place::START, Place::START);
/// for item in ["a", "bc"] {
///     one.pass(item.as_bytes());
/// }
/// for item in ["ab", "c"] {
///     other.pass(item.as_bytes());
/// }
/// assert_eq!((one.index, one.byte), (2, 3));
/// assert_ne!(one.digest, other.digest, "the same bytes, cut elsewhere");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The item it lies before.
    pub index: u64,
    /// Bytes of all items before it.
    pub byte: u64,
    /// Of all items before it; `None` where nobody knows it.
    pub digest: Option<u64>,
    /// The digest one item earlier.
    pub before: Option<u64>,
}

impl Place {
    /// Where a stream begins.
    pub const START: Self = Self {
        index: 0,
        byte: 0,
        digest: Some(0),
        before: None,
    };

    /// Goes on behind an item.
    pub fn pass(&mut self, item: &[u8]) {
        self.index += 1;
        self.byte += item.len() as u64;
        self.before = self.digest;
        self.digest = self.digest.map(|digest| digest_after(digest, item));
    }
}

/// The digest behind an item, from the digest before it.
#[must_use]
pub fn digest_after(digest: u64, item: &[u8]) -> u64 {
    xxh3_64_with_seed(item, digest)
}

impl From<Place> for StreamPosition {
    fn from(place: Place) -> Self {
        Self {
            index: place.index,
            byte: place.byte,
            digest: place.digest,
            digest_before_last: place.before,
        }
    }
}

impl From<StreamPosition> for Place {
    fn from(wire: StreamPosition) -> Self {
        Self {
            index: wire.index,
            byte: wire.byte,
            digest: wire.digest,
            before: wire.digest_before_last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broker, worker and caller may be of different versions.
    #[test]
    fn digests_stay_as_they_are() {
        let mut place = Place::START;
        let mut seen = vec![];
        for item in [&b""[..], b"{\"i\":0}", &[7; 300]] {
            place.pass(item);
            seen.push(place.digest.unwrap());
        }
        assert_eq!(
            seen,
            [0x2d06_8005_38d3_94c2, 0x9419_b05a_a604_0f55, 0x16e5_b987_54bb_16d7],
            "{seen:x?}"
        );
        assert_eq!((place.index, place.byte, place.before), (3, 307, Some(seen[1])));
        assert_eq!(Place::from(StreamPosition::from(place)), place);
    }
}
