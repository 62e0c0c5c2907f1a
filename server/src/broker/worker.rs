//! One connection of a worker: what it says, what it is told.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use asynq_core::{
    Assignment, Call, Declaration, Failure, LeaseToken, Name, Payload, SessionId, StopCause, TaskSpec, Timestamp,
    Verdict,
};
use asynq_proto::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPS};

use super::caller::{Ask, Caller};
use super::error::Error;
use super::outbox::{Outbox, Weigh};

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum ToWorker {
    Welcome {
        session: SessionId,
        resumed: bool,
        now: Timestamp,
    },
    HeartbeatAck(u64),
    /// `None`: the arguments are to be fetched.
    Assign(Box<Assignment>, Option<Payload>),
    Stop(LeaseToken, StopCause),
    Ack(LeaseToken, Verdict),
    /// All that messages up to this number said.
    Acked(u64),
}

impl Weigh for ToWorker {
    fn weight(&self) -> usize {
        match self {
            Self::Assign(run, payload) => {
                let names = run.name.as_str().len() + run.queue.as_str().len() + run.series.as_str().len();
                let checkpoint = run.stream.as_ref().and_then(|stream| stream.checkpoint.as_ref());
                96 + names
                    + checkpoint.map_or(0, |it| it.token.len())
                    + payload.as_ref().map_or(0, |payload| payload.data.len())
            }
            _ => 64,
        }
    }
}

/// One connection of a worker session.
#[derive(Debug)]
pub(crate) struct WorkerConn {
    outbox: Outbox<ToWorker>,
    /// What its runs call.
    caller: Arc<Caller>,
}

impl WorkerConn {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            outbox: Outbox::new(),
            caller: Caller::worker(),
        })
    }

    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    pub(crate) fn outbox(&self) -> &Outbox<ToWorker> {
        &self.outbox
    }

    /// Waits for messages and takes what is there, up to one message's worth.
    pub(crate) async fn take(&self, batch: &mut Vec<ToWorker>) -> Option<Error> {
        self.outbox.take(batch, MAX_BATCH_OPS, MAX_BATCH_BYTES).await
    }
}

/// How a worker's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// The worker, which drained, closed it itself.
    Goodbye,
    /// It broke, and the worker, or what is left of it, knows.
    Reset,
    /// Nothing more was heard: the worker may be there and know of nothing.
    Silent,
}

/// What a worker says when it connects, checked.
#[derive(Debug)]
pub(crate) struct WorkerHello {
    pub(crate) worker: Name,
    pub(crate) slots: u32,
    pub(crate) tasks: Vec<Declaration>,
    pub(crate) resume: Option<SessionId>,
    pub(crate) held: Vec<LeaseToken>,
    pub(crate) leaked: u32,
}

/// One message of a worker, checked.
#[derive(Debug, Default)]
pub(crate) struct WorkerInput {
    pub(crate) heartbeat: Option<u64>,
    pub(crate) reports: Vec<Report>,
    /// By which the reports are acknowledged together.
    pub(crate) number: Option<NonZeroU64>,
    pub(crate) draining: bool,
    /// Slots taken by runs that are not the worker's any more, where that changed.
    pub(crate) leaked: Option<u32>,
    /// Runs that are to have at least so much time from now on.
    pub(crate) extensions: Vec<(LeaseToken, Duration)>,
    /// What runs call.
    pub(crate) calls: Vec<Ask>,
    /// What they no longer want of that.
    pub(crate) withdrawn: Vec<Call>,
}

impl WorkerInput {
    /// Bytes of the results and failures it carries.
    pub(super) fn payload_bytes(&self) -> usize {
        let calls = self.calls.iter().map(Ask::payload_bytes).sum::<usize>();
        calls + self.reports.iter().map(Report::payload_bytes).sum::<usize>()
    }
}

impl Report {
    /// Bytes of the values it carries.
    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Completed(_, result) => result.data.len(),
            Self::CompletedWith(_, result, children) => {
                let children = children.iter().map(|spec| spec.payload.data.len());
                result.data.len() + children.sum::<usize>()
            }
            Self::Failed { failure, .. } | Self::TimedOut(_, failure) | Self::Crashed(_, failure) => {
                failure.message.len() + failure.trace.len()
            }
            Self::Released(_) | Self::Ended(_) | Self::Abandoned(_) => 0,
        }
    }

    /// What the run returned.
    pub(super) fn result(&self) -> Option<&Payload> {
        match self {
            Self::Completed(_, result) | Self::CompletedWith(_, result, _) => Some(result),
            _ => None,
        }
    }

    /// Which run.
    pub(super) fn token(&self) -> LeaseToken {
        match self {
            Self::Completed(token, _)
            | Self::CompletedWith(token, ..)
            | Self::Failed { token, .. }
            | Self::TimedOut(token, _)
            | Self::Crashed(token, _)
            | Self::Released(token)
            | Self::Ended(token)
            | Self::Abandoned(token) => *token,
        }
    }
}

/// What a worker says of a run.
#[derive(Debug)]
pub(crate) enum Report {
    Completed(LeaseToken, Payload),
    /// These tasks begin with its end.
    CompletedWith(LeaseToken, Payload, Vec<TaskSpec>),
    Failed {
        token: LeaseToken,
        failure: Failure,
        /// The task has at least so many attempts.
        min_attempts: u32,
    },
    /// It took longer than its worker allows.
    TimedOut(LeaseToken, Failure),
    /// Its process died.
    Crashed(LeaseToken, Failure),
    Released(LeaseToken),
    Ended(LeaseToken),
    /// It was told to stop, and goes on for nobody.
    Abandoned(LeaseToken),
}
