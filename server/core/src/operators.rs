//! What operators ask of tasks that have ended: that a dead one run again, that
//! one be forgotten. The store holds these tasks; the shell has looked them up.

use std::collections::BTreeMap;

use crate::change::Change;
use crate::core::{Core, Output};
use crate::effect::{Effect, Refusal, Reply};
use crate::event::RequestId;
use crate::filter::StateSet;
use crate::ids::{Seq, TaskId};
use crate::lifecycle::{self, Trigger};
use crate::live::Live;
use crate::task::{Counters, StateName, TaskRecord};
use crate::time::Timestamp;

impl Core {
    /// The state of a task that has not ended.
    #[must_use]
    pub fn live_state(&self, id: TaskId) -> Option<StateName> {
        self.find(id).map(|key| self.live(key).state_name())
    }

    pub(crate) fn on_retry(
        &mut self,
        now: Timestamp,
        request: RequestId,
        seq: Seq,
        record: TaskRecord,
        out: &mut Output,
    ) {
        let task = record.id;
        let reply = match self.live_state(task) {
            Some(state) => Reply::Retried {
                task,
                revived: false,
                state,
            },
            None => match self.may_revive(now, &record) {
                Ok(()) => self.revive(now, seq, record, out),
                Err(refusal) => Reply::Refused(refusal),
            },
        };
        out.effects.push(Effect::Reply(request, reply));
    }

    fn may_revive(&self, now: Timestamp, record: &TaskRecord) -> Result<(), Refusal> {
        let (task, state) = (record.id, record.state.name());
        if record.is_purged() {
            return Err(Refusal::NotFound(task));
        }
        if state != StateName::Dead {
            return Err(Refusal::NotDead { task, state });
        }
        let options = &record.options;
        let why = if options.stream {
            "its items were read as they came, and its reader is gone; iterate again under a new id"
        } else if options.deadline.is_some_and(|at| at <= now) {
            "its deadline has passed"
        } else {
            self.has_places(1)?;
            return match options.key {
                Some(_) => self.has_place_for_key(),
                None => Ok(()),
            };
        };
        Err(Refusal::NotRetryable { task, why })
    }

    /// It stands where it stood in the order, and its grants go on from its last:
    /// what a run of before has to say is stale. The last failure stays to be seen.
    fn revive(&mut self, now: Timestamp, seq: Seq, mut record: TaskRecord, out: &mut Output) -> Reply {
        let (task, queue, from) = (record.id, record.queue.clone(), record.state.name());
        // While it tells how it died.
        record.note_retry(now);
        record.counters = Counters::default();
        // The run that called it has been told of its end.
        record.called_by = None;
        let key = self.take_back(seq, record, Live::Ready);
        // Not before it is counted as ready: an empty queue is forgotten.
        self.forgot(&BTreeMap::from([((queue, from), 1)]));
        self.remember(key, out);
        let state = self.live(key).state_name();
        debug_assert_eq!(lifecycle::next(from, Trigger::Revived), Some(state));
        Reply::Retried {
            task,
            revived: true,
            state,
        }
    }

    pub(crate) fn on_purge(
        &mut self,
        request: RequestId,
        seq: Seq,
        record: TaskRecord,
        states: StateSet,
        out: &mut Output,
    ) {
        let (task, ended_as) = (record.id, record.state.name());
        let state = self.live_state(task).unwrap_or(ended_as);
        let reply = if record.is_purged() {
            Reply::Refused(Refusal::NotFound(task))
        } else if state.is_terminal() && states.contains(state) {
            let queue = record.queue.clone();
            let record = Box::new(record.purged());
            // Its id must not be as if it had never been: it may be on its way once more.
            out.changes.push(Change::Purge {
                seq,
                forget_at: record.forget_at().expect("it has ended"),
                record,
            });
            self.forgot(&BTreeMap::from([((queue, state), 1)]));
            Reply::Purged { task, state }
        } else {
            Reply::Refused(Refusal::OtherState { task, state })
        };
        out.effects.push(Effect::Reply(request, reply));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Grant, Name};
    use crate::keys::Key;
    use crate::task::{DeadReason, Finish, Options, Outcome, State};

    fn dead(key: Option<&str>) -> TaskRecord {
        let name = Name::new("x").expect("a name");
        TaskRecord {
            id: TaskId([1; 16]),
            name: name.clone(),
            queue: name.clone(),
            series: name,
            options: Options {
                key: key.map(|key| Key::new(key).expect("a key")),
                ..Options::default()
            },
            enqueued_at: Timestamp::ZERO,
            start_at: None,
            payload_bytes: 0,
            content_type: Box::default(),
            digest: 0,
            state: State::Finished(Finish {
                outcome: Outcome::Dead(DeadReason::Error),
                at: Timestamp::ZERO,
                started_at: None,
                worker: None,
                result: None,
                replaced_by: None,
                purged: false,
            }),
            grant: Grant::default(),
            counters: Counters::default(),
            failure: None,
            notes: None,
            called_by: None,
            checkpoint: None,
        }
    }

    /// Else retries would fill the memory that new tasks are refused.
    #[test]
    fn a_task_with_a_key_lives_again_only_if_there_is_room_for_keys() {
        let mut core = Core::new();
        core.most_keys = 0;
        let refused = core.may_revive(Timestamp::ZERO, &dead(Some("k")));
        assert!(
            matches!(refused, Err(Refusal::Exhausted { limit: 0, .. })),
            "{refused:?}"
        );
        assert_eq!(core.may_revive(Timestamp::ZERO, &dead(None)), Ok(()));
    }
}
