//! What must hold between the end of a run and the tasks it leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use asynq_core::{LeaseToken, StateName, TaskId};

use super::{Entry, Judge, Record, Rule, Verdict, broken, show};

#[derive(Debug, Default)]
pub(super) struct Spawned {
    /// What runs have returned with.
    by_run: BTreeMap<LeaseToken, Vec<TaskId>>,
    /// By whom each is spawned.
    parents: BTreeMap<TaskId, LeaseToken>,
    /// Those that have been there.
    known: BTreeSet<TaskId>,
    /// Of the commit under way: such tasks, and runs that succeed.
    made: BTreeSet<TaskId>,
    succeeded: BTreeSet<LeaseToken>,
}

impl Judge for Spawned {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::Spawns { token, tasks } => {
                self.parents.extend(tasks.iter().map(|task| (*task, *token)));
                self.by_run.insert(*token, tasks.clone());
            }
            Record::Made(task) if self.parents.contains_key(task) => {
                self.made.insert(*task);
                if !self.known.insert(*task) {
                    return broken(
                        Rule::Spawned,
                        format!("task {task} was spawned, and is made a second time"),
                    );
                }
            }
            Record::Closed(token, StateName::Succeeded) if self.by_run.contains_key(token) => {
                self.succeeded.insert(*token);
            }
            Record::Committed => return self.both_or_neither(),
            _ => {}
        }
        Ok(())
    }
}

impl Spawned {
    fn both_or_neither(&mut self) -> Verdict {
        let (made, succeeded) = (std::mem::take(&mut self.made), std::mem::take(&mut self.succeeded));
        for token in &succeeded {
            if let Some(task) = self.by_run[token].iter().find(|task| !made.contains(task)) {
                let message = format!("{} succeeds, without task {task}, which it has spawned", show(*token));
                return broken(Rule::Spawned, message);
            }
        }
        match made.iter().find(|task| !succeeded.contains(&self.parents[task])) {
            Some(task) => {
                let by = show(self.parents[task]);
                let message = format!("task {task} is made without the success of {by}, which has spawned it");
                broken(Rule::Spawned, message)
            }
            None => Ok(()),
        }
    }
}
