//! Who waits for which task to end.

use std::sync::Arc;

use asynq_core::TaskId;
use foldhash::HashMap;
use smallvec::SmallVec;

use super::caller::{Caller, CallerId};

/// Most often one.
type Waiting = SmallVec<[(Arc<Caller>, u64); 1]>;

/// See the module. A wait is named by its caller and the caller's call number.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_task: HashMap<TaskId, Waiting>,
    by_caller: HashMap<CallerId, HashMap<u64, TaskId>>,
}

impl Waiters {
    /// `caller` waits. A second wait with the same call number replaces the first.
    pub(crate) fn add(&mut self, task: TaskId, caller: Arc<Caller>, call: u64) {
        let calls = self.by_caller.entry(caller.id()).or_default();
        if let Some(before) = calls.insert(call, task) {
            remove_from(&mut self.by_task, before, caller.id(), call);
        }
        self.by_task.entry(task).or_default().push((caller, call));
    }

    /// `caller` waits no more. Says whether it did.
    pub(crate) fn remove(&mut self, caller: CallerId, call: u64) -> bool {
        let Some(calls) = self.by_caller.get_mut(&caller) else {
            return false;
        };
        let Some(task) = calls.remove(&call) else { return false };
        if calls.is_empty() {
            self.by_caller.remove(&caller);
        }
        remove_from(&mut self.by_task, task, caller, call);
        true
    }

    /// `caller` is gone.
    pub(crate) fn remove_caller(&mut self, caller: CallerId) {
        for (call, task) in self.by_caller.remove(&caller).into_iter().flatten() {
            remove_from(&mut self.by_task, task, caller, call);
        }
    }

    /// The task has ended: all who waited for it, who wait no more.
    pub(crate) fn take(&mut self, task: TaskId) -> Waiting {
        let waiting = self.by_task.remove(&task).unwrap_or_default();
        for (caller, call) in &waiting {
            if let Some(calls) = self.by_caller.get_mut(&caller.id()) {
                calls.remove(call);
                if calls.is_empty() {
                    self.by_caller.remove(&caller.id());
                }
            }
        }
        waiting
    }
}

fn remove_from(by_task: &mut HashMap<TaskId, Waiting>, task: TaskId, caller: CallerId, call: u64) {
    if let Some(waiting) = by_task.get_mut(&task) {
        waiting.retain(|(other, other_call)| (other.id(), *other_call) != (caller, call));
        if waiting.is_empty() {
            by_task.remove(&task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TaskId = TaskId([1; 16]);
    const B: TaskId = TaskId([2; 16]);

    fn calls(waiting: &[(Arc<Caller>, u64)]) -> Vec<u64> {
        waiting.iter().map(|(_, call)| *call).collect()
    }

    #[test]
    fn everybody_who_waits_is_found_once() {
        let (mut waiters, one, two) = (Waiters::default(), Caller::session(), Caller::session());
        waiters.add(A, one.clone(), 1);
        waiters.add(A, two.clone(), 2);
        waiters.add(B, one.clone(), 3);
        assert_eq!(calls(&waiters.take(A)), [1, 2]);
        assert!(waiters.take(A).is_empty());
        assert!(!waiters.remove(one.id(), 1));
        assert_eq!(calls(&waiters.take(B)), [3]);
        assert!(waiters.by_task.is_empty() && waiters.by_caller.is_empty());
    }

    #[test]
    fn those_who_leave_are_not_told() {
        let (mut waiters, one, two) = (Waiters::default(), Caller::session(), Caller::session());
        waiters.add(A, one.clone(), 1);
        waiters.add(A, one.clone(), 2);
        waiters.add(B, one.clone(), 3);
        waiters.add(A, two.clone(), 1);
        assert!(waiters.remove(one.id(), 2) && !waiters.remove(one.id(), 2));
        waiters.remove_caller(one.id());
        assert!(waiters.take(B).is_empty());
        assert!(Arc::ptr_eq(&waiters.take(A)[0].0, &two));
        assert!(waiters.by_task.is_empty() && waiters.by_caller.is_empty());
    }

    #[test]
    fn a_call_number_used_twice_counts_once() {
        let (mut waiters, one) = (Waiters::default(), Caller::session());
        waiters.add(A, one.clone(), 1);
        waiters.add(B, one.clone(), 1);
        assert!(waiters.take(A).is_empty());
        assert_eq!(calls(&waiters.take(B)), [1]);
    }
}
