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
use crate::limits;
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
        } else if self.tasks.len() >= limits::MAX_LIVE_TASKS {
            return Err(Refusal::Exhausted {
                what: "tasks in the broker",
                limit: limits::MAX_LIVE_TASKS as u64,
            });
        } else {
            return Ok(());
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
