//! Why the broker refuses something, and why it ends a stream. How these look
//! on the wire is decided in `api/status.rs`.

use std::fmt;

use asynq_core::{Key, LeaseToken, Refusal, TaskId};
use asynq_proto::limits::MAX_PAYLOAD_BYTES;

use crate::limits::{ID_REACH, MAX_BEHIND_READ, MAX_ID_LEAD, MAX_LISTINGS, MAX_OUTSTANDING};

/// Why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The core said no, or a field is out of its range.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Arguments or a result are too large.
    #[error("{field} is {bytes} bytes long, at most {MAX_PAYLOAD_BYTES} are allowed (MAX_PAYLOAD_BYTES)")]
    PayloadTooLarge {
        /// Where.
        field: &'static str,
        /// How large it is.
        bytes: usize,
    },
    /// The time in an id has not come.
    #[error("id {0} was made more than {lead} s ahead of the broker's clock; make ids on the broker's clock", lead = MAX_ID_LEAD.as_secs())]
    IdInFuture(TaskId),
    /// The task succeeded, but what it returned is not kept any more.
    #[error("the result of task {0} was dropped when its time to live ended")]
    ResultExpired(TaskId),
    /// The task has ended and been purged: all that is left is its id.
    #[error("task {0} has ended and was purged: how it ended is not kept, nor its result")]
    ResultPurged(TaskId),
    /// An id that may have been used and forgotten.
    #[error(
        "no task {0} is known, and one of its age ({reach} min or more) may have ended and been forgotten, so it is not run; use a new id to run it",
        reach = ID_REACH.as_secs() / 60
    )]
    IdTooOld(TaskId),
    /// A run's session is not there, and what it holds not known.
    #[error("the worker's session has no connection yet; open Emit again when it has")]
    SessionAway,
    /// The disk of the data directory has no space for more tasks.
    #[error(
        "the broker's disk is full: {} are free, {} are needed to take in new tasks; free space on the disk of its data directory, or wait until tasks have ended and are forgotten",
        Mib(*.free), Mib(*.needed)
    )]
    DiskFull {
        /// Bytes that are free.
        free: u64,
        /// Bytes there would have to be.
        needed: u64,
    },
    /// Too many operations wait for one id to be looked up.
    #[error("more than {MAX_BEHIND_READ} operations at a time on task {0}; wait for answers first")]
    TooManyOnOneTask(TaskId),
    /// Too many operations wait for one key to be looked up.
    #[error("more than {MAX_BEHIND_READ} operations at a time on key {0:?}; wait for answers first")]
    TooManyOnOneKey(Key),
    /// Too many listings are being made.
    #[error(
        "{MAX_LISTINGS} listings of tasks are being made, as many as there may be (MAX_LISTINGS); list again a little later"
    )]
    TooManyListings,
    /// A stream's first message says no hello, or says it too late.
    #[error("the first message of a {0} must carry hello, and come soon")]
    ExpectedHello(&'static str),
    /// A run that is not current any more.
    #[error("attempt {attempt} of task {task} is not its current grant", attempt = .0.grant.attempt, task = .0.task)]
    StaleLease(LeaseToken),
    /// The caller's own deadline.
    #[error("the deadline of the call passed; the task goes on")]
    DeadlineExceeded,
    /// The same, of a stream.
    #[error("the deadline of the call passed, so its stream ends as if the connection had broken")]
    StreamDeadline,
    /// A message of a stream that cannot be read.
    #[error("a message of the stream cannot be read: {0}")]
    BadMessage(String),
    /// The broker, or the stream, is at its end.
    #[error("{0}")]
    Ended(#[from] End),
}

/// Bytes, for people.
struct Mib(u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1024 * 1024;
        write!(f, "{}.{} MiB", self.0 / MIB, self.0 % MIB * 10 / MIB)
    }
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    /// All is said.
    #[error("done")]
    Done,
    /// The other end has gone: nobody hears of it.
    #[error("the connection is gone")]
    Gone,
    /// The broker goes down.
    #[error("the broker is shutting down; connect again")]
    ShuttingDown,
    /// The broker does not know what its store holds.
    #[error("the broker's store failed; whether the operation took effect is unknown: send it again with the same id")]
    StoreFailed,
    /// The same worker session has a newer connection.
    #[error("the session was taken up again on another connection")]
    Superseded,
    /// No heartbeat for too long.
    #[error("the lease of the session ran out; open a new session")]
    LeaseOver,
    /// A caller that does not wait for room.
    #[error("more than {MAX_OUTSTANDING} operations unanswered in one session; wait for answers first")]
    TooManyOutstanding,
}
