//! Writes the fields of protocol buffers. Prost does it too, a byte at a time
//! and from a message that would have to be filled first.

use std::ops::RangeInclusive;

/// The end of what has been written. Fields that hold nothing are left out,
/// unless they are `optional`.
pub(in crate::codec) struct Fields<'a>(pub(in crate::codec) &'a mut Vec<u8>);

/// The field of a body that holds nothing, and is skipped.
const ROOM: u32 = 100;
/// Bytes it may take: two for its key, one for its length, and so many.
pub(in crate::codec) const ROOM_FIELD_BYTES: RangeInclusive<usize> = 3..=130;

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;

impl Fields<'_> {
    #[inline]
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.optional(field, (value != 0).then_some(value));
    }

    #[inline]
    pub(super) fn optional(&mut self, field: u32, value: Option<u64>) {
        if let Some(value) = value {
            self.key(field, VARINT);
            self.varint(value);
        }
    }

    /// As `sint32`: small in both directions.
    #[inline]
    pub(super) fn signed(&mut self, field: u32, value: i32) {
        self.number(field, u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()));
    }

    #[inline]
    pub(super) fn fixed(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, FIXED_64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    #[inline]
    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    #[inline]
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.key(field, LENGTH_DELIMITED);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    /// A field of [`ROOM_FIELD_BYTES`] that hold nothing.
    pub(in crate::codec) fn room(&mut self, field_bytes: usize) {
        self.key(ROOM, LENGTH_DELIMITED);
        let length = field_bytes - ROOM_FIELD_BYTES.start();
        self.varint(length as u64);
        self.0.resize(self.0.len() + length, 0);
    }

    /// Its length is known once it is written: room for a short one is left,
    /// and a long one moves what has been written.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Fields<'_>)) {
        self.key(field, LENGTH_DELIMITED);
        let at = self.0.len();
        self.0.push(0);
        write(&mut Fields(self.0));
        let (length, bytes) = varint((self.0.len() - at - 1) as u64);
        if bytes == 1 {
            self.0[at] = length[0];
        } else {
            self.0.splice(at..=at, length.into_iter().take(bytes));
        }
    }

    #[inline]
    fn key(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    #[inline]
    fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.0.push(value as u8);
        } else {
            let (bytes, length) = varint(value);
            self.0.extend_from_slice(&bytes[..length]);
        }
    }
}

/// Seven bits a byte, the lowest first; how many bytes that makes.
#[inline]
fn varint(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut last = 0;
    while value >= 0x80 {
        bytes[last] = value as u8 | 0x80;
        value >>= 7;
        last += 1;
    }
    bytes[last] = value as u8;
    (bytes, last + 1)
}
