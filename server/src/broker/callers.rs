//! The loop's part in what callers ask: live tasks are the core's business,
//! all others are looked up in the store, once, before anything is decided.

use std::collections::VecDeque;
use std::sync::Arc;

use asynq_core::{
    Call, CancelOutcome, Event, Explanation, Finish, Finished, Outcome, Reason, Refusal, Reply, RequestId, Seq, State,
    TaskId, TaskRecord, TaskSpec, TaskView,
};
use tracing::error;

use super::caller::{Answer, Ask, Caller, Enqueue, Op};
use super::consumer::Iterate;
use super::error::Error;
use super::reader::Job;
use super::run::{Held, Loop};
use crate::limits::MAX_BEHIND_READ;
use crate::server::Durability;

/// An operation under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) caller: Arc<Caller>,
    pub(super) call: u64,
    pub(super) op: Op,
}

/// Operations that wait for one id to be looked up.
pub(super) type Behind = VecDeque<Asked>;

/// A request the core will answer.
#[derive(Debug)]
pub(super) struct Request {
    caller: Arc<Caller>,
    call: u64,
    wait: bool,
}

impl Loop {
    pub(super) fn ask(&mut self, caller: &Arc<Caller>, asks: Vec<Ask>) {
        // What is found of a connection that is gone may have been sent again
        // under the same id, and have run and ended: a first send is none then.
        if caller.outbox().is_over() {
            return;
        }
        for Ask { call, op } in asks {
            match op {
                Op::Forget(call) => {
                    // A wait that is just being answered, or still looked up, is
                    // answered: the caller passes over it.
                    if self.waiters.remove(caller.id(), call) {
                        caller.settle(1);
                    }
                    continue;
                }
                Op::Flow(task, consumer, open_seq, credit) => {
                    self.flow(task, consumer, open_seq, credit);
                    continue;
                }
                _ => {}
            }
            if !caller.begin() {
                return;
            }
            self.operate(Asked {
                caller: caller.clone(),
                call,
                op,
            });
        }
    }

    fn operate(&mut self, asked: Asked) {
        let id = match &asked.op {
            Op::Enqueue(enqueue) => enqueue.spec.id,
            Op::Iterate(iterate) => iterate.task,
            Op::Wait(id)
            | Op::Cancel(id)
            | Op::Show(id)
            | Op::Explain(id)
            | Op::History(id)
            | Op::Stop(id, _)
            | Op::Retry(id)
            | Op::Purge(id, _) => *id,
            Op::Forget(_) | Op::Flow(..) => return,
            Op::SetQueue(..) => return self.set_queue(asked),
            Op::Invalid(error) => return asked.caller.answer(asked.call, Answer::Failed(error.clone()), true),
        };
        let spec = match &asked.op {
            Op::Enqueue(enqueue) => Some(&enqueue.spec),
            Op::Iterate(iterate) => iterate.spec.as_ref(),
            _ => None,
        };
        if let Some(refusal) = spec.and_then(|spec| self.refuse_promise(spec)) {
            return asked.caller.answer(asked.call, Answer::Failed(refusal.into()), true);
        }
        if let Some(behind) = self.resolving.get_mut(&id) {
            if behind.len() >= MAX_BEHIND_READ {
                let refused = Answer::Failed(Error::TooManyOnOneTask(id));
                return asked.caller.answer(asked.call, refused, true);
            }
            return behind.push_back(asked);
        }
        self.operate_on(id, asked);
    }

    /// With nothing of the id being looked up.
    pub(super) fn operate_on(&mut self, id: TaskId, asked: Asked) {
        let new = match &asked.op {
            Op::Enqueue(enqueue) => enqueue.first_send,
            Op::Iterate(iterate) => iterate.is_new,
            _ => false,
        };
        if new || self.core.is_live(id) {
            self.operate_live(id, asked);
        } else {
            self.resolve(id, Behind::from([asked]));
        }
    }

