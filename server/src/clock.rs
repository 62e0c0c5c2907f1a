//! The broker's clock: the wall clock as it was at the start, carried on by a
//! clock that counts suspend and is never set. Wall-clock jumps while the
//! broker runs change nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_core::Timestamp;
use asynq_store::Belief;
use rtime_clock::adjtime::{Timex, adjtimex};
use rustix::time::{ClockId, clock_gettime};

use crate::limits::MAX_STEP;

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

    /// Who says that it is right, which matters at the open only. Of a clock that is
    /// set by hand, who sets it.
    fn standing(&self) -> Standing {
        Standing::Synchronised
    }
}

/// Who says that a clock is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The kernel: somebody keeps it in step with others.
    Synchronised,
    /// Nobody.
    Unsynchronised,
    /// Who runs the broker: `--trust-clock`.
    Trusted,
}

/// What a machine knows of the time.
pub trait Machine: fmt::Debug + Send + Sync {
    /// The wall clock, which may be set at any time.
    fn wall(&self) -> Timestamp;

    /// How long the machine has been up, suspend included.
    fn up(&self) -> Duration;

    /// Whether somebody keeps the wall clock in step with others.
    fn is_synchronised(&self) -> bool;
}

/// The machine the process runs on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kernel;

impl Machine for Kernel {
    fn wall(&self) -> Timestamp {
        Timestamp::ZERO + read(ClockId::Realtime)
    }

    fn up(&self) -> Duration {
        read(ClockId::Boottime)
    }

    fn is_synchronised(&self) -> bool {
        // linux/timex.h
        const STA_UNSYNC: i32 = 0x40;
        let mut state = Timex::new();
        // A sandbox that forbids the question keeps the answer from us: no.
        adjtimex(&mut state).is_ok_and(|_| state.0.status & STA_UNSYNC == 0)
    }
}

/// The clock a broker runs on.
#[derive(Debug)]
pub struct SystemClock<M = Kernel> {
    machine: M,
    wall_at_open: Timestamp,
    up_at_open: Duration,
    standing: Standing,
}

impl SystemClock {
    /// Reads the wall clock, for the only time.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Kernel)
    }
}

impl<M: Machine> SystemClock<M> {
    /// [`SystemClock::new`], of another machine.
    #[must_use]
    pub fn of(machine: M) -> Self {
        let standing = if machine.is_synchronised() {
            Standing::Synchronised
        } else {
            Standing::Unsynchronised
        };
        Self {
            wall_at_open: machine.wall(),
            up_at_open: machine.up(),
            standing,
            machine,
        }
    }

    /// With the word of who runs the broker, if it is given, that the time is right.
    #[must_use]
    pub fn trusted(mut self, trusted: bool) -> Self {
        if trusted {
            self.standing = Standing::Trusted;
        }
        self
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> Clock for SystemClock<M> {
    fn now(&self) -> Timestamp {
        self.wall_at_open + self.machine.up().saturating_sub(self.up_at_open)
    }

    fn up(&self) -> Duration {
        self.machine.up()
    }

    fn standing(&self) -> Standing {
        self.standing
    }
}

/// What a clock is worth that shows `now` where a store knows of times up to `latest`.
pub(crate) fn judge(latest: Timestamp, now: Timestamp, standing: Standing) -> Belief {
    match standing {
        Standing::Trusted => Belief::Trusted,
        Standing::Unsynchronised if latest > Timestamp::ZERO && now.since(latest) > MAX_STEP => Belief::Doubted,
        Standing::Synchronised | Standing::Unsynchronised => Belief::Believed,
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

    #[cfg(test)]
    fn ahead(&self) -> Duration {
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

    fn standing(&self) -> Standing {
        self.inner.standing()
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn up(&self) -> Duration {
        (**self).up()
    }

    fn standing(&self) -> Standing {
        (**self).standing()
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

    /// Whatever the kernel says of the clock here: it is asked, and trust goes before.
    #[test]
    fn who_runs_the_broker_has_the_last_word() {
        let asked = SystemClock::new().standing();
        let of = |synchronised| {
            if synchronised {
                Standing::Synchronised
            } else {
                Standing::Unsynchronised
            }
        };
        assert_eq!(asked, of(Kernel.is_synchronised()));
        assert_eq!(SystemClock::new().trusted(false).standing(), asked);
        assert_eq!(SystemClock::new().trusted(true).standing(), Standing::Trusted);
    }

    #[test]
    fn a_long_step_that_nobody_vouches_for_is_doubted() {
        let (latest, week) = (Timestamp::from_millis(1_000), Duration::from_hours(7 * 24));
        let more = week + Duration::from_millis(1);
        for (latest, step, standing, belief) in [
            (latest, week, Standing::Unsynchronised, Belief::Believed),
            (latest, more, Standing::Unsynchronised, Belief::Doubted),
            (latest, more, Standing::Synchronised, Belief::Believed),
            (latest, more, Standing::Trusted, Belief::Trusted),
            (latest, Duration::ZERO, Standing::Trusted, Belief::Trusted),
            // A new store knows of no time.
            (Timestamp::ZERO, more, Standing::Unsynchronised, Belief::Believed),
        ] {
            assert_eq!(judge(latest, latest + step, standing), belief, "{step:?} {standing:?}");
        }
        assert_eq!(
            judge(latest, Timestamp::ZERO, Standing::Unsynchronised),
            Belief::Believed
        );
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
