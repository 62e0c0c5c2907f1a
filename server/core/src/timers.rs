//! What is to happen at a time. Disarmed by who armed it, so that nothing
//! lingers.

use std::collections::BTreeSet;

use crate::ids::SessionId;
use crate::sched::TaskKey;
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Recovered tasks wait for their workers no longer.
    ResumeGrace,
    /// A session may have been silent for a whole lease.
    Lease(SessionId),
    /// A session has been without a connection for long enough.
    ResetGrace(SessionId),
    /// A scheduled task becomes ready.
    Due(TaskKey),
    /// A task's deadline or time to start passes.
    Expire(TaskKey),
    /// An attempt has taken too long.
    Timeout(TaskKey),
    /// A worker has been kept free for a task for long enough.
    Aside(TaskKey),
    /// A stream has waited for a reader for long enough.
    Detached(TaskKey),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Timestamp, timer: Timer) {
        self.set.insert((at, timer));
    }

    pub(crate) fn disarm(&mut self, at: Timestamp, timer: Timer) {
        self.set.remove(&(at, timer));
    }

    pub(crate) fn is_armed(&self, at: Timestamp, timer: Timer) -> bool {
        self.set.contains(&(at, timer))
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.set.first().map(|&(at, _)| at)
    }

    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        let &(at, timer) = self.set.first()?;
        if at > now {
            return None;
        }
        self.set.pop_first();
        Some(timer)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Timestamp, Timer)> {
        self.set.iter().copied()
    }
}
