//! The end of a task: it leaves the core's memory for the store's.

use crate::change::Change;
use crate::core::{Core, Output};
use crate::effect::{Effect, Finished};
use crate::lifecycle::{self, Trigger};
use crate::limits;
use crate::sched::TaskKey;
use crate::streams::Stream;
use crate::task::{Finish, Outcome, Payload, ResultInfo, State};
use crate::time::Timestamp;

impl Core {
    /// Ends a task: it leaves the core's memory for the store's.
    pub(crate) fn finish(
        &mut self,
        now: Timestamp,
        key: TaskKey,
        trigger: Trigger,
        outcome: Outcome,
        result: Option<Payload>,
        out: &mut Output,
    ) {
        let held = self.live(key).held();
        let worker = held.map(|held| self.sessions[&held.session].worker.clone());
        self.leave_state(key, false);
        let task = self.tasks.remove(key.index());
        self.by_id.remove(task.id, key);
        if let Some(name) = task.key() {
            self.keys.remove(&(task.queue, name.clone()));
        }
        let (from, to) = (task.state_name(), outcome.state_name());
        debug_assert_eq!(lifecycle::next(from, trigger), Some(to), "{from:?} by {trigger:?}");
        self.count(task.queue, from, to);

        let mut ttl = task.result_ttl();
        let large = |result: &Payload| result.data.len() as u64 > limits::LARGE_RESULT_BYTES;
        if result.as_ref().is_some_and(large) {
            // Whoever waits for it is told, and fetches it then.
            ttl = ttl.max(limits::FETCH_GRACE);
        }
        if let Some(called) = task.called() {
            // Its run may be without a connection just now, and asks again.
            ttl = ttl.max(limits::FETCH_GRACE);
            self.answer_call(task.id, called.by);
        }
        let tail = task
            .stream()
            .filter(|_| outcome.keeps_items())
            .and_then(Stream::tail)
            .map(|tail| tail.pack());
        if tail.is_some() {
            // Whoever reads it may be without a connection just now.
            ttl = ttl.max(limits::FETCH_GRACE);
        }
        let kept = tail.as_ref().or(result.as_ref());
        let started_at = task.held().map(|held| held.started_at);
        let finish = Finish {
            outcome: outcome.clone(),
            at: now,
            started_at,
            worker,
            result: kept.map(|result| ResultInfo {
                bytes: result.data.len() as u64,
                content_type: result.content_type.clone(),
                until: now + ttl,
            }),
            replaced_by: task.extra.as_ref().and_then(|extra| extra.replaced_by.clone()),
            purged: false,
        };
        let record = task.record_as(State::Finished(finish), &self.names);
        let forget_at = record.forget_at().expect("it has just ended");
        out.effects.push(Effect::Finished(Box::new(Finished {
            task: task.id,
            outcome,
            result: result.clone(),
            failure: record.failure.clone(),
            enqueued_at: task.enqueued_at,
            started_at,
            at: now,
            attempts: task.grant.attempt,
        })));
        out.changes.push(Change::Finish {
            seq: task.seq,
            record: Box::new(record),
            result: tail.or(result).filter(|_| !ttl.is_zero()),
            forget_at,
        });
        for name in [task.name, task.queue, task.series] {
            self.names.release(name);
        }
        if let Some(called) = task.called() {
            self.names.release(called.route);
        }
    }
}
