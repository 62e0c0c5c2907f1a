//! What must hold of each task: it is known, ends once, and by its newest grant.

use std::collections::BTreeMap;

use asynq_core::{Epoch, Grant, LeaseToken, StateName, TaskId};

use super::{End, Entry, Judge, Record, Rule, Verdict, broken, show};

#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    epoch: Epoch,
    healed: bool,
    /// The broker was asked in the end what it knows.
    found_any: bool,
}

#[derive(Debug, Default)]
struct Task {
    asked: bool,
    /// In which words it was acknowledged.
    acknowledged: Option<u64>,
    cancelling: bool,
    granted: Option<Grant>,
    returned: Vec<(Grant, u64)>,
    completed: Option<Grant>,
    end: Option<End>,
    /// How it died before an operator had it run again: news of that may come late.
    died: Option<End>,
    purged: bool,
    found: bool,
}

impl Task {
    /// An operator has it run again, which only a dead one does.
    fn revived(&mut self, id: TaskId) -> Verdict {
        let end = self.end.take();
        if let Some(other) = end.filter(|end| end.state != StateName::Dead) {
            return broken(
                Rule::GrantAfterEnd,
                format!("task {id} ended as {other:?}, and was revived"),
            );
        }
        self.died = end.or(self.died);
        self.cancelling = false;
        Ok(())
    }

    /// News of its end, which may be that of a life before.
    fn told(&mut self, id: TaskId, end: End) -> Verdict {
        if self.died.is_some_and(|died| died.state == end.state) {
            return Ok(());
        }
        self.ends(id, end)
    }

    /// One end, the same for everybody who is told.
    fn ends(&mut self, id: TaskId, end: End) -> Verdict {
        if let Some(before) = &mut self.end {
            let other_value = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
            if before.state != end.state || other_value(before.value, end.value) {
                return broken(
                    Rule::SecondEnd,
                    format!("task {id} ended as {before:?}, and then as {end:?}"),
                );
            }
            before.value = before.value.or(end.value);
        } else {
            self.end = Some(end);
        }
        if self.cancelling && end.state == StateName::Succeeded {
            return broken(
                Rule::CancelLost,
                format!("task {id} was being cancelled, and succeeded"),
            );
        }
        self.came_from_a_run(id)
    }

    /// What is told as the result was returned by the run that was accepted,
    /// where workers were watched.
    fn came_from_a_run(&self, id: TaskId) -> Verdict {
        let Some(value) = self.end.and_then(|end| end.value) else {
            return Ok(());
        };
        let by_accepted = |&(grant, returned): &(Grant, u64)| {
            returned == value && self.completed.is_none_or(|completed| completed == grant)
        };
        if self.returned.is_empty() || self.returned.iter().any(by_accepted) {
            return Ok(());
        }
        broken(
            Rule::WrongResult,
            format!("the result of task {id} is {value:x}, which its accepted run did not return"),
        )
    }
}

impl Judge for Tasks {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::Asked(id) => self.task(*id).asked = true,
            Record::Acknowledged(id, words) => return self.acknowledged(*id, *words),
            Record::Cancelling(id) => self.existing(*id)?.cancelling = true,
            Record::Told(id, end) => return self.existing(*id)?.told(*id, *end),
            Record::Ended(id, end) => return self.existing(*id)?.ends(*id, *end),
            Record::Purged(id) => self.existing(*id)?.purged = true,
            Record::Revived(id) => return self.existing(*id)?.revived(*id),
            Record::Missing(id) => return self.missing(*id),
            Record::Differs(id) => {
                let message = format!("the store remembers another thing of task {id} than the broker knows");
                return broken(Rule::Differs, message);
            }
            Record::Opened(epoch) => self.epoch = *epoch,
            Record::Granted(token, _) => return self.granted(*token),
            Record::Returned(token, value) => self.task(token.task).returned.push((token.grant, *value)),
            Record::Accepted(token, StateName::Succeeded) => return self.completed(*token),
            Record::Healed => self.healed = true,
            Record::Found(id, end) => return self.found(*id, *end),
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Verdict {
        let lost = |task: &Task| self.found_any && task.acknowledged.is_some() && !task.found && !task.purged;
        match self.tasks.iter().find(|(_, task)| lost(task)) {
            Some((id, _)) => broken(
                Rule::Lost,
                format!("task {id} was acknowledged, and the broker does not know it"),
            ),
            None => Ok(()),
        }
    }
}

impl Tasks {
    fn task(&mut self, id: TaskId) -> &mut Task {
        self.tasks.entry(id).or_default()
    }

    /// A task somebody asked for.
    fn existing(&mut self, id: TaskId) -> Result<&mut Task, (Rule, String)> {
        let task = self.tasks.entry(id).or_default();
        if task.asked {
            Ok(task)
        } else {
            Err((Rule::Phantom, format!("nobody asked for task {id}")))
        }
    }

    fn acknowledged(&mut self, id: TaskId, words: u64) -> Verdict {
        let task = self.existing(id)?;
        match task.acknowledged.replace(words).filter(|&before| before != words) {
            Some(_) => broken(
                Rule::TwoInOne,
                format!("task {id} was acknowledged to who asked for one thing, and to who asked for another"),
            ),
            None => Ok(()),
        }
    }

    fn missing(&mut self, id: TaskId) -> Verdict {
        let task = self.task(id);
        if task.acknowledged.is_some() && !task.purged {
            return broken(
                Rule::Lost,
                format!("task {id} was acknowledged, and now there is no such task"),
            );
        }
        Ok(())
    }

    fn granted(&mut self, token: LeaseToken) -> Verdict {
        let task = self.existing(token.task)?;
        if let Some(end) = task.end {
            return broken(
                Rule::GrantAfterEnd,
                format!("{} was granted, but it had ended as {end:?}", show(token)),
            );
        }
        if let Some(before) = task
            .granted
            .replace(token.grant)
            .filter(|&before| before >= token.grant)
        {
            return broken(
                Rule::TokensFall,
                format!("{} was granted after {before:?}", show(token)),
            );
        }
        Ok(())
    }

    fn completed(&mut self, token: LeaseToken) -> Verdict {
        let epoch = self.epoch;
        let task = self.existing(token.task)?;
        if let Some(before) = task
            .completed
            .replace(token.grant)
            .filter(|&before| before != token.grant)
        {
            return broken(
                Rule::SecondEnd,
                format!("a completion of {} was accepted after one of {before:?}", show(token)),
            );
        }
        // The incarnation that granted it may have granted again, and forgotten that
        // when it died: the next one takes up what it finds. No later one does.
        let counts = |newest: &Grant| newest.epoch == epoch || newest.epoch > token.grant.epoch;
        let newer = |newest: &Grant| *newest > token.grant && counts(newest);
        if let Some(newer) = task.granted.filter(newer) {
            return broken(
                Rule::Stale,
                format!("a completion of {} was accepted, but {newer:?} is newer", show(token)),
            );
        }
        task.came_from_a_run(token.task)
    }

    fn found(&mut self, id: TaskId, end: Option<End>) -> Verdict {
        self.found_any = true;
        let healed = self.healed;
        let task = self.existing(id)?;
        task.found = true;
        match end {
            Some(end) => task.ends(id, end),
            None if task.end.is_some() => {
                broken(Rule::SecondEnd, format!("task {id} ended as {:?}, and lives", task.end))
            }
            None if healed => broken(
                Rule::Stuck,
                format!("task {id} has not ended long after the last fault"),
            ),
            None => Ok(()),
        }
    }
}
