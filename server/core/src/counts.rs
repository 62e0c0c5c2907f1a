//! How many tasks of a queue are in each state.

use std::ops::{Index, IndexMut};

use crate::task::StateName;

/// A number for each state.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts([u64; StateName::ALL.len()]);

impl Counts {
    /// Every state with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StateName, u64)> {
        StateName::ALL.into_iter().map(|state| (state, self[state]))
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|&n| n == 0)
    }
}

impl Index<StateName> for Counts {
    type Output = u64;

    fn index(&self, state: StateName) -> &u64 {
        &self.0[state as usize]
    }
}

impl IndexMut<StateName> for Counts {
    fn index_mut(&mut self, state: StateName) -> &mut u64 {
        &mut self.0[state as usize]
    }
}
