//! Where all chance comes from: SplitMix64, spelled out here so that a seed means
//! the same for ever.

use std::ops::Range;
use std::time::Duration;

/// A stream of numbers that its seed decides.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as the seed has them.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for a part of the world, so that what one part draws
    /// does not change what another does.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends: no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Evenly from a range that is not empty.
    pub fn int(&mut self, range: Range<u64>) -> u64 {
        let span = range.end - range.start;
        range.start + ((u128::from(self.next()) * u128::from(span)) >> 64) as u64
    }

    /// A place among so many, which is at least one.
    pub fn index(&mut self, len: usize) -> usize {
        self.int(0..len as u64) as usize
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.int(0..1000) < per_mille
    }

    /// Evenly from a range that is not empty, in microseconds.
    pub fn time(&mut self, range: Range<Duration>) -> Duration {
        Duration::from_micros(self.int(range.start.as_micros() as u64..range.end.as_micros() as u64))
    }

    /// Mostly near the beginning of the range, at times far out: each tenfold
    /// stretch of it is as likely as the next.
    pub fn long_tailed(&mut self, range: Range<Duration>) -> Duration {
        let (low, high) = (range.start.as_micros().max(1) as u64, range.end.as_micros() as u64);
        let mut most = high;
        while most / 10 > low && self.chance(600) {
            most /= 10;
        }
        Duration::from_micros(self.int(low..most.max(low + 1)))
    }

    /// Any 16 bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        bytes
    }
}

/// A number that looks like chance and is decided by its input.
#[must_use]
pub const fn mix(input: u64) -> u64 {
    let mut z = input;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A fingerprint of bytes (FNV-1a, mixed).
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    mix(bytes.iter().fold(0xCBF2_9CE4_8422_2325, fold))
}
