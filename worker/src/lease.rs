//! How long the worker may go on without a word from the broker.

use std::collections::VecDeque;
use std::time::Duration;

use asynq_proto::v1::WorkWelcome;
use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspend included: a laptop that slept past its lease must
/// notice, and the monotonic clock would not tell.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// A session's lease. It counts from when the last *acknowledged* heartbeat was
/// sent: the broker got it no earlier than that.
#[derive(Debug)]
pub(crate) struct Lease {
    /// What the broker named: lease less margin.
    usable: Duration,
    counts_from: Duration,
    beats: VecDeque<(u64, Duration)>,
    last_beat: u64,
    last_acked: u64,
}

impl Lease {
    /// A lease from a welcome that answers a hello sent at `hello_sent`.
    pub(crate) fn new(welcome: &WorkWelcome, hello_sent: Duration) -> Self {
        Self {
            usable: Duration::from_millis(welcome.lease_ms.saturating_sub(welcome.margin_ms)),
            counts_from: hello_sent,
            beats: VecDeque::new(),
            last_beat: 0,
            last_acked: 0,
        }
    }

    /// A heartbeat goes out now; says its number. Unacknowledged ones pile up
    /// for no longer than the lease lasts.
    pub(crate) fn beat(&mut self, now: Duration) -> u64 {
        self.last_beat += 1;
        self.beats.push_back((self.last_beat, now));
        self.last_beat
    }

    /// The broker has read heartbeats up to `beat`.
    pub(crate) fn acknowledged(&mut self, beat: u64) {
        while let Some(&(number, sent)) = self.beats.front().filter(|(number, _)| *number <= beat) {
            self.last_acked = number;
            self.counts_from = sent;
            self.beats.pop_front();
        }
    }

    /// The newest heartbeat the broker has read, 0 for none.
    pub(crate) fn last_acked(&self) -> u64 {
        self.last_acked
    }

    /// How long it may go on from `now` on; zero once it is over.
    pub(crate) fn left(&self, now: Duration) -> Duration {
        (self.counts_from + self.usable).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease() -> Lease {
        let welcome = WorkWelcome {
            lease_ms: 30_000,
            margin_ms: 5_000,
            ..WorkWelcome::default()
        };
        Lease::new(&welcome, 100 * SECOND)
    }

    #[test]
    fn it_counts_from_when_the_last_acknowledged_beat_was_sent() {
        let mut lease = lease();
        assert_eq!(lease.left(100 * SECOND), 25 * SECOND);
        assert_eq!(
            (
                lease.beat(105 * SECOND),
                lease.beat(110 * SECOND),
                lease.beat(115 * SECOND)
            ),
            (1, 2, 3)
        );
        assert_eq!(lease.left(115 * SECOND), 10 * SECOND);
        lease.acknowledged(2);
        assert_eq!(lease.last_acked(), 2);
        assert_eq!(lease.left(115 * SECOND), 20 * SECOND);
        assert_eq!(lease.left(200 * SECOND), Duration::ZERO);
    }

    #[test]
    fn an_acknowledgement_of_nothing_sent_prolongs_nothing() {
        let mut lease = lease();
        lease.acknowledged(7);
        lease.beat(105 * SECOND);
        lease.acknowledged(0);
        assert_eq!((lease.left(100 * SECOND), lease.last_acked()), (25 * SECOND, 0));
    }

    #[test]
    fn the_clock_runs() {
        assert!(since_boot() > Duration::ZERO);
    }
}
