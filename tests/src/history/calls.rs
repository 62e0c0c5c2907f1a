//! What must hold between a run and the tasks it has called.

use std::collections::{BTreeMap, BTreeSet};

use asynq_core::{Grant, LeaseToken, StateName, TaskId};

use super::{Entry, Judge, Record, Rule, Verdict, broken, show};

/// What is durable.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Called tasks that have not ended.
    called: BTreeMap<TaskId, Called>,
    /// Tasks with a run that goes on and is not to stop, as far as was claimed.
    running: BTreeMap<TaskId, Grant>,
    /// Called tasks that are wanted no more, as the broker has heard since it was opened.
    unwanted: BTreeSet<TaskId>,
}

#[derive(Debug)]
struct Called {
    by: LeaseToken,
    stopping: bool,
}

impl Judge for Calls {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::Called(task, by) => {
                let called = Called {
                    by: *by,
                    stopping: false,
                };
                self.called.insert(*task, called);
            }
            Record::Claimed(token, _) => _ = self.running.insert(token.task, token.grant),
            Record::GivenUp(task) => _ = self.running.remove(task),
            Record::Stopping(task) => {
                self.running.remove(task);
                if let Some(called) = self.called.get_mut(task) {
                    called.stopping = true;
                }
            }
            Record::Withdrew(task) => _ = self.unwanted.insert(*task),
            // What was not on the disk it is told again.
            Record::Opened(_) => self.unwanted.clear(),
            Record::Closed(token, state) => {
                if self.unwanted.remove(&token.task) && *state == StateName::Succeeded {
                    let message = format!("{} succeeded, and its caller wanted it no more", show(*token));
                    return broken(Rule::Unwanted, message);
                }
                self.running.remove(&token.task);
                self.called.remove(&token.task);
            }
            Record::Committed => return self.nobody_is_left(),
            Record::Heard { token, n, task } if token.child(*n) != *task => {
                let message = format!("{} was told of task {task} as its call {n}", show(*token));
                return broken(Rule::WrongCall, message);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Calls {
    /// Each called task is being stopped, or its run goes on.
    fn nobody_is_left(&self) -> Verdict {
        let goes_on = |by: LeaseToken| self.running.get(&by.task) == Some(&by.grant);
        let is_left = |called: &Called| !called.stopping && !goes_on(called.by);
        match self.called.iter().find(|(_, called)| is_left(called)) {
            Some((task, called)) => {
                let message = format!(
                    "task {task} lives, and was called by {}, which does not",
                    show(called.by)
                );
                broken(Rule::Orphan, message)
            }
            None => Ok(()),
        }
    }
}
