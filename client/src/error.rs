//! What can go wrong for a caller, and the one place where the broker's words become it.

use std::time::Duration;

use asynq_proto::{
    ConnectError, CredentialsError, DecodeError, EncodeError, TokenError,
    connect::EndpointError,
    limits::MAX_PAYLOAD_BYTES,
    reasons::{BELOW_FLOOR, BEYOND_HEAD},
    v1,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{DeadReason, Failure, TaskId};

/// Why a call, or anything else asked of a broker, gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The task was tried and is given up.
    #[error("{failure} (task {id})")]
    Dead {
        /// The task.
        id: TaskId,
        /// Why it was given up.
        reason: DeadReason,
        /// What its last run, or the broker in its place, said.
        failure: Failure,
    },
    /// The task was cancelled.
    #[error("the task {id} was cancelled")]
    Cancelled {
        /// The task.
        id: TaskId,
    },
    /// The task did not start, or did not end, by the time it was given.
    #[error("the task {id} was not done by its deadline")]
    Expired {
        /// The task.
        id: TaskId,
    },
    /// The broker refused. Nothing has happened.
    #[error("{message}")]
    Refused {
        /// The sort of refusal.
        kind: Refusal,
        /// The broker's reason, in capitals, as docs/errors.md lists them.
        reason: String,
        /// What is wrong and what to do.
        message: String,
        /// Where waiting helps, how long the broker says to wait.
        retry_after: Option<Duration>,
    },
    /// There is no broker to be reached, and there was none for too long.
    #[error("{message}")]
    NoBroker {
        /// Where and since when.
        message: String,
        /// The task in question, if there is one.
        id: Option<TaskId>,
        /// The broker may have done what was asked before it went.
        indefinite: bool,
    },
    /// The connection that brought a task's items broke before their end, and for
    /// too long there was no broker to open it again. The task lives on for its
    /// `detach_grace` after the broker has missed its reader: until then
    /// [`crate::Client::resume`] can go on.
    #[error("{message}; all items of task {id} before item {taken} have come, from which it can be resumed")]
    StreamBroken {
        /// The task.
        id: TaskId,
        /// The index of the item to go on with: all before it, counted from the
        /// task's first item, were given out before this error.
        taken: u64,
        /// Where and why.
        message: String,
    },
    /// A stream that was opened again is not the one it was: its items before
    /// `index` are others than those that had come. A generator that was run again
    /// yielded something else than before; see [`crate::OnLoss`].
    #[error("the items of task {id} before item {index} are others than those that came before")]
    StreamChanged {
        /// The task.
        id: TaskId,
        /// Where that shows: somewhere before this item.
        index: u64,
    },
    /// The time given to `wait_at_most` has passed. The task goes on.
    #[error("the time to wait has passed; the task {id} goes on")]
    Timeout {
        /// The task.
        id: TaskId,
    },
    /// The arguments could not be written, or the result not be read, as the type asked for.
    #[error("failed to {doing}: {cause}")]
    Codec {
        /// What was being done.
        doing: &'static str,
        /// What serde says.
        cause: String,
    },
    /// The arguments are too large. Nothing was sent.
    #[error("the arguments are {bytes} bytes; the limit is {limit} bytes (4 MiB)")]
    PayloadTooLarge {
        /// Their size.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The broker's address makes no sense.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// What was given to secure the connection is of no use. Nothing was sent.
    #[error("{message}")]
    Credentials {
        /// What to set right, naming flag or file.
        message: String,
    },
    /// No secure connection comes about: the broker's certificate is not to be
    /// trusted, or only one end speaks TLS. Trying again does not help. (A broker
    /// that does not trust *this* end is [`Error::Refused`].)
    #[error("{message}")]
    Tls {
        /// Where, and what to set right.
        message: String,
    },
}

/// The sorts of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A field has a value it must not have.
    InvalidArgument,
    /// No such task, or its result is gone.
    NotFound,
    /// Another task has this id, or this key.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// A limit is reached; it may be lower later.
    Exhausted,
    /// Not possible in the present state.
    FailedPrecondition,
    /// Items of a stream that are taken and no longer kept, or that have not come;
    /// the message names the first one there is, or is not.
    OutOfRange,
    /// The peer answers in a way this client does not understand.
    Unexpected,
}