    /// A run wants no more what it has called, and that waits for the store: the core
    /// does not know of it, and must not hear of it once it is looked up.
    pub(super) fn withdraw_unseen(&mut self, call: Call) {
        let Some(behind) = self.resolving.get_mut(&call.token.child(call.n)) else {
            return;
        };
        let is_that = |asked: &Asked| matches!(&asked.op, Op::Enqueue(Enqueue { by: Some(by), .. }) if by.call == call);
        let (withdrawn, stay) = std::mem::take(behind).into_iter().partition(is_that);
        *behind = stay;
        let withdrawn: Behind = withdrawn;
        for asked in withdrawn {
            let refused = Answer::Failed(Refusal::StaleCall(call.token).into());
            asked.caller.answer(asked.call, refused, true);
        }
    }

    /// What a store that forgets cannot keep.
    pub(super) fn refuse_promise(&self, spec: &TaskSpec) -> Option<Refusal> {
        let forgets = self.broker.durability() == Durability::Memory;
        (spec.options.at_most_once && forgets).then(|| Refusal::Invalid {
            field: "options.at_most_once",
            problem: "needs a store that is durable, and this broker keeps its tasks in memory".into(),
        })
    }

    /// On a task the core knows, or a new one, whose key may have to be looked up.
    fn operate_live(&mut self, id: TaskId, asked: Asked) {
        match self.key_to_look_up(id, &asked.op) {
            Some((queue, key)) => self.resolve_key(id, queue, key, asked),
            None => self.decide(id, asked),
        }
    }

    /// On a task the core knows, or a new one.
    pub(super) fn decide(&mut self, id: TaskId, Asked { caller, call, op }: Asked) {
        if let Some(full) = self.refuse_full(&op) {
            return caller.answer(call, Answer::Failed(full), true);
        }
        match op {
            Op::Enqueue(Enqueue { spec, wait, .. }) if spec.options.key.is_some() => {
                self.enqueue_keyed(caller, call, spec, wait);
            }
            Op::Enqueue(Enqueue { spec, wait, by, .. }) => {
                if wait {
                    self.wait(id, caller.clone(), call);
                }
                let request = self.request(caller, call, wait);
                let event = match by {
                    Some(by) => self.call_of(request, by, spec),
                    None => Event::Enqueue {
                        request,
                        spec,
                        reader: None,
                    },
                };
                self.apply(event);
            }
            Op::Iterate(iterate) => self.iterate(caller, call, iterate),
            Op::Stop(task, consumer) => match self.refuse_stop(task, consumer) {
                Some(refusal) => caller.answer(call, Answer::Failed(refusal.into()), true),
                None => self.cancel(caller, call, task),
            },
            Op::Cancel(task) => self.cancel(caller, call, task),
            Op::Wait(task) => self.wait(task, caller, call),
            Op::Show(task) => {
                let view = self.core.task(task);
                let answer = view.map_or_else(|| not_found(task), |view| Answer::Shown(Box::new(view)));
                self.hold(Held::Answer(caller, call, answer));
            }
            Op::Explain(task) => {
                let why = self.core.explain(self.now, task);
                let answer = why.map_or_else(|| not_found(task), |why| Answer::Explained(Box::new(why)));
                self.hold(Held::Answer(caller, call, answer));
            }
            Op::Retry(_) | Op::Purge(..) => self.operator_on_live(id, caller, call, &op),
            Op::History(task) => {
                let view = self.core.task(task);
                let told = view.map(|view| view.record.history(view.worker.as_ref()));
                let answer = told.map_or_else(|| not_found(task), |told| Answer::History(task, told));
                self.hold(Held::Answer(caller, call, answer));
            }
            Op::Forget(_) | Op::Flow(..) | Op::SetQueue(..) | Op::Invalid(_) => {}
        }
    }

    /// Why a new task has no place on the disk. One that is known is answered.
    fn refuse_full(&self, op: &Op) -> Option<Error> {
        let (Op::Enqueue(Enqueue { spec, .. }) | Op::Iterate(Iterate { spec: Some(spec), .. })) = op else {
            return None;
        };
        let full = self.admission.refuse(spec.payload.data.len(), 1)?;
        self.core.makes_task(spec).then_some(full)
    }

    fn cancel(&mut self, caller: Arc<Caller>, call: u64, task: TaskId) {
        let request = self.request(caller, call, false);
        self.apply(Event::Cancel { request, task });
    }

    /// Notes whom the core's answer is for.
    pub(super) fn request(&mut self, caller: Arc<Caller>, call: u64, wait: bool) -> RequestId {
        RequestId(self.requests.insert(Request { caller, call, wait }) as u64)
    }

