//! What travels between the broker and its peers: the wire's messages, without
//! their bytes.

use std::sync::Arc;
use std::time::Duration;

use asynq_core::{
    Assignment, Call, Checkpoint, ConsumerId, Credit, EmitResume, Failure, Finished, Hello, ItemBatch, LeaseToken,
    Payload, Place, Refusal, SessionId, StateName, StopCause, TaskId, TaskSpec, Timestamp, Verdict,
};

/// To the broker.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    /// A caller's session begins.
    Greet,
    /// Operations of a caller's session.
    Asks(Vec<Ask>),
    /// A stream is wanted; the only message of its connection before its end.
    Iterate(Box<TaskSpec>, Reading),
    /// A worker's session begins, or is resumed.
    Hello {
        /// The session is the one to resume, if `resume`.
        hello: Box<Hello>,
        resume: bool,
    },
    /// One message of a worker's session.
    Work(Work),
    /// The first of an Emit connection; where the run stands, if it had one before.
    EmitOpened(SessionId, LeaseToken, Option<EmitResume>),
    /// The others.
    Emit(Emission),
    /// A result too large for the session.
    CompleteLarge(LeaseToken, Payload, Vec<TaskSpec>),
    /// Arguments too large for the session are wanted.
    Fetch(LeaseToken),
    /// A run calls a task that is too large for the session, or whose items it reads.
    CallApart(Call, Box<TaskSpec>),
    /// Nothing more comes; `true` if the peer said so and still listens.
    End(bool),
}

impl Up {
    /// Whether a caller vouches in it for an id that was never sent before.
    pub(crate) fn vouches(&self) -> bool {
        let vouches = |ask: &Ask| matches!(ask.op, Op::Enqueue { first_send: true, .. });
        matches!(self, Self::Asks(asks) if asks.iter().any(vouches))
    }
}

/// What a worker's message says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    pub(crate) heartbeat: Option<u64>,
    /// Slots that are taken by runs which were abandoned.
    pub(crate) leaked: Option<u32>,
    /// Runs that are to have so much time from now on.
    pub(crate) extensions: Vec<(LeaseToken, Duration)>,
    pub(crate) reports: Vec<(LeaseToken, Report)>,
    pub(crate) draining: bool,
    /// Calls that nobody waits for any more.
    pub(crate) withdrawn: Vec<Call>,
    pub(crate) calls: Vec<RunCall>,
}

/// A run calls.
#[derive(Debug, Clone)]
pub(crate) struct RunCall {
    /// The number that its answer will carry.
    pub(crate) number: u64,
    pub(crate) call: Call,
    /// What is to be run. Without, the broker has it, and only the end is asked for.
    pub(crate) spec: Option<Box<TaskSpec>>,
    /// It was said before, and may have arrived.
    pub(crate) again: bool,
}

/// A run that calls, as the broker takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallingRun {
    /// `None`: it was said on a connection of its own.
    pub(crate) session: Option<SessionId>,
    pub(crate) call: Call,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    /// With what it has spawned.
    Completed(Payload, Vec<TaskSpec>),
    Failed(Failure),
    Crashed(Failure),
    Released,
    Ended,
    /// It does not end, though it was told to.
    Abandoned,
}

impl Report {
    /// It is too large for the session.
    pub(crate) fn is_large(&self) -> bool {
        let is_large = |payload: &Payload| payload.data.len() > INLINE_BYTES;
        match self {
            Self::Completed(result, spawned) => is_large(result) || spawned.iter().any(|spec| is_large(&spec.payload)),
            _ => false,
        }
    }
}

/// What a run says of its items.
#[derive(Debug, Clone)]
pub(crate) enum Emission {
    Items(ItemBatch),
    Checkpoint(Checkpoint),
    Blocked(Credit),
    /// After that many, with that digest.
    End(u64, Option<u64>),
    Failed(Failure),
}

/// How a stream is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) consumer: ConsumerId,
    pub(crate) open_seq: u64,
    /// The first item wanted.
    pub(crate) from: Place,
    /// Bytes count from there.
    pub(crate) credit: Credit,
    pub(crate) auto_ack: bool,
    /// The task is there, or the stream is not wanted.
    pub(crate) attach: bool,
    /// It takes the stream from whoever reads it.
    pub(crate) take_over: bool,
}

/// An operation with the number its answer will carry.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) call: u64,
    pub(crate) op: Op,
}

/// What a caller asks.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Enqueue {
        spec: Box<TaskSpec>,
        first_send: bool,
        wait: bool,
        by: Option<CallingRun>,
    },
    Iterate(Box<TaskSpec>, Reading),
    Wait(TaskId),
    Cancel(TaskId),
    Show(TaskId),
    Retry(TaskId),
    /// In whatever state it has ended.
    Purge(TaskId),
    Forget(u64),
    /// Of the opening of that number.
    Flow(TaskId, ConsumerId, u64, Credit),
    Stop(TaskId, ConsumerId),
}

impl Op {
    /// The task it is about, unless it is answered by nobody.
    pub(crate) fn task(&self) -> Option<TaskId> {
        match self {
            Self::Enqueue { spec, .. } | Self::Iterate(spec, _) => Some(spec.id),
            Self::Wait(id)
            | Self::Cancel(id)
            | Self::Show(id)
            | Self::Retry(id)
            | Self::Purge(id)
            | Self::Stop(id, _) => Some(*id),
            Self::Forget(_) | Self::Flow(..) => None,
        }
    }
}

/// To a caller or a worker.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    /// A caller's session has begun; the broker's clock reads this.
    Welcome(Timestamp),
    /// An answer; `true` if nothing more follows.
    Answer(u64, Answer, bool),
    /// Items of a stream.
    Items(ItemBatch),
    /// Its end, after that many items.
    StreamEnd(u64, Arc<Finished>),
    /// A worker's session has begun.
    WorkerWelcome(SessionId),
    HeartbeatAck(u64),
    /// Without arguments where they are to be fetched.
    Assign(Box<Assignment>, Option<Payload>),
    Stop(LeaseToken, StopCause),
    Ack(LeaseToken, Verdict),
    /// Credit, on an Emit connection.
    Credit(Credit),
    /// From which item on, on an Emit connection that takes up another.
    SendFrom(u64),
    /// The last word on an Emit connection, or on a large result.
    Verdict(Verdict),
    /// Arguments, or none for a run that is not current.
    Arguments(Option<Payload>),
    /// Nothing more comes.
    End,
}

/// An answer to a caller.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Enqueued(TaskId),
    /// A stream is open: its items begin there.
    Reading(TaskId, Place),
    Finished(Arc<Finished>),
    /// The state the task is in now.
    Cancelled(TaskId, StateName),
    Shown,
    /// It lives, by this request or by another.
    Retried(TaskId),
    Purged(TaskId),
    Refused(Refused),
}

/// Why something was not done.
#[derive(Debug, Clone)]
pub(crate) enum Refused {
    ByCore(Refusal),
    /// Or purged, with its task.
    ResultExpired,
    StreamOver,
}

/// Payloads of more bytes travel on connections of their own. Far fewer than the
/// real limit, so that the simulator need not make large ones.
pub(crate) const INLINE_BYTES: usize = 64;