impl Error {
    /// The same may succeed if asked again later.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NoBroker { .. }
                | Self::StreamBroken { .. }
                | Self::Refused {
                    kind: Refusal::Exhausted,
                    ..
                }
        )
    }

    /// How long the broker says to wait before the same is asked again. `None`:
    /// it says nothing of it, or waiting does not help.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What was asked may have happened all the same. An enqueue that ended
    /// so is safe to send again under its id: see [`crate::Enqueue::id_again`].
    pub const fn is_indefinite(&self) -> bool {
        matches!(
            self,
            Self::NoBroker { indefinite: true, .. } | Self::StreamBroken { .. }
        )
    }

    /// The task this is about, if the error knows it.
    pub const fn task(&self) -> Option<TaskId> {
        match self {
            Self::Dead { id, .. }
            | Self::Cancelled { id }
            | Self::Expired { id }
            | Self::StreamBroken { id, .. }
            | Self::StreamChanged { id, .. }
            | Self::Timeout { id } => Some(*id),
            Self::NoBroker { id, .. } => *id,
            _ => None,
        }
    }

    /// One word in capitals, for logs and scripts.
    pub fn reason(&self) -> &str {
        match self {
            Self::Dead { reason, .. } => match reason {
                DeadReason::Error => "ERROR",
                DeadReason::Rejected => "REJECTED",
                DeadReason::Timeout => "TIMEOUT",
                DeadReason::Poison => "POISON",
                DeadReason::WorkerLost => "WORKER_LOST",
                DeadReason::NonDeterministic => "NON_DETERMINISTIC",
                // What is not known to this version, too.
                _ => "DEAD",
            },
            Self::Cancelled { .. } => "CANCELLED",
            Self::Expired { .. } => "EXPIRED",
            Self::Refused { reason, .. } => reason,
            Self::NoBroker { .. } => "NO_BROKER",
            Self::StreamBroken { .. } => "STREAM_BROKEN",
            Self::StreamChanged { .. } => "STREAM_CHANGED",
            Self::Timeout { .. } => "WAIT_PASSED",
            Self::Codec { .. } => "CODEC",
            Self::PayloadTooLarge { .. } => "PAYLOAD_TOO_LARGE",
            Self::Address(_) => "INVALID_ADDRESS",
            Self::Credentials { .. } => "CREDENTIALS",
            Self::Tls { .. } => "TLS",
        }
    }

    /// The broker said something that makes no sense to this version.
    pub(crate) fn unexpected(what: &str) -> Self {
        Self::Refused {
            kind: Refusal::Unexpected,
            reason: "UNEXPECTED".to_owned(),
            message: format!("the broker sent {what}; is it of another version?"),
            retry_after: None,
        }
    }

    /// The client's background task is gone, which happens only when its runtime ends.
    pub(crate) fn closed() -> Self {
        Self::NoBroker {
            message: "the client's runtime has shut down".to_owned(),
            id: None,
            indefinite: true,
        }
    }
}

impl From<CredentialsError> for Error {
    fn from(error: CredentialsError) -> Self {
        let message = error.to_string();
        Self::Credentials { message }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        Self::Credentials { message }
    }
}

/// One attempt to connect that failed.
impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let message = error.to_string();
        match error {
            ConnectError::Tls { problem, .. } if problem.is_by_broker() => Self::Refused {
                kind: Refusal::PermissionDenied,
                reason: "CERTIFICATE_REFUSED".to_owned(),
                message,
                retry_after: None,
            },
            ConnectError::Tls { .. } => Self::Tls { message },
            ConnectError::Unreachable { .. } => Self::NoBroker {
                message,
                id: None,
                indefinite: false,
            },
        }
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge { bytes } => Self::PayloadTooLarge {
                bytes,
                limit: MAX_PAYLOAD_BYTES,
            },
            EncodeError::Json(cause) => Self::Codec {
                doing: "write the arguments as JSON",
                cause: cause.to_string(),
            },
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Codec {
            doing: "read the result",
            cause: error.to_string(),
        }
    }
}

/// A refusal inside a session.
impl From<v1::OperationError> for Error {
    fn from(error: v1::OperationError) -> Self {
        let retry_after = retry_after(&error);
        refused(Code::from_i32(error.code), error.reason, error.message, retry_after)
    }
}

/// A refusal of a unary call.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        refused(
            status.code(),
            reason.unwrap_or_default(),
            status.message().to_owned(),
            retry_after,
        )
    }
}

/// What a refusal inside a session says of waiting.
pub(crate) fn retry_after(error: &v1::OperationError) -> Option<Duration> {
    (error.retry_after_ms > 0).then(|| Duration::from_millis(error.retry_after_ms))
}

fn refused(code: Code, reason: String, message: String, retry_after: Option<Duration>) -> Error {
    let (kind, default_reason) = match code {
        Code::OutOfRange if [BELOW_FLOOR, BEYOND_HEAD].contains(&reason.as_str()) => {
            (Refusal::OutOfRange, "OUT_OF_RANGE")
        }
        Code::InvalidArgument | Code::OutOfRange => (Refusal::InvalidArgument, "INVALID_ARGUMENT"),
        Code::NotFound => (Refusal::NotFound, "NOT_FOUND"),
        Code::AlreadyExists => (Refusal::AlreadyExists, "ALREADY_EXISTS"),
        Code::PermissionDenied | Code::Unauthenticated => (Refusal::PermissionDenied, "PERMISSION_DENIED"),
        Code::ResourceExhausted => (Refusal::Exhausted, "RESOURCE_EXHAUSTED"),
        Code::FailedPrecondition | Code::Aborted => (Refusal::FailedPrecondition, "FAILED_PRECONDITION"),
        Code::Unimplemented => (Refusal::Unexpected, "UNIMPLEMENTED"),
        _ => (Refusal::Unexpected, "UNEXPECTED"),
    };
    let reason = if reason.is_empty() {
        default_reason.to_owned()
    } else {
        reason
    };
    Error::Refused {
        kind,
        reason,
        message,
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_tells_how_long_to_wait_if_the_broker_did() {
        let delay = Duration::from_secs(1);
        let mut details = ErrorDetails::with_error_info("LIMIT_REACHED", "asynq", []);
        details.set_retry_info(Some(delay));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let operation = v1::OperationError {
            code: Code::ResourceExhausted as i32,
            reason: "LIMIT_REACHED".to_owned(),
            retry_after_ms: 1_000,
            ..v1::OperationError::default()
        };
        for error in [Error::from(status), Error::from(operation)] {
            assert_eq!((error.reason(), error.retry_after()), ("LIMIT_REACHED", Some(delay)));
            assert!(error.is_retryable());
        }
        assert_eq!(Error::from(Status::not_found("no")).retry_after(), None);
        assert_eq!(Error::from(v1::OperationError::default()).retry_after(), None);
    }
}
