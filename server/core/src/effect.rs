//! What the core wants done. [`Effect::after_commit`] tells which effects wait
//! until the changes made with them are durable.

use std::time::Duration;

use crate::event::RequestId;
use crate::ids::{LeaseToken, Name, Seq, SessionId, TaskId};
use crate::keys::KeyTaken;
use crate::streams::{Checkpoint, Credit, ItemBatch, Place};
use crate::task::{Failure, Outcome, Payload, StateName, StopIntent};
use crate::time::Timestamp;
use crate::view::QueueView;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a caller.
    Reply(RequestId, Reply),
    /// Hand a run to a worker.
    Assign(Box<Assignment>),
    /// Tell a worker to end a run.
    Stop {
        /// Whom to tell.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// Why.
        cause: StopCause,
    },
    /// Tell a worker how far a stream may go.
    Credit {
        /// Whom to tell.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// How far.
        credit: Credit,
    },
    /// The consumer whose request this is reads the stream from here on, and the one
    /// before does not. What else is said of the stream comes after it.
    Reading {
        /// Of which task.
        task: TaskId,
        /// Where its items begin.
        at: Place,
    },
    /// The reader wants items that are gone: end its stream.
    NotRead {
        /// Of which task.
        task: TaskId,
        /// The first item there is.
        floor: u64,
    },
    /// Tell a worker whose Emit broke from where to send.
    SendFrom {
        /// Whom to tell.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// The first item.
        from: u64,
    },
    /// Hand items to the reader. To be held while the task itself is not yet
    /// durable.
    Items {
        /// Of which task.
        task: TaskId,
        /// Its place in the order.
        seq: Seq,
        /// The items.
        batch: ItemBatch,
    },
    /// Tell a worker what became of what it said.
    Ack {
        /// Whom to tell.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// What became of it.
        verdict: Verdict,
    },
    /// A task is over: tell whoever waits for it.
    Finished(Box<Finished>),
    /// A session's lease is over: close its connection if there is one.
    SessionEnded(SessionId),
}

impl Effect {
    /// Whether the effect must wait until the changes made with it are durable.
    /// A run may start while its enqueue is being written: what it returns is
    /// held by the same rule. One that must not begin twice waits itself, and so
    /// does a later run of any task: were the end of the one before lost with the
    /// broker, that one would go on, under a lower token. What is said of a run
    /// that waits must not overtake it.
    #[must_use]
    pub fn after_commit(&self) -> bool {
        match self {
            Self::Reply(..) | Self::Ack { .. } | Self::Finished(_) => true,
            Self::Assign(run) => run.at_most_once || run.token.grant.attempt > 1,
            Self::Stop { .. }
            | Self::Credit { .. }
            | Self::Reading { .. }
            | Self::NotRead { .. }
            | Self::SendFrom { .. }
            | Self::Items { .. }
            | Self::SessionEnded(_) => false,
        }
    }
}

