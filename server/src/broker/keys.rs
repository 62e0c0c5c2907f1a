//! The loop's part in idempotency keys, and in ids of long ago: what the core does
//! not know, the store has to be asked for before anything is decided.

use std::collections::VecDeque;
use std::sync::Arc;

use asynq_core::{Event, Key, Name, Seq, TaskId, TaskRecord, TaskSpec};

use super::caller::{Answer, Caller, Op};
use super::callers::Asked;
use super::error::Error;
use super::reader::Job;
use super::run::{Held, Loop};
use crate::limits::{ID_REACH, MAX_BEHIND_READ};

impl Loop {
    /// The key of a new task of which the core knows nothing: a task that has ended
    /// may have it.
    pub(super) fn key_to_look_up(&self, id: TaskId, op: &Op) -> Option<(Name, Key)> {
        let Op::Enqueue(enqueue) = op else { return None };
        let key = enqueue.spec.options.key.as_ref()?;
        let queue = &enqueue.spec.queue;
        let is_known = self.core.is_live(id) || self.core.keyed(queue, key).is_some();
        (!is_known).then(|| (queue.clone(), key.clone()))
    }

    /// Has the store looked into, once all that was decided so far is durable. What
    /// is asked of the id meanwhile waits, and so does who else comes with the key.
    pub(super) fn resolve_key(&mut self, id: TaskId, queue: Name, key: Key, asked: Asked) {
        let subject = (queue, key);
        if let Some(behind) = self.resolving_keys.get_mut(&subject) {
            if behind.len() >= MAX_BEHIND_READ {
                let refused = Answer::Failed(Error::TooManyOnOneKey(subject.1));
                return asked.caller.answer(asked.call, refused, true);
            }
            behind.push_back(asked);
        } else {
            self.hold(Held::Read(Job::Key(subject.0.clone(), subject.1.clone())));
            self.resolving_keys.insert(subject, VecDeque::from([asked]));
        }
        self.resolving.entry(id).or_default();
    }

    /// The store has been looked into.
    pub(super) fn key_resolved(&mut self, queue: Name, key: Key, found: Option<&(Seq, Box<TaskRecord>)>) {
        let behind = self.resolving_keys.remove(&(queue.clone(), key.clone()));
        let mut ids = Vec::new();
        for asked in behind.unwrap_or_default() {
            let Op::Enqueue(enqueue) = &asked.op else { continue };
            let id = enqueue.spec.id;
            ids.push(id);
            // Who comes first makes the task that the others are answered with.
            let is_live = self.core.is_live(id) || self.core.keyed(&queue, &key).is_some();
            match found {
                Some((seq, record)) if !is_live => self.operate_ended(*seq, record, asked),
                _ => self.decide(id, asked),
            }
        }
        // Only now: one of those might end the task again.
        for id in ids {
            let mut waiting = self.resolving.remove(&id).unwrap_or_default();
            while let Some(asked) = waiting.pop_front() {
                self.operate_on(id, asked);
                if let Some(again) = self.resolving.get_mut(&id) {
                    again.append(&mut waiting);
                }
            }
        }
    }

    /// A task with a key of which the store knows nothing, or which a live task has.
    pub(super) fn enqueue_keyed(&mut self, caller: Arc<Caller>, call: u64, spec: Box<TaskSpec>, wait: bool) {
        let (id, queue, key) = (spec.id, spec.queue.clone(), spec.options.key.clone());
        let request = self.request(caller.clone(), call, wait);
        self.apply(Event::Enqueue {
            request,
            spec,
            reader: None,
        });
        if wait {
            // Only now it is known for whose end. A refusal withdraws it.
            let keyed = || key.and_then(|key| self.core.keyed(&queue, &key));
            let task = if self.core.is_live(id) { Some(id) } else { keyed() };
            self.wait(task.unwrap_or(id), caller, call);
        }
    }

    /// Whether an id that nobody knows may be one that was known once.
    pub(super) fn is_too_old(&self, id: TaskId, op: &Op) -> bool {
        let is_fresh = match op {
            Op::Iterate(iterate) => iterate.is_fresh,
            // Its id is as old as the task that calls, and only a run that goes on calls.
            Op::Enqueue(enqueue) => enqueue.by.is_some(),
            _ => false,
        };
        // By a clock that is not believed nothing has been forgotten since.
        let now = self.believed_until.unwrap_or(self.now);
        !is_fresh && id.made_at() + ID_REACH < now
    }
}
