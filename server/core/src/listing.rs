//! What sessions hold, newest first. The store cannot tell: it learns of a run
//! late, or never.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::core::Core;
use crate::filter::TaskFilter;
use crate::ids::{Name, Seq};
use crate::sched::TaskKey;
use crate::view::TaskView;

impl Core {
    /// The `limit` latest tasks that sessions hold, that fit, and that come
    /// before the place `before`; and whether there are more of them. Looks at
    /// every run there is.
    #[must_use]
    pub fn held_tasks(&self, filter: &TaskFilter, before: Option<Seq>, limit: usize) -> (Vec<(Seq, TaskView)>, bool) {
        let mut latest: BinaryHeap<Reverse<(Seq, TaskKey)>> = BinaryHeap::with_capacity(limit + 2);
        let Some(fits) = self.held_filter(filter) else {
            return (Vec::new(), false);
        };
        for &key in self.sessions.values().flat_map(|session| &session.held) {
            let seq = self.live(key).seq;
            if before.is_none_or(|before| seq < before) && fits(key) {
                latest.push(Reverse((seq, key)));
                // One more than wanted tells that there are more.
                if latest.len() > limit + 1 {
                    latest.pop();
                }
            }
        }
        let more = latest.len() > limit;
        let latest = latest.into_sorted_vec().into_iter().take(limit);
        let tasks = latest.map(|Reverse((seq, key))| (seq, self.view(key))).collect();
        (tasks, more)
    }

    /// The filter in the core's own numbers; `None` if no task here can fit.
    fn held_filter(&self, filter: &TaskFilter) -> Option<impl Fn(TaskKey) -> bool> {
        // A name no task here has fits none, which is not the same as no name.
        let number = |name: &Option<Name>| match name {
            Some(name) => self.names.find(name).map(Some),
            None => Some(None),
        };
        let (name, queue, series) = (number(&filter.name)?, number(&filter.queue)?, number(&filter.series)?);
        let (states, since) = (filter.states, filter.since);
        Some(move |key| {
            let task = self.live(key);
            states.contains(task.state_name())
                && name.is_none_or(|name| name == task.name)
                && queue.is_none_or(|queue| queue == task.queue)
                && series.is_none_or(|series| series == task.series)
                && task.enqueued_at >= since
        })
    }
}
