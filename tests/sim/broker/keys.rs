//! Keys: what the core does not know the store has to be asked for before anything is
//! decided; see asynqd's `keys`.

use std::collections::VecDeque;

use asynq_core::{Event as CoreEvent, Key, Name, Refusal, Seq, TaskId, TaskRecord, TaskSpec};

use super::callers::{Asked, Behind};
use super::process::{Held, Process};
use super::reads::Job;
use crate::bug::Bug;
use crate::env::Env;
use crate::message::Op;
use crate::net::ConnId;

impl Process {
    /// The key of a new task of which the core knows nothing: a task that has ended
    /// may have it.
    pub(super) fn key_to_look_up(&self, id: TaskId, op: &Op, env: &Env) -> Option<(Name, Key)> {
        let Op::Enqueue { spec, .. } = op else { return None };
        let key = spec.options.key.as_ref()?;
        let is_known = self.core.is_live(id) || self.core.keyed(&spec.queue, key).is_some();
        (!is_known && !env.has_bug(Bug::KeysNotLookedUp)).then(|| (spec.queue.clone(), key.clone()))
    }

    /// Has the store looked into, once all that was decided so far is durable. What
    /// is asked of the id meanwhile waits, and so does who else comes with the key.
    pub(super) fn resolve_key(&mut self, id: TaskId, (queue, key): (Name, Key), asked: Asked) {
        let subject = (queue, key);
        if let Some(behind) = self.resolving_keys.get_mut(&subject) {
            behind.push_back(asked);
        } else {
            self.hold(Held::Read(Job::Key(subject.0.clone(), subject.1.clone())));
            self.resolving_keys.insert(subject, VecDeque::from([asked]));
        }
        self.resolving.entry(id).or_default();
    }

    /// The store has been looked into.
    pub(super) fn key_resolved(
        &mut self,
        (queue, key): (Name, Key),
        found: Option<&(Seq, Box<TaskRecord>)>,
        env: &mut Env,
    ) {
        let behind: Option<Behind> = self.resolving_keys.remove(&(queue.clone(), key.clone()));
        let mut ids = Vec::new();
        for asked in behind.unwrap_or_default() {
            let Op::Enqueue { spec, .. } = &asked.op else { continue };
            let id = spec.id;
            ids.push(id);
            // Who comes first makes the task that the others are answered with.
            let is_live = self.core.is_live(id) || self.core.keyed(&queue, &key).is_some();
            match found {
                Some((seq, record)) if !is_live => self.operate_ended(*seq, record, asked, env),
                _ => self.decide(id, asked, env),
            }
        }
        // Only now: one of those might end the task again.
        for id in ids {
            let mut waiting = self.resolving.remove(&id).unwrap_or_default();
            while let Some(asked) = waiting.pop_front() {
                self.operate_on(id, asked, env);
                if let Some(again) = self.resolving.get_mut(&id) {
                    again.append(&mut waiting);
                }
            }
        }
    }

    /// A task with a key of which the store knows nothing, or which a live task has.
    pub(super) fn enqueue_keyed(&mut self, id: ConnId, call: u64, spec: Box<TaskSpec>, wait: bool, env: &mut Env) {
        let (task, queue, key) = (spec.id, spec.queue.clone(), spec.options.key.clone());
        let request = self.request(id, call, wait);
        let event = CoreEvent::Enqueue {
            request,
            spec,
            reader: None,
        };
        self.apply(event, env);
        if wait {
            // Only now it is known for whose end. A refusal withdraws it.
            let keyed = || key.and_then(|key| self.core.keyed(&queue, &key));
            let of = if self.core.is_live(task) { Some(task) } else { keyed() };
            self.wait(of.unwrap_or(task), id, call, env);
        }
    }
}

/// Why an enqueue is not answered with the task it led to, which has ended.
pub(super) fn refuse_again(spec: &TaskSpec, record: &TaskRecord, env: &Env) -> Option<Refusal> {
    if spec.id != record.id {
        let refusal = asynq_core::answer_ended(spec, record.id, record.digest).err();
        return refusal.filter(|_| !env.has_bug(Bug::KeyIsEnough));
    }
    let other = asynq_core::digest(spec) != record.digest;
    other.then_some(Refusal::AlreadyExists(record.id))
}