/// An answer to a caller. Every request gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The task is accepted.
    Enqueued {
        /// Its id.
        task: TaskId,
        /// It was known already and is the same.
        existed: bool,
        /// Some connected worker has registered its name.
        worker_known: bool,
    },
    /// The caller reads the stream of the task.
    Attached {
        /// The task.
        task: TaskId,
        /// It was known already and is the same.
        existed: bool,
        /// Some connected worker has registered its name.
        worker_known: bool,
        /// Where the items begin.
        at: Place,
    },
    /// What became of the wish to cancel.
    Cancelled {
        /// The task.
        task: TaskId,
        /// What became of it.
        outcome: CancelOutcome,
        /// Its state now.
        state: StateName,
    },
    /// The task lives.
    Retried {
        /// The task.
        task: TaskId,
        /// It was dead; else it lived already.
        revived: bool,
        /// Its state now.
        state: StateName,
    },
    /// The task is forgotten.
    Purged {
        /// The task.
        task: TaskId,
        /// The state it was in.
        state: StateName,
    },
    /// The queue serves so.
    QueueSet(Box<QueueView>),
    /// Nothing was done.
    Refused(Refusal),
}

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The task had not started, and will not.
    Cancelled,
    /// It runs; its worker has been told to stop.
    Stopping,
    /// It had ended before.
    Finished,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The id belongs to another task.
    #[error("task {0} exists already and is a different one (name, queue, series or arguments differ)")]
    AlreadyExists(TaskId),
    /// Another task has the key.
    #[error("{0}")]
    KeyTaken(Box<KeyTaken>),
    /// The task has a reader already.
    #[error("task {0} is being read by another caller; take it over to read it in that one's place")]
    BeingRead(TaskId),
    /// The reader has opened the stream again since, or lost it to another.
    #[error("the stream of task {0} has been opened anew since: this opening is an old one")]
    StaleReader(TaskId),
    /// The items are gone.
    #[error(
        "items before {floor} of task {task} have been acknowledged and are gone; ask for item {floor} or a later one"
    )]
    BelowFloor {
        /// The task.
        task: TaskId,
        /// The first item there is.
        floor: u64,
    },
    /// There are no such items yet.
    #[error("the stream of task {task} has come to item {head}; ask for that one or an earlier one")]
    BeyondHead {
        /// The task.
        task: TaskId,
        /// One past the last there is.
        head: u64,
    },
    /// Somebody yielded other items than before, or the reader has mixed something up.
    #[error("before item {index} of task {task} the reader has read other items than there are")]
    ReadOtherItems {
        /// The task.
        task: TaskId,
        /// Up to which item it has read.
        index: u64,
    },
    /// The task gives one result.
    #[error("task {0} was not enqueued as a stream: its result is waited for, not iterated")]
    NotAStream(TaskId),
    /// After a restart nobody knows yet where the stream stands.
    #[error("the worker that runs task {0} has not come back since the broker restarted; try again")]
    NotPlaced(TaskId),
    /// No task has the id.
    #[error("no task {0}: it never existed, or it ended and has been forgotten")]
    NotFound(TaskId),
    /// Only a dead task can be retried.
    #[error("task {task} is {state}, not dead: only dead tasks are retried", state = .state.as_str())]
    NotDead {
        /// The task.
        task: TaskId,
        /// The state it ended in.
        state: StateName,
    },
    /// A dead task that would be of no use alive.
    #[error("task {task} cannot be retried: {why}")]
    NotRetryable {
        /// The task.
        task: TaskId,
        /// Why.
        why: &'static str,
    },
    /// A task in none of the states that are to be purged.
    #[error("task {task} is {state}, which is not to be purged", state = .state.as_str())]
    OtherState {
        /// The task.
        task: TaskId,
        /// Its state.
        state: StateName,
    },
    /// A run that is not current any more calls nothing.
    #[error("attempt {attempt} of task {task} is not its current grant, or is to stop", attempt = .0.grant.attempt, task = .0.task)]
    StaleCall(LeaseToken),
    /// The broker is full.
    #[error("{what} is at its limit of {limit}")]
    Exhausted {
        /// What is full.
        what: &'static str,
        /// Its limit.
        limit: u64,
    },
    /// A field of the request is out of its range.
    #[error("{field} {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A run for a worker. The shell adds the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The worker's session.
    pub session: SessionId,
    /// The grant.
    pub token: LeaseToken,
    /// Where the arguments are.
    pub seq: Seq,
    /// What to run.
    pub name: Name,
    /// The lane it waited in.
    pub queue: Name,
    /// Its series.
    pub series: Name,
    /// Longest time of this attempt.
    pub timeout: Option<Duration>,
    /// End of the whole task.
    pub deadline: Option<Timestamp>,
    /// Size of the arguments.
    pub payload_bytes: u64,
    /// When the task was accepted.
    pub enqueued_at: Timestamp,
    /// How far its items may go, if somebody reads them as they come.
    pub stream: Option<StreamStart>,
    /// The task must not begin twice: the run waits until the grant is durable.
    pub at_most_once: bool,
}

/// Where and how far a run's items go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStart {
    /// How far.
    pub credit: Credit,
    /// The first to be sent: those before have come from an earlier attempt.
    pub start: Place,
    /// Of an iterator that has checkpoints: where its generator begins, at `start` or
    /// before it. What it yields before `start` is left out, and not compared.
    pub checkpoint: Option<Checkpoint>,
}

/// Why a worker is told to end a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// A caller cancelled the task.
    Cancelled,
    /// The attempt took too long.
    Timeout,
    /// The whole task took too long.
    Deadline,
    /// The grant is not current any more; nothing the run says will be taken.
    Stale,
}

impl From<StopIntent> for StopCause {
    fn from(intent: StopIntent) -> Self {
        match intent {
            StopIntent::Timeout => Self::Timeout,
            StopIntent::Deadline => Self::Deadline,
            StopIntent::Cancel => Self::Cancelled,
        }
    }
}

/// What became of a worker's message about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken; the task is in this state now.
    Accepted(StateName),
    /// Refused: the token is not current. `None`: the core does not know the
    /// task any more.
    Stale(Option<StateName>),
}

/// The end of a task, for those who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Which.
    pub task: TaskId,
    /// How.
    pub outcome: Outcome,
    /// What it returned, if it succeeded.
    pub result: Option<Payload>,
    /// The last failure, if it is dead.
    pub failure: Option<Box<Failure>>,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
    /// When its last run began, if any did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
    /// Runs granted.
    pub attempts: u32,
}