    pub(super) fn wait(&mut self, task: TaskId, caller: Arc<Caller>, call: u64) {
        // One that has gone may have been removed already, never to be again.
        if !caller.outbox().is_over() {
            self.waiters.add(task, caller, call);
        }
    }

    /// Has the store looked into, once all that was decided so far is durable.
    fn resolve(&mut self, id: TaskId, behind: Behind) {
        self.resolving.insert(id, behind);
        self.hold(Held::Read(Job::Task(id)));
    }

    /// The store has been looked into.
    pub(super) fn resolved(&mut self, id: TaskId, found: Option<(Seq, Box<TaskRecord>)>) {
        let mut behind = self.resolving.remove(&id).unwrap_or_default();
        // Once one of them has made a task of the id, or may have had it forgotten,
        // what was read is not true any more.
        let mut outdated = false;
        while let Some(asked) = behind.pop_front() {
            if self.core.is_live(id) {
                outdated = true;
                self.operate_live(id, asked);
                continue;
            }
            if outdated {
                behind.push_front(asked);
                return self.resolve(id, behind);
            }
            match (&found, &asked.op) {
                (Some((seq, record)), Op::Retry(_) | Op::Purge(..)) => {
                    outdated = true;
                    self.operator_on_ended(*seq, record, asked);
                }
                (Some((seq, record)), _) => self.operate_ended(*seq, record, asked),
                (None, Op::Iterate(Iterate { spec: None, .. })) => {
                    asked.caller.answer(asked.call, not_found(id), true);
                }
                (None, Op::Enqueue(_) | Op::Iterate(_)) if self.is_too_old(id, &asked.op) => {
                    let refused = Answer::Failed(Error::IdTooOld(id));
                    asked.caller.answer(asked.call, refused, true);
                }
                (None, Op::Enqueue(_) | Op::Iterate(_)) => {
                    outdated = true;
                    self.operate_live(id, asked);
                    if let Some(waiting) = self.resolving.get_mut(&id) {
                        // First its key is looked up.
                        return waiting.extend(behind);
                    }
                }
                (None, _) => asked.caller.answer(asked.call, not_found(id), true),
            }
        }
    }

    /// On a task that has ended.
    pub(super) fn operate_ended(&mut self, seq: Seq, record: &TaskRecord, Asked { caller, call, op }: Asked) {
        let task = record.id;
        let State::Finished(finish) = &record.state else {
            error!(%task, "the store holds a task as {} that the core does not know", record.state.name().as_str());
            return caller.answer(call, not_found(task), true);
        };
        let state = finish.outcome.state_name();
        let op = match op {
            Op::Iterate(iterate) => return self.iterate_ended(record, seq, caller, call, iterate),
            op => op,
        };
        let wait = match &op {
            Op::Enqueue(Enqueue { spec, wait, .. }) => {
                if let Some(refusal) = refuse_again(spec, record) {
                    return caller.answer(call, Answer::Failed(refusal.into()), true);
                }
                caller.answer(
                    call,
                    Answer::Enqueued {
                        task,
                        existed: true,
                        worker_known: true,
                    },
                    !wait,
                );
                *wait
            }
            Op::Wait(_) => true,
            _ => false,
        };
        let answer = match op {
            Op::Enqueue(_) | Op::Wait(_) if wait && finish.purged => Answer::Failed(Error::ResultPurged(task)),
            Op::Cancel(_) | Op::Stop(..) | Op::Show(_) | Op::Explain(_) | Op::History(_) if finish.purged => {
                not_found(task)
            }
            Op::Enqueue(_) | Op::Wait(_) if wait => {
                let finished = finished(record, finish);
                // What is left of a stream is no result.
                if finish.outcome == Outcome::Succeeded && !record.options.stream {
                    return self.reader.push(Job::Result {
                        seq,
                        finished: Box::new(finished),
                        caller,
                        call,
                    });
                }
                Answer::finished(Arc::new(finished))
            }
            Op::Cancel(_) | Op::Stop(..) => Answer::Cancelled {
                task,
                outcome: CancelOutcome::Finished,
                state,
            },
            Op::Show(_) => Answer::Shown(Box::new(TaskView::ended(record.clone()))),
            Op::Explain(_) => Answer::Explained(Box::new(explain(record, finish))),
            Op::History(_) => Answer::History(task, record.history(None)),
            Op::Enqueue(_)
            | Op::Wait(_)
            | Op::Iterate(_)
            | Op::Retry(_)
            | Op::Purge(..)
            | Op::Forget(_)
            | Op::Flow(..)
            | Op::SetQueue(..)
            | Op::Invalid(_) => return,
        };
        caller.answer(call, answer, true);
    }

