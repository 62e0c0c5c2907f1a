//! The table of a task's life: which trigger leads from which state to which.
//! docs/lifecycle.md prints it, and a test holds the two together.

use crate::task::StateName;

/// What moves a task from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Its time has come.
    Due,
    /// A free slot took it.
    Granted,
    /// A worker that resumed after a restart holds it under a newer grant.
    Adopted,
    /// A completion with the current token.
    Completed,
    /// A failure, a loss or a timeout with budget left, after a delay.
    Retried,
    /// A failure that is final, or a budget spent.
    GaveUp,
    /// A grant was given back, or lost, and the task may run again at once.
    Returned,
    /// A timeout, a cancel or a deadline wants the run ended.
    StopWanted,
    /// A cancel has taken effect.
    Cancelled,
    /// A deadline, or the time to start, has taken effect.
    Expired,
    /// An operator has it run again.
    Revived,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Due,
        Self::Granted,
        Self::Adopted,
        Self::Completed,
        Self::Retried,
        Self::GaveUp,
        Self::Returned,
        Self::StopWanted,
        Self::Cancelled,
        Self::Expired,
        Self::Revived,
    ];
}

/// The state `trigger` leads to from `from`; `None` where it cannot happen.
#[must_use]
pub const fn next(from: StateName, trigger: Trigger) -> Option<StateName> {
    use StateName as S;
    use Trigger as T;
    match (from, trigger) {
        (S::Scheduled, T::Due) => Some(S::Ready),
        (S::Scheduled | S::Ready, T::Adopted) | (S::Ready, T::Granted) => Some(S::Running),
        (S::Running, T::Completed) => Some(S::Succeeded),
        (S::Running | S::Stopping, T::Retried) => Some(S::Scheduled),
        (S::Running | S::Stopping, T::GaveUp) => Some(S::Dead),
        (S::Running, T::Returned) => Some(S::Ready),
        // A cancel or a deadline replaces a timeout as the reason to stop.
        (S::Running | S::Stopping, T::StopWanted) => Some(S::Stopping),
        (S::Scheduled | S::Ready | S::Stopping, T::Cancelled) => Some(S::Cancelled),
        (S::Scheduled | S::Ready | S::Stopping, T::Expired) => Some(S::Expired),
        (S::Dead, T::Revived) => Some(S::Ready),

        (S::Scheduled, T::Granted | T::Completed | T::Retried | T::GaveUp | T::Returned | T::StopWanted)
        | (S::Ready, T::Due | T::Completed | T::Retried | T::GaveUp | T::Returned | T::StopWanted)
        | (S::Running, T::Due | T::Granted | T::Adopted | T::Cancelled | T::Expired)
        | (S::Stopping, T::Due | T::Granted | T::Adopted | T::Completed | T::Returned)
        | (
            S::Succeeded | S::Dead | S::Cancelled | S::Expired,
            T::Due
            | T::Granted
            | T::Adopted
            | T::Completed
            | T::Retried
            | T::GaveUp
            | T::Returned
            | T::StopWanted
            | T::Cancelled
            | T::Expired,
        )
        | (S::Scheduled | S::Ready | S::Running | S::Stopping | S::Succeeded | S::Cancelled | S::Expired, T::Revived) => {
            None
        }
    }
}
