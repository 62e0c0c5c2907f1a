//! Items that travel together.

use bytes::Bytes;

use super::Place;

/// Consecutive items, laid end to end. Cheap to clone but for the lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemBatch {
    /// The index of the first.
    pub first_index: u64,
    /// The position of its first byte in all items laid end to end.
    pub first_byte: u64,
    /// The length of each.
    pub lengths: Vec<u32>,
    /// The items.
    pub data: Bytes,
    /// Media type of each; empty means `application/json`.
    pub content_type: Box<str>,
}

impl ItemBatch {
    /// The index behind its last item.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first_index + self.lengths.len() as u64
    }

    /// The position behind its last byte.
    #[must_use]
    pub fn end_byte(&self) -> u64 {
        self.first_byte + self.data.len() as u64
    }

    /// Its items, one by one.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        self.lengths.iter().map(move |&length| {
            let from = at;
            at += length as usize;
            &self.data[from..at]
        })
    }

    /// Its items from `index` on; `None` if there are none.
    #[must_use]
    pub fn from_index(&self, index: u64) -> Option<Self> {
        let skip = index.saturating_sub(self.first_index);
        if skip == 0 {
            return Some(self.clone());
        }
        let (_, rest) = self.clone().split(usize::try_from(skip).unwrap_or(usize::MAX));
        rest
    }

    /// Its first `count` items, and the others; `None` for a part without items.
    #[must_use]
    pub fn split(self, count: usize) -> (Option<Self>, Option<Self>) {
        if count == 0 {
            return (None, Some(self));
        }
        if count >= self.lengths.len() {
            return (Some(self), None);
        }
        let bytes: usize = self.lengths[..count].iter().map(|&length| length as usize).sum();
        let rest = Self {
            first_index: self.first_index + count as u64,
            first_byte: self.first_byte + bytes as u64,
            lengths: self.lengths[count..].to_vec(),
            data: self.data.slice(bytes..),
            content_type: self.content_type.clone(),
        };
        let mut first = self;
        first.lengths.truncate(count);
        first.data.truncate(bytes);
        (Some(first), Some(rest))
    }

    /// How many of its items lie within these limits.
    #[must_use]
    pub fn within(&self, limit_index: u64, limit_bytes: u64) -> usize {
        if self.end() <= limit_index && self.end_byte() <= limit_bytes {
            return self.lengths.len();
        }
        let items = limit_index.saturating_sub(self.first_index);
        let items = usize::try_from(items).unwrap_or(usize::MAX).min(self.lengths.len());
        let mut at = self.first_byte;
        let fits = |length: &&u32| {
            at += u64::from(**length);
            at <= limit_bytes
        };
        self.lengths[..items].iter().take_while(fits).count()
    }

    /// The place behind its items, of which this is the place before.
    pub(super) fn pass(&self, mut place: Place) -> Place {
        for item in self.items() {
            place.pass(item);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> ItemBatch {
        ItemBatch {
            first_index: 10,
            first_byte: 100,
            lengths: vec![1, 0, 3],
            data: Bytes::from_static(b"abcd"),
            content_type: "".into(),
        }
    }

    #[test]
    fn parts_lie_where_they_lay_in_the_whole() {
        let items: Vec<_> = batch().items().map(<[u8]>::to_vec).collect();
        assert_eq!(items, [&b"a"[..], b"", b"bcd"]);
        let (first, rest) = batch().split(2);
        let (first, rest) = (first.unwrap(), rest.unwrap());
        assert_eq!((first.end(), first.end_byte(), &first.data[..]), (12, 101, &b"a"[..]));
        assert_eq!(
            (rest.first_index, rest.first_byte, &rest.data[..]),
            (12, 101, &b"bcd"[..])
        );
        assert_eq!(batch().from_index(12), Some(rest));
        assert_eq!((batch().from_index(9), batch().from_index(13)), (Some(batch()), None));
    }

    #[test]
    fn limits_are_of_items_and_of_bytes() {
        for (items, bytes, within) in [
            (13, 104, 3),
            (12, 999, 2),
            (99, 103, 2),
            (99, 100, 0),
            (10, 999, 0),
            (3, 3, 0),
        ] {
            assert_eq!(batch().within(items, bytes), within, "{items} {bytes}");
        }
    }
}
