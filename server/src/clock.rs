//! The broker's clock: the wall clock as it was at the start, carried on by a
//! clock that counts suspend and is never set. Wall-clock jumps while the
//! broker runs change nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_core::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Tells the time. Never steps back.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// How long the machine has been up, suspend included: what tells a process
    /// that it did not run for a while. A clock that is set by hand says
    /// nothing of that.
    fn up(&self) -> Duration {
        read(ClockId::Boottime)
    }
}

/// The clock a broker runs on.
#[derive(Debug)]
pub struct SystemClock {
    wall_at_open: Timestamp,
    boot_at_open: Duration,
}

impl SystemClock {
    /// Reads the wall clock, for the only time.
    #[must_use]
    pub fn new() -> Self {
        let wall = read(ClockId::Realtime);
        Self {
            wall_at_open: Timestamp::ZERO + wall,
            boot_at_open: read(ClockId::Boottime),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.wall_at_open + read(ClockId::Boottime).saturating_sub(self.boot_at_open)
    }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // Both are negative only before 1970 or before the boot.
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that reads `start`.
    #[must_use]
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicU64::new(start.as_micros()))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Another clock, set forward so that it begins no earlier than the latest
/// time the store knows: a wall clock set back while the broker was down must
/// not make finished work lie in the future.
#[derive(Debug)]
pub(crate) struct ClampedClock<C> {
    inner: C,
    ahead: Duration,
}

impl<C: Clock> ClampedClock<C> {
    pub(crate) fn new(inner: C, latest: Timestamp) -> Self {
        let ahead = latest.since(inner.now());
        Self { inner, ahead }
    }

    /// How far it is ahead of the other clock.
    pub(crate) fn ahead(&self) -> Duration {
        self.ahead
    }
}

impl<C: Clock> Clock for ClampedClock<C> {
    fn now(&self) -> Timestamp {
        self.inner.now() + self.ahead
    }

    fn up(&self) -> Duration {
        self.inner.up()
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn up(&self) -> Duration {
        (**self).up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_reads_this_century_and_goes_on() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(first > Timestamp::from_millis(1_700_000_000_000));
        let mut later = clock.now();
        while later == first {
            later = clock.now();
        }
        assert!(later > first);
        assert!(later.since(first) < Duration::from_mins(1));
    }

    #[test]
    fn a_clock_set_back_begins_at_the_latest_known_time_and_goes_on() {
        let hour = Duration::from_hours(1);
        let clock = ClampedClock::new(
            ManualClock::new(Timestamp::from_millis(1_000)),
            Timestamp::from_millis(1_000) + hour,
        );
        assert_eq!(clock.ahead(), hour);
        assert_eq!(clock.now(), Timestamp::from_millis(1_000) + hour);
        clock.inner.advance(hour);
        assert_eq!(clock.now(), Timestamp::from_millis(1_000) + 2 * hour);
        assert_eq!(ClampedClock::new(clock, Timestamp::ZERO).ahead(), Duration::ZERO);
    }
}
