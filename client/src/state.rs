//! The states of a task, and what is said of those that ended badly.

use std::{fmt, str::FromStr};

use asynq_proto::v1;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Its time has not come.
    Scheduled,
    /// It may run and waits for a slot.
    Ready,
    /// A worker runs it.
    Running,
    /// A worker has been told to stop it.
    Stopping,
    /// It returned a result.
    Succeeded,
    /// It was tried and is given up.
    Dead,
    /// It was cancelled.
    Cancelled,
    /// It was not done by its deadline.
    Expired,
    /// A state this version of the client does not know.
    Unknown,
}

impl State {
    /// Those in which a task has not ended.
    pub const LIVE: [Self; 4] = [Self::Scheduled, Self::Ready, Self::Running, Self::Stopping];
    /// Those in which it has.
    pub const ENDED: [Self; 4] = [Self::Succeeded, Self::Dead, Self::Cancelled, Self::Expired];

    /// The word for it, as everywhere in asynq.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) const fn to_wire(self) -> i32 {
        let state = match self {
            Self::Scheduled => v1::TaskState::Scheduled,
            Self::Ready => v1::TaskState::Ready,
            Self::Running => v1::TaskState::Running,
            Self::Stopping => v1::TaskState::Stopping,
            Self::Succeeded => v1::TaskState::Succeeded,
            Self::Dead => v1::TaskState::Dead,
            Self::Cancelled => v1::TaskState::Cancelled,
            Self::Expired => v1::TaskState::Expired,
            Self::Unknown => v1::TaskState::Unspecified,
        };
        state as i32
    }

    pub(crate) fn from_wire(state: i32) -> Self {
        match v1::TaskState::try_from(state) {
            Ok(v1::TaskState::Scheduled) => Self::Scheduled,
            Ok(v1::TaskState::Ready) => Self::Ready,
            Ok(v1::TaskState::Running) => Self::Running,
            Ok(v1::TaskState::Stopping) => Self::Stopping,
            Ok(v1::TaskState::Succeeded) => Self::Succeeded,
            Ok(v1::TaskState::Dead) => Self::Dead,
            Ok(v1::TaskState::Cancelled) => Self::Cancelled,
            Ok(v1::TaskState::Expired) => Self::Expired,
            Ok(v1::TaskState::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text is no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the states are scheduled, ready, running, stopping, succeeded, dead, cancelled and expired")]
pub struct ParseStateError;

impl FromStr for State {
    type Err = ParseStateError;

    fn from_str(text: &str) -> Result<Self, ParseStateError> {
        Self::LIVE
            .into_iter()
            .chain(Self::ENDED)
            .find(|state| state.as_str() == text)
            .ok_or(ParseStateError)
    }
}

/// What a failed run left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// `error`, `panic`, `rejected`, or a word of the handler's own.
    pub kind: String,
    /// What went wrong.
    pub message: String,
    /// Where, if it is known; at most 8 KiB.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.as_str() {
            "" | "error" => f.write_str(&self.message),
            kind => write!(f, "{kind}: {}", self.message),
        }
    }
}

impl From<v1::TaskFailure> for Failure {
    fn from(failure: v1::TaskFailure) -> Self {
        let v1::TaskFailure {
            kind,
            message,
            trace,
            retryable: _,
            crashed: _,
        } = failure;
        Self { kind, message, trace }
    }
}
