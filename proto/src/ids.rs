//! Making task ids: UUIDv7 on the broker's clock, rising within one maker.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;
use uuid::{Builder, Uuid};

/// Bits of an id that are neither time, version nor variant.
const TAIL_BITS: u32 = 74;
/// Two ids of the same millisecond are at most this far apart, so that
/// nobody guesses the neighbours of an id and the tail does not run over.
const MAX_STEP: u64 = 1 << 32;
/// How far ids may run ahead of the broker's clock, to keep rising when it is
/// set back. Brokers refuse five minutes.
const MAX_AHEAD_MS: u64 = 60_000;

/// Makes task ids.
///
/// An id carries the broker's time, because the broker forgets ids by their
/// age: a caller whose clock is an hour off would otherwise make ids that are
/// refused as too old or too new. [`IdMaker::sync`] takes the broker's time
/// from every welcome.
#[derive(Debug)]
pub struct IdMaker {
    /// The broker's time (since the Unix epoch), and when it was so.
    broker: Duration,
    at: Instant,
    last_ms: u64,
    tail: u128,
    rng: Rng,
}

impl IdMaker {
    /// A maker that knows that the broker's clock reads `now_us` now.
    pub fn new(now_us: u64) -> Self {
        Self {
            broker: Duration::from_micros(now_us),
            at: Instant::now(),
            last_ms: 0,
            tail: 0,
            rng: Rng::new(),
        }
    }

    /// The broker's clock reads `now_us` now. Should it have been set back by
    /// more than a minute, ids follow it: rising ids matter less than ids the
    /// broker takes.
    pub fn sync(&mut self, now_us: u64) {
        self.broker = Duration::from_micros(now_us);
        self.at = Instant::now();
        if self.last_ms > now_us / 1000 + MAX_AHEAD_MS {
            self.last_ms = 0;
        }
    }

    /// The broker's time, since the Unix epoch.
    pub fn broker_now(&self) -> Duration {
        self.broker + self.at.elapsed()
    }

    /// A new id, larger than all before.
    pub fn make(&mut self) -> Uuid {
        let now_ms = u64::try_from(self.broker_now().as_millis()).unwrap_or(u64::MAX);
        if now_ms > self.last_ms {
            self.restart(now_ms);
        } else {
            self.tail += u128::from(self.rng.u64(1..=MAX_STEP));
            if self.tail >> TAIL_BITS != 0 {
                self.restart(self.last_ms + 1);
            }
        }
        Builder::from_unix_timestamp_millis(self.last_ms, &tail_bytes(self.tail)).into_uuid()
    }

    fn restart(&mut self, ms: u64) {
        self.last_ms = ms;
        // One bit short of the whole, to leave room for counting up.
        self.tail = self.rng.u128(..) >> (128 - TAIL_BITS + 1);
    }
}

/// Spreads the tail over the bytes around the version and variant bits.
fn tail_bytes(tail: u128) -> [u8; 10] {
    const LOW_BITS: u32 = 62;
    let high = (tail >> LOW_BITS) as u16;
    let low = (tail & ((1 << LOW_BITS) - 1)) as u64;
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&high.to_be_bytes());
    bytes[2..].copy_from_slice(&low.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_700_000_000_123_456;

    fn ms(id: Uuid) -> u64 {
        let (secs, nanos) = id.get_timestamp().unwrap().to_unix();
        secs * 1000 + u64::from(nanos) / 1_000_000
    }

    #[tokio::test(start_paused = true)]
    async fn ids_rise_within_a_millisecond() {
        let mut maker = IdMaker::new(NOW_US);
        let ids: Vec<_> = (0..100_000).map(|_| maker.make()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!(ids.iter().all(|id| id.get_variant() == uuid::Variant::RFC4122));
        assert_eq!(ms(ids[0]), NOW_US / 1000);
        assert_eq!(ms(ids[99_999]), NOW_US / 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn ids_follow_the_brokers_clock_both_ways() {
        let mut maker = IdMaker::new(NOW_US);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(ms(maker.make()), NOW_US / 1000 + 5000);
        let before = maker.make();
        maker.sync(NOW_US);
        assert!(maker.make() > before);
        maker.sync(NOW_US - 60_000_000);
        assert_eq!(ms(maker.make()), NOW_US / 1000 - 60_000);
    }

    #[test]
    fn a_full_tail_borrows_the_next_millisecond() {
        let mut maker = IdMaker::new(0);
        maker.last_ms = u64::MAX >> 16;
        maker.last_ms -= 2;
        maker.tail = (1 << TAIL_BITS) - 1;
        let last_ms = maker.last_ms;
        assert_eq!(ms(maker.make()), last_ms + 1);
    }

    #[test]
    fn makers_do_not_share_a_sequence() {
        let (mut a, mut b) = (IdMaker::new(NOW_US), IdMaker::new(NOW_US));
        assert_ne!(a.make(), b.make());
    }
}
