//! Who waits for which task to end; see asynqd's `waiters`.

use std::collections::BTreeMap;

use asynq_core::TaskId;

use crate::net::ConnId;

#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_task: BTreeMap<TaskId, Vec<(ConnId, u64)>>,
}

impl Waiters {
    pub(super) fn add(&mut self, task: TaskId, caller: ConnId, call: u64) {
        self.by_task.entry(task).or_default().push((caller, call));
    }

    /// The call waits no more. Says whether it did.
    pub(super) fn remove(&mut self, caller: ConnId, call: u64) -> bool {
        let before = self.len();
        self.retain(|&waiting| waiting != (caller, call));
        before != self.len()
    }

    pub(super) fn remove_caller(&mut self, caller: ConnId) {
        self.retain(|&(other, _)| other != caller);
    }

    /// The task has ended: all who waited, who wait no more.
    pub(super) fn take(&mut self, task: TaskId) -> Vec<(ConnId, u64)> {
        self.by_task.remove(&task).unwrap_or_default()
    }

    /// Some task others wait for.
    pub(super) fn any_task(&self) -> Option<TaskId> {
        self.by_task.keys().next().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.values().map(Vec::len).sum()
    }

    fn retain(&mut self, keep: impl Fn(&(ConnId, u64)) -> bool) {
        self.by_task.retain(|_, waiting| {
            waiting.retain(&keep);
            !waiting.is_empty()
        });
    }
}
