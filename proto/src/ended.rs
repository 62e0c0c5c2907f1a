//! What is said of tasks that ended badly.

use std::fmt;

use crate::v1;

/// Why a dead task is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// Its handler failed, as often as it was allowed to.
    Error,
    /// Its handler refused the arguments.
    Rejected,
    /// It ran too long, as often as it was allowed to.
    Timeout,
    /// It killed the process it ran in, again and again.
    Poison,
    /// Its worker was lost, again and again.
    WorkerLost,
    /// Run again, it yielded other items than before.
    NonDeterministic,
    /// A reason this version does not know.
    Unknown,
}

impl DeadReason {
    /// The word for it, as everywhere in asynq.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Poison => "poison",
            Self::WorkerLost => "worker_lost",
            Self::NonDeterministic => "non_deterministic",
            Self::Unknown => "unknown",
        }
    }

    /// A reason read from the wire.
    #[must_use]
    pub fn from_wire(reason: i32) -> Self {
        match v1::DeadReason::try_from(reason) {
            Ok(v1::DeadReason::Error) => Self::Error,
            Ok(v1::DeadReason::Rejected) => Self::Rejected,
            Ok(v1::DeadReason::Timeout) => Self::Timeout,
            Ok(v1::DeadReason::Poison) => Self::Poison,
            Ok(v1::DeadReason::WorkerLost) => Self::WorkerLost,
            Ok(v1::DeadReason::NonDeterministic) => Self::NonDeterministic,
            Ok(v1::DeadReason::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
