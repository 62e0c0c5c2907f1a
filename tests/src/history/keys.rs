//! What must hold of keys: each has one task at a time, and whoever comes with it later
//! is answered by the rules of docs/guides/idempotency.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use asynq_core::{Key, LeaseToken, OnKey, StateName, TaskId};

use super::{Entry, Judge, Keyed, Record, Rule, Verdict, broken};

#[derive(Debug, Default)]
pub(super) struct Keys {
    /// How the key was asked for.
    modes: BTreeMap<TaskId, OnKey>,
    tasks: BTreeMap<TaskId, Task>,
    /// Tasks of which a run was granted, perhaps before they were durable.
    granted: BTreeSet<TaskId>,
    /// Which task has each, durably.
    holders: BTreeMap<Key, TaskId>,
    /// Of the commit under way: tasks with keys, and those that end before they have
    /// started.
    made: Vec<(Key, TaskId)>,
    given_up: Vec<TaskId>,
}

#[derive(Debug)]
struct Task {
    key: Key,
    words: u64,
    /// Since when a run of it is known durably, or its end.
    started: Option<Duration>,
    /// The broker was restarted since: a run may have begun of which it does not know.
    restarted: bool,
}

impl Judge for Keys {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::AsksKey(keyed) => _ = self.modes.insert(keyed.task, keyed.mode),
            Record::HasKey(task, key, words) => {
                let new = Task {
                    key: key.clone(),
                    words: *words,
                    started: None,
                    restarted: false,
                };
                self.tasks.insert(*task, new);
                self.made.push((key.clone(), *task));
            }
            Record::Granted(token, _) => {
                self.granted.insert(token.task);
            }
            // Of what began before nobody knows at first.
            Record::Opened(_) => self.tasks.values_mut().for_each(|task| task.restarted = true),
            Record::Claimed(token, _) => self.started(token.task, entry.at),
            Record::Closed(token, state) => self.closed(*token, *state, entry.at),
            Record::Committed => return self.one_each(),
            Record::KeyAnswered(keyed, task, refused) => return self.answered(keyed, *task, *refused),
            _ => {}
        }
        Ok(())
    }
}

impl Keys {
    fn started(&mut self, task: TaskId, at: Duration) {
        if let Some(task) = self.tasks.get_mut(&task) {
            task.started.get_or_insert(at);
        }
    }

    fn closed(&mut self, token: LeaseToken, state: StateName, at: Duration) {
        if state == StateName::Cancelled && token.grant.attempt == 0 {
            self.given_up.push(token.task);
        }
        self.started(token.task, at);
    }

    /// Each key that is given anew was free, or is taken from a task that has not
    /// started and ends with that.
    fn one_each(&mut self) -> Verdict {
        let given_up = std::mem::take(&mut self.given_up);
        for (key, task) in std::mem::take(&mut self.made) {
            let Some(before) = self.holders.insert(key.clone(), task) else {
                continue;
            };
            let replaces = self.modes.get(&task) == Some(&OnKey::Replace);
            if !replaces || !given_up.contains(&before) {
                let message = format!("task {task} is made with key {key:?}, which task {before} has");
                return broken(Rule::KeyTwice, message);
            }
        }
        Ok(())
    }

    fn answered(&self, keyed: &Keyed, holder: TaskId, refused: Option<bool>) -> Verdict {
        let Keyed { task, key, mode, .. } = keyed;
        let wrong = |why: &str| {
            let answer = if refused.is_some() {
                "refused for"
            } else {
                "answered with"
            };
            let message = format!("task {task}, {mode:?} for key {key:?}, is {answer} task {holder}: {why}");
            broken(Rule::KeyAnswer, message)
        };
        let Some(other) = self.tasks.get(&holder).filter(|other| other.key == *key) else {
            return wrong("that has another key, or none");
        };
        let same = other.words == keyed.words;
        // Before it was asked for, as everybody knew.
        let had_started = other.started.is_some_and(|at| at < keyed.since);
        let may_have = other.restarted || other.started.is_some() || self.granted.contains(&holder);
        match (mode, refused) {
            (_, Some(told)) if told != same => wrong("what they ask for is said to be alike, or not, and is otherwise"),
            (OnKey::Refuse, None) => wrong("it was to be refused"),
            (OnKey::Refuse, Some(_)) => Ok(()),
            (_, Some(_)) if same => wrong("both ask for the same"),
            (OnKey::Same | OnKey::Replace, None) if !same => wrong("they ask for different things"),
            (OnKey::Return, None) if !same && had_started => wrong("they ask for different things, and it had started"),
            (OnKey::Return | OnKey::Replace, Some(_)) if !may_have => wrong("it has not started"),
            _ => Ok(()),
        }
    }
}
