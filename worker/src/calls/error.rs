//! Why a call has no result.

use asynq_proto::{DeadReason, EncodeError, TaskError, v1};
use uuid::Uuid;

use crate::context::StopCause;

/// Why a called task has no result. With `?` it becomes a failure of the run that
/// called, which is tried again while attempts are left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It was tried and is given up.
    #[error("task {name} ({task}) is dead ({reason}): {}", .failure.message)]
    Dead {
        /// What was called.
        name: String,
        /// Its id.
        task: Uuid,
        /// Why it is dead.
        reason: DeadReason,
        /// What its last run said.
        failure: Box<TaskError>,
    },
    /// Somebody cancelled it.
    #[error("task {name} ({task}) was cancelled")]
    Cancelled {
        /// What was called.
        name: String,
        /// Its id.
        task: Uuid,
    },
    /// It was not done by its deadline, or had not begun in time.
    #[error("task {name} ({task}) expired")]
    Expired {
        /// What was called.
        name: String,
        /// Its id.
        task: Uuid,
    },
    /// The broker did not take it: an option out of its range, or a limit.
    #[error("calling {name} was refused: {message}")]
    Refused {
        /// What was called.
        name: String,
        /// A word for programs, as docs/errors.md lists them.
        reason: String,
        /// A sentence for people.
        message: String,
    },
    /// The arguments cannot be sent.
    #[error("the arguments of the call cannot be sent: {problem}")]
    Arguments {
        /// What is wrong with them.
        problem: String,
    },
    /// The result is not of the type that was asked for.
    #[error("the result of the call does not fit: {problem}")]
    Result {
        /// What is wrong with it.
        problem: String,
    },
    /// The items of the called task break off: no broker brings them any more, or
    /// others than those before.
    #[error("the items of task {name} ({task}) break off: {problem}")]
    Broken {
        /// What was called.
        name: String,
        /// Its id.
        task: Uuid,
        /// What has gone wrong.
        problem: String,
    },
    /// The run that called is to stop.
    #[error("the run is to stop ({0:?})")]
    Stopped(StopCause),
}

impl CallError {
    pub(super) fn arguments(error: EncodeError) -> Self {
        Self::Arguments {
            problem: error.to_string(),
        }
    }

    /// A refusal of the broker's.
    pub(super) fn refused(name: String, error: v1::OperationError) -> Self {
        Self::Refused {
            name,
            reason: error.reason,
            message: error.message,
        }
    }

    /// Why there are no more items of a called task.
    pub(super) fn reading(name: &str, task: Uuid, error: asynq_client::Error) -> Self {
        use asynq_client::Error;
        let name = name.to_owned();
        match error {
            Error::Cancelled { .. } => Self::Cancelled { name, task },
            Error::Expired { .. } => Self::Expired { name, task },
            Error::Dead { reason, failure, .. } => Self::Dead {
                name,
                task,
                reason,
                failure: Box::new(
                    TaskError::terminal(failure.message)
                        .with_kind(failure.kind)
                        .with_trace(failure.trace),
                ),
            },
            Error::Refused { reason, message, .. } => Self::Refused { name, reason, message },
            Error::Codec { .. } => Self::Result {
                problem: error.to_string(),
            },
            error => Self::Broken {
                name,
                task,
                problem: error.to_string(),
            },
        }
    }

    /// How a task ended that has not succeeded.
    pub(super) fn ended(name: String, finished: v1::Finished) -> Self {
        let task = Uuid::from_slice(&finished.id).unwrap_or_default();
        match finished.state() {
            v1::TaskState::Cancelled => Self::Cancelled { name, task },
            v1::TaskState::Expired => Self::Expired { name, task },
            _ => Self::Dead {
                name,
                task,
                reason: DeadReason::from_wire(finished.dead_reason),
                failure: Box::new(TaskError::from_wire(finished.error.unwrap_or_default())),
            },
        }
    }
}
