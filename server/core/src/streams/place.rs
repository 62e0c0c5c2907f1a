//! Places in a stream, and the digest of all before them.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A place in a stream: before item `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The item it lies before.
    pub index: u64,
    /// Bytes of all items before it.
    pub byte: u64,
    /// Of all items before it: that of the beginning is 0, that behind an item is
    /// the XXH3-64 hash of its bytes, seeded with the digest before it. `None`
    /// where nobody knows it.
    pub digest: Option<u64>,
    /// The digest one item earlier.
    pub before: Option<u64>,
}

impl Default for Place {
    fn default() -> Self {
        Self::START
    }
}

impl Place {
    /// Where a stream begins.
    pub const START: Self = Self {
        index: 0,
        byte: 0,
        digest: Some(0),
        before: None,
    };

    /// A place of which only the index is known; bytes are counted from there.
    #[must_use]
    pub const fn at_index(index: u64) -> Self {
        if index == 0 {
            return Self::START;
        }
        Self {
            index,
            byte: 0,
            digest: None,
            before: None,
        }
    }

    /// Goes on behind an item.
    pub fn pass(&mut self, item: &[u8]) {
        self.index += 1;
        self.byte += item.len() as u64;
        self.before = self.digest;
        self.digest = self.digest.map(|digest| xxh3_64_with_seed(item, digest));
    }

    /// Whether nothing speaks against both being the same place of the same stream.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        self.index == other.index
            && match (self.digest, other.digest) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            }
    }
}
