//! What is to happen at a time. Disarmed by who armed it, so that nothing
//! lingers.

use std::collections::BTreeSet;

use crate::core::Core;
use crate::ids::SessionId;
use crate::live::Live;
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
    /// A checkpoint of a stream is to be written.
    Checkpoint(TaskKey),
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

impl Core {
    /// Timers a task has while it is in its state.
    pub(crate) fn alarms(&self, key: TaskKey) -> impl Iterator<Item = (Timestamp, Timer)> + use<> {
        let task = self.live(key);
        let expires_at = || task.expires_at().filter(|_| self.believes_clock());
        let mut alarms = [None; 4];
        let detached = task.stream().and_then(|stream| stream.detached_until);
        alarms[2] = detached.map(|at| (at, Timer::Detached(key)));
        let write_at = task.stream().and_then(|stream| stream.write_at);
        alarms[3] = write_at.map(|at| (at, Timer::Checkpoint(key)));
        match &task.state {
            Live::Scheduled(at) => {
                alarms[0] = Some((*at, Timer::Due(key)));
                alarms[1] = expires_at().map(|at| (at, Timer::Expire(key)));
            }
            Live::Ready | Live::Recovering | Live::Unread | Live::Aside(_) => {
                if let Live::Aside(aside) = &task.state {
                    alarms[0] = Some((aside.until, Timer::Aside(key)));
                }
                alarms[1] = expires_at().map(|at| (at, Timer::Expire(key)));
            }
            Live::Held(held) => {
                let timeout = held.timeout.filter(|_| held.stop.is_none());
                // Of the time before that, nobody knows how long it was.
                let since = self.doubts_since.map_or(held.started_at, |at| at.max(held.started_at));
                alarms[0] = timeout.map(|timeout| (since + timeout, Timer::Timeout(key)));
                let deadline = task
                    .deadline()
                    .filter(|_| held.stop < Some(crate::StopIntent::Deadline) && self.believes_clock());
                alarms[1] = deadline.map(|at| (at, Timer::Expire(key)));
            }
        }
        alarms.into_iter().flatten()
    }
}
