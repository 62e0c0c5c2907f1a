//! Whether there is space for new tasks: by what the store saw last, and by what
//! has been taken in since. What ends a task is never refused.

use asynq_core::Change;
use asynq_store::Room;
use tracing::{info, warn};

use super::error::Error;
use crate::limits::TASK_DISK_BYTES;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// What the store saw last; `None` if no disk limits it.
    room: Option<Room>,
    /// Bytes taken in that were not written then, as [`disk_bytes`] has them.
    since: u64,
    closed: bool,
}

/// Bytes of disk so many bytes of arguments or results take, at most: once in the
/// log, and once in the database, each with what comes with so many tasks.
fn of_values(bytes: usize, tasks: usize) -> u64 {
    2 * (bytes as u64 + tasks as u64 * TASK_DISK_BYTES)
}

/// The same, for a change.
pub(super) fn disk_bytes(change: &Change) -> u64 {
    of_values(value_bytes(change), 1)
}

/// Bytes of a change that differ much from task to task: arguments, a result, a
/// failure and what was noted on the way.
pub(super) fn value_bytes(change: &Change) -> usize {
    match change {
        Change::Insert { payload, record, .. } => payload.data.len() + record.text_bytes(),
        Change::Finish { result, record, .. } => {
            result.as_ref().map_or(0, |result| result.data.len()) + record.text_bytes()
        }
        Change::Update { record, .. } => record.text_bytes(),
        Change::Purge { .. } | Change::QueueSet { .. } | Change::SessionOpened(_) | Change::SessionClosed(_) => 0,
    }
}

impl Admission {
    /// The store has looked; `unwritten` bytes of changes it has not seen.
    pub(super) fn observe(&mut self, room: Option<Room>, unwritten: u64) {
        (self.room, self.since) = (room, unwritten);
        let Some(room) = room else {
            self.closed = false;
            return;
        };
        let (free, needed) = (
            room.free.saturating_sub(unwritten),
            if self.closed { room.high } else { room.low },
        );
        let closed = !room.reserved || free < needed;
        if closed == self.closed {
            return;
        }
        self.closed = closed;
        if closed {
            warn!(
                free = room.free,
                needed = room.high,
                "the disk is full: no new tasks are taken in until there is space"
            );
        } else {
            info!(
                free = room.free,
                "there is space on the disk again: new tasks are taken in"
            );
        }
    }

    /// The core has changed something that is to be written.
    pub(super) fn note(&mut self, change: &Change) {
        self.since += disk_bytes(change);
    }

    /// Why so many new tasks, with so many bytes of arguments in all, have no place.
    pub(super) fn refuse(&self, bytes: usize, tasks: usize) -> Option<Error> {
        let room = self.room?;
        let free = room.free.saturating_sub(self.since);
        let more = of_values(bytes, tasks);
        let needed = if self.closed { room.high } else { room.low + more };
        (self.closed || free < needed).then_some(Error::DiskFull { free, needed })
    }

    /// What the store saw last.
    pub(super) const fn room(&self) -> Option<Room> {
        self.room
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn room(free: u64) -> Option<Room> {
        Some(Room {
            free,
            low: 4 * MIB,
            high: 6 * MIB,
            reserved: true,
        })
    }

    #[test]
    fn it_closes_below_the_low_mark_and_opens_above_the_high_one() {
        let mut admission = Admission::default();
        assert_eq!(admission.refuse(usize::MAX / 4, 1), None, "no disk limits it");
        let closed_at = [(5, false), (3, true), (5, true), (6, false), (5, false)];
        for (free, closed) in closed_at {
            admission.observe(room(free * MIB), 0);
            assert_eq!(admission.is_closed(), closed, "{free} MiB");
            assert_eq!(admission.refuse(0, 1).is_some(), closed, "{free} MiB");
        }
        let used = room(100 * MIB).map(|room| Room {
            reserved: false,
            ..room
        });
        admission.observe(used, 0);
        assert!(admission.is_closed(), "what was put by is in use");
        admission.observe(None, 0);
        assert!(!admission.is_closed());
    }

    #[test]
    fn what_came_in_since_counts() {
        let mut admission = Admission::default();
        admission.observe(room(8 * MIB), 0);
        assert_eq!(admission.refuse(MIB as usize, 1), None);
        assert_eq!(
            admission.refuse(2 * MIB as usize, 1),
            Some(Error::DiskFull {
                free: 8 * MIB,
                needed: 8 * MIB + 2 * TASK_DISK_BYTES
            })
        );
        // Many small ones take as much as a large one.
        let many = (2 * MIB / TASK_DISK_BYTES) as usize;
        assert!(admission.refuse(0, many / 2).is_none() && admission.refuse(0, many + 1).is_some());
        // A large one is refused, a small one fits still.
        assert_eq!((admission.refuse(0, 1), admission.is_closed()), (None, false));
        admission.observe(room(8 * MIB), 5 * MIB);
        assert!(admission.is_closed() && admission.refuse(0, 1).is_some());
    }
}
