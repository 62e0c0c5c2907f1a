//! A stream without a broker: for how long, and when to try again. No I/O.

use std::time::Duration;

use asynq_proto::Backoff;
use tokio::time::Instant;

use crate::{PATIENCE, limits::STREAM_HELD};

#[derive(Debug)]
pub(super) struct Gap {
    /// Since when nothing has come of any opening.
    since: Option<Instant>,
    /// When it was opened last.
    opened: Instant,
    backoff: Backoff,
}

impl Gap {
    /// A stream that is open.
    pub(super) const fn none(now: Instant) -> Self {
        Self {
            since: None,
            opened: now,
            backoff: Backoff::reconnect(),
        }
    }

    /// The stream broke.
    pub(super) fn broke(&mut self, now: Instant) {
        if now.duration_since(self.opened) >= STREAM_HELD {
            self.over();
        }
        self.since.get_or_insert(now);
    }

    /// It is open again, which a broker that breaks it at once says in vain.
    pub(super) const fn opened(&mut self, now: Instant) {
        self.opened = now;
    }

    /// Something new has come.
    pub(super) const fn over(&mut self) {
        self.since = None;
        self.backoff.reset();
    }

    /// How long to wait before the next attempt; the one after it may wait longer.
    pub(super) fn pause(&mut self) -> Duration {
        self.backoff.pause()
    }

    /// How much patience is left.
    pub(super) fn left(&self, now: Instant) -> Duration {
        let dark = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        PATIENCE.saturating_sub(dark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_runs_from_the_first_break_until_something_comes() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut gap = Gap::none(begun);
        assert_eq!(gap.left(at(900)), PATIENCE);
        gap.broke(at(900));
        assert_eq!(gap.left(at(920)), Duration::from_secs(40));
        // Opened, and broken at once: still nobody there.
        gap.opened(at(930));
        gap.broke(at(931));
        assert_eq!(gap.left(at(960)), Duration::ZERO);
        // Opened for a while: that was somebody.
        gap.opened(at(940));
        gap.broke(at(950));
        assert_eq!(gap.left(at(960)), Duration::from_secs(50));
        // An item is the best sign.
        gap.opened(at(961));
        gap.over();
        gap.broke(at(962));
        assert_eq!(gap.left(at(962)), PATIENCE);
    }
}
