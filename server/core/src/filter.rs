//! Which tasks somebody wants to see: sets of states, and what else a task
//! must fit.

use crate::ids::Name;
use crate::task::{StateName, TaskRecord};
use crate::time::Timestamp;

/// A set of states.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StateSet(u8);

impl StateSet {
    /// Every state.
    pub const ALL: Self = Self(u8::MAX);
    /// Those of a task that has not ended.
    pub const LIVE: Self = Self::HELD.with(StateName::Scheduled).with(StateName::Ready);
    /// Those of a task that a session holds.
    pub const HELD: Self = Self(0).with(StateName::Running).with(StateName::Stopping);
    /// Those of a task that has ended.
    pub const ENDED: Self = Self(Self::ALL.0 & !Self::LIVE.0);

    /// The set, and this state.
    #[must_use]
    pub const fn with(self, state: StateName) -> Self {
        Self(self.0 | 1 << state as u8)
    }

    /// Whether the state is one of them.
    #[must_use]
    pub const fn contains(self, state: StateName) -> bool {
        self.0 & 1 << state as u8 != 0
    }

    /// What is in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two have a state in common.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether each of these states is one of `other`.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

impl FromIterator<StateName> for StateSet {
    fn from_iter<I: IntoIterator<Item = StateName>>(states: I) -> Self {
        states.into_iter().fold(Self::default(), Self::with)
    }
}

/// What a task must fit, in every respect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFilter {
    /// In one of these states.
    pub states: StateSet,
    /// Of this name.
    pub name: Option<Name>,
    /// In this queue.
    pub queue: Option<Name>,
    /// Of this series.
    pub series: Option<Name>,
    /// Accepted at or after this.
    pub since: Timestamp,
}

impl TaskFilter {
    /// Every task there is.
    pub const ALL: Self = Self {
        states: StateSet::ALL,
        name: None,
        queue: None,
        series: None,
        since: Timestamp::ZERO,
    };

    /// Whether the task fits, as its record has it. One that was purged never does.
    #[must_use]
    pub fn fits(&self, task: &TaskRecord) -> bool {
        let is = |wanted: &Option<Name>, name: &Name| wanted.as_ref().is_none_or(|wanted| wanted == name);
        self.states.contains(task.state.name())
            && is(&self.name, &task.name)
            && is(&self.queue, &task.queue)
            && is(&self.series, &task.series)
            && task.enqueued_at >= self.since
            && !task.is_purged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_hold_what_they_say() {
        for state in StateName::ALL {
            assert!(StateSet::ALL.contains(state));
            assert_eq!(StateSet::ENDED.contains(state), state.is_terminal());
            assert_eq!(StateSet::LIVE.contains(state), !state.is_terminal());
            let alone = StateSet::from_iter([state]);
            let others = StateName::ALL.into_iter().filter(|&other| alone.contains(other));
            assert!(others.eq([state]));
        }
        assert!(StateSet::HELD.is_within(StateSet::LIVE) && !StateSet::LIVE.is_within(StateSet::HELD));
        assert!(!StateSet::LIVE.meets(StateSet::ENDED) && StateSet::LIVE.or(StateSet::ENDED) == StateSet::ALL);
    }
}
