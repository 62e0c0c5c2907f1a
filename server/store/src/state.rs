//! The numbers of states on disk: in the column `tasks.state` and in records.

use asynq_core::StateName;

/// The least number of a state in which a task has ended.
pub(crate) const ENDED: u8 = 16;
/// The number of [`StateName::Dead`].
pub(crate) const DEAD: u8 = 17;

/// What a purge has left, whatever the state it ended in: in the column only.
pub(crate) const PURGED: u8 = 20;

/// The number of a state.
pub(crate) const fn code(name: StateName) -> u8 {
    match name {
        StateName::Scheduled => 1,
        StateName::Ready => 2,
        StateName::Running => 3,
        StateName::Stopping => 4,
        StateName::Succeeded => ENDED,
        StateName::Dead => DEAD,
        StateName::Cancelled => 18,
        StateName::Expired => 19,
    }
}

/// The state of a number.
pub(crate) fn name(number: u8) -> Option<StateName> {
    StateName::ALL.into_iter().find(|&name| code(name) == number)
}
