//! What an event changes durably. The store applies changes in order and
//! decides nothing.

use crate::ids::{Name, Seq, SessionId};
use crate::queues::QueueSettings;
use crate::task::{Payload, TaskRecord};
use crate::time::Timestamp;

/// One durable change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new task, with its arguments.
    Insert {
        /// Its place in the order; never used before.
        seq: Seq,
        /// What to remember.
        record: Box<TaskRecord>,
        /// Its arguments.
        payload: Payload,
    },
    /// A task that has not ended, or that was dead and is no more, has a new
    /// record. Its arguments stay.
    Update {
        /// Which.
        seq: Seq,
        /// What to remember from now on.
        record: Box<TaskRecord>,
    },
    /// A task has ended. Its arguments may be dropped unless it is dead: an
    /// operator can retry a dead task.
    Finish {
        /// Which.
        seq: Seq,
        /// What to remember from now on.
        record: Box<TaskRecord>,
        /// Its result, unless there is none or it is not to be kept.
        result: Option<Payload>,
        /// When all memory of the task may go. The record says until when the
        /// result stays.
        forget_at: Timestamp,
    },
    /// A task that has ended is forgotten but for a bare record, which no listing
    /// shows and no count counts; its values go. The last there is of it, in a
    /// batch after that of its end.
    Purge {
        /// Which.
        seq: Seq,
        /// What tells its id and its key from ones that were never used.
        record: Box<TaskRecord>,
        /// When that may go too.
        forget_at: Timestamp,
    },
    /// A queue serves so from now on. One that serves as by default is not kept.
    QueueSet {
        /// Which.
        queue: Name,
        /// How.
        settings: QueueSettings,
    },
    /// A worker session to know again after a restart. Inserts or replaces.
    SessionOpened(SessionRecord),
    /// A session is over.
    SessionClosed(SessionId),
}

/// A worker session as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Identity.
    pub id: SessionId,
    /// The worker's name.
    pub worker: Name,
    /// When it first connected.
    pub opened_at: Timestamp,
}