    /// The core has answered, and the answer is durable.
    pub(super) fn reply(&mut self, RequestId(key): RequestId, reply: Reply) {
        let Some(Request { caller, call, wait }) = self.requests.try_remove(key as usize) else {
            return error!(key, ?reply, "the core answered a request twice");
        };
        match reply {
            Reply::Enqueued {
                task,
                existed,
                worker_known,
            } => {
                caller.answer(
                    call,
                    Answer::Enqueued {
                        task,
                        existed,
                        worker_known,
                    },
                    !wait,
                );
            }
            Reply::Attached {
                task,
                existed,
                worker_known,
                at,
            } => {
                let attached = Answer::Attached {
                    task,
                    existed,
                    worker_known,
                    at,
                };
                caller.answer(call, attached, true);
            }
            Reply::Cancelled { task, outcome, state } => {
                caller.answer(call, Answer::Cancelled { task, outcome, state }, true);
            }
            Reply::Retried { revived, state, .. } => caller.answer(call, Answer::Retried { revived, state }, true),
            Reply::QueueSet(queue) => caller.answer(call, Answer::QueueSet(queue), true),
            Reply::Purged { state, .. } => caller.answer(call, Answer::Purged(state), true),
            Reply::Refused(refusal) => {
                // A wait that was withdrawn meanwhile is settled already.
                let last = !wait || self.waiters.remove(caller.id(), call);
                caller.answer(call, Answer::Failed(refusal.into()), last);
            }
        }
    }

    /// A task has ended, durably.
    pub(super) fn finished(&mut self, finished: Finished) {
        let end = Arc::new(finished);
        self.streams.finished(&end);
        for (caller, call) in self.waiters.take(end.task) {
            caller.answer(call, Answer::finished(end.clone()), true);
        }
    }
}

/// Why an enqueue is not answered with the task it led to, which has ended.
fn refuse_again(spec: &TaskSpec, record: &TaskRecord) -> Option<Refusal> {
    if spec.id != record.id {
        return asynq_core::answer_ended(spec, record.id, record.digest).err();
    }
    let other = asynq_core::digest(spec) != record.digest;
    other.then_some(Refusal::AlreadyExists(record.id))
}

pub(super) fn not_found(task: TaskId) -> Answer {
    Answer::Failed(Refusal::NotFound(task).into())
}

/// The end of a task, as far as its record tells it.
pub(super) fn finished(record: &TaskRecord, finish: &Finish) -> Finished {
    Finished {
        task: record.id,
        outcome: finish.outcome.clone(),
        result: None,
        failure: record
            .failure
            .clone()
            .filter(|_| matches!(finish.outcome, Outcome::Dead(_))),
        enqueued_at: record.enqueued_at,
        started_at: finish.started_at,
        at: finish.at,
        attempts: record.grant.attempt,
    }
}

fn explain(record: &TaskRecord, finish: &Finish) -> Explanation {
    let message = match &finish.outcome {
        Outcome::Succeeded => "It has run and succeeded.".to_owned(),
        Outcome::Cancelled => match &finish.replaced_by {
            Some(by) => format!("Task {by}, which has its key, replaced it before it had started."),
            None => "A caller cancelled it.".to_owned(),
        },
        Outcome::Expired => "Its deadline, or its time to start, passed.".to_owned(),
        Outcome::Dead(reason) => match &record.failure {
            Some(failure) => format!(
                "It is dead ({}): {}: {}",
                reason.as_str(),
                failure.kind,
                failure.message
            ),
            None => format!("It is dead ({}).", reason.as_str()),
        },
    };
    let details = [
        ("finished_at_ms", finish.at.as_millis().to_string()),
        ("attempts", record.grant.attempt.to_string()),
    ];
    Explanation {
        task: record.id,
        state: finish.outcome.state_name(),
        reason: Reason::Finished,
        message,
        details: details.into(),
    }
}
