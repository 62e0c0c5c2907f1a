//! What callers ask: live tasks are the core's business, all others are looked
//! up first; see asynqd's `callers`.

use std::collections::VecDeque;
use std::sync::Arc;

use asynq_core::{
    Event as CoreEvent, Finish, Finished, Grant, Outcome, Payload, Refusal, Reply, RequestId, Seq, State, StateSet,
    Tail, TaskId, TaskRecord,
};
use asynq_tests::history::Record;

use super::keys::refuse_again;
use super::process::{Held, Process};
use super::reads::Job;
use super::seen::asker;
use crate::bug::Bug;
use crate::env::Env;
use crate::message::{Answer, Ask, Down, Op, Reading, Refused};
use crate::net::ConnId;

/// An operation under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: ConnId,
    pub(super) call: u64,
    pub(super) op: Op,
}

/// Operations that wait for one id to be looked up.
pub(super) type Behind = VecDeque<Asked>;

/// A request the core will answer.
#[derive(Debug)]
pub(super) struct Request {
    id: ConnId,
    call: u64,
    wait: bool,
}

impl Process {
    pub(super) fn ask(&mut self, id: ConnId, asks: Vec<Ask>, env: &mut Env) {
        for Ask { call, op } in asks {
            match op {
                Op::Forget(call) => {
                    if self.waiters.remove(id, call) {
                        env.record(Record::Withdrawn(asker(id), call));
                    }
                }
                Op::Flow(task, consumer, open_seq, credit) => self.flow(task, (consumer, open_seq), credit, env),
                op => {
                    env.record(Record::Question(asker(id), call));
                    self.operate(Asked { id, call, op }, env);
                }
            }
        }
    }

    pub(super) fn open_stream(&mut self, id: ConnId, spec: Box<asynq_core::TaskSpec>, reading: Reading, env: &mut Env) {
        const ONLY: u64 = 0;
        env.record(Record::Question(asker(id), ONLY));
        let op = Op::Iterate(spec, reading);
        self.operate(Asked { id, call: ONLY, op }, env);
    }

    pub(super) fn operate(&mut self, asked: Asked, env: &mut Env) {
        let Some(task) = asked.op.task() else { return };
        if let Some(behind) = self.resolving.get_mut(&task) {
            return behind.push_back(asked);
        }
        self.operate_on(task, asked, env);
    }

    /// With nothing of the id being looked up.
    pub(super) fn operate_on(&mut self, task: TaskId, asked: Asked, env: &mut Env) {
        let new = matches!(asked.op, Op::Enqueue { first_send: true, .. }) || env.has_bug(Bug::NoLookup);
        if new || self.core.is_live(task) {
            self.operate_live(task, asked, env);
        } else {
            self.resolve(task, Behind::from([asked]));
        }
    }

    /// On a task the core knows, or a new one, whose key may have to be looked up.
    fn operate_live(&mut self, task: TaskId, asked: Asked, env: &mut Env) {
        match self.key_to_look_up(task, &asked.op, env) {
            Some(subject) => self.resolve_key(task, subject, asked),
            None => self.decide(task, asked, env),
        }
    }

    /// On a task the core knows, or a new one.
    pub(super) fn decide(&mut self, task: TaskId, Asked { id, call, op }: Asked, env: &mut Env) {
        match op {
            Op::Enqueue { spec, wait, .. } if spec.options.key.is_some() => {
                self.enqueue_keyed(id, call, spec, wait, env);
            }
            Op::Enqueue { spec, wait, by, .. } => {
                if wait {
                    self.wait(task, id, call, env);
                }
                let request = self.request(id, call, wait);
                let event = match by {
                    Some(by) => self.call_of(request, by, spec, env),
                    None => CoreEvent::Enqueue {
                        request,
                        spec,
                        reader: None,
                    },
                };
                self.apply(event, env);
            }
            Op::Iterate(spec, reading) => self.iterate(id, call, spec, reading, env),
            Op::Stop(task, consumer) => match self.streams.refuse_stop(task, consumer) {
                Some(refusal) => self.answer(id, call, Answer::Refused(Refused::ByCore(refusal)), true, env),
                None => self.cancel(id, call, task, env),
            },
            Op::Cancel(task) => self.cancel(id, call, task, env),
            Op::Wait(task) if self.core.is_live(task) => self.wait(task, id, call, env),
            Op::Wait(task) => self.answer(id, call, not_found(task), true, env),
            Op::Show(task) => {
                let known = self.core.task(task).is_some() && self.core.explain(self.now, task).is_some();
                let answer = if known { Answer::Shown } else { not_found(task) };
                self.hold(Held::Answer(id, call, answer));
            }
            Op::Retry(task) => {
                let lives = self.core.live_state(task).map(|_| Answer::Retried(task));
                self.hold(Held::Answer(id, call, lives.unwrap_or_else(|| not_found(task))));
            }
            Op::Purge(task) => {
                let state = self.core.live_state(task);
                let refused = state.map(|state| Answer::Refused(Refused::ByCore(Refusal::OtherState { task, state })));
                self.hold(Held::Answer(id, call, refused.unwrap_or_else(|| not_found(task))));
            }
            Op::Forget(_) | Op::Flow(..) => {}
        }
    }

    fn cancel(&mut self, id: ConnId, call: u64, task: TaskId, env: &mut Env) {
        let request = self.request(id, call, false);
        self.apply(CoreEvent::Cancel { request, task }, env);
    }

    /// Notes whom the core's answer is for.
    pub(super) fn request(&mut self, id: ConnId, call: u64, wait: bool) -> RequestId {
        self.asked += 1;
        self.requests.insert(self.asked, Request { id, call, wait });
        RequestId(self.asked)
    }

    pub(super) fn wait(&mut self, task: TaskId, id: ConnId, call: u64, env: &mut Env) {
        if env.net.is_open(id, crate::net::To::Broker) {
            self.waiters.add(task, id, call);
        }
    }

    /// Has the store looked into, once all that was decided so far is durable.
    fn resolve(&mut self, task: TaskId, behind: Behind) {
        self.resolving.insert(task, behind);
        self.hold(Held::Read(Job::Task(task)));
    }

    pub(super) fn resolved(&mut self, task: TaskId, found: Option<(Seq, Box<TaskRecord>)>, env: &mut Env) {
        let found = found.filter(|(_, record)| !(record.is_purged() && env.has_bug(Bug::IdsPurged)));
        let mut behind = self.resolving.remove(&task).unwrap_or_default();
        // Once one of them has made a task of the id, what was read is not true
        // any more.
        let mut outdated = false;
        while let Some(asked) = behind.pop_front() {
            if self.core.is_live(task) {
                outdated = true;
                self.operate_live(task, asked, env);
                continue;
            }
            if outdated {
                behind.push_front(asked);
                return self.resolve(task, behind);
            }
            match (&found, &asked.op) {
                (Some((seq, record)), op) => {
                    outdated = matches!(op, Op::Retry(_) | Op::Purge(_));
                    self.operate_ended(*seq, record, asked, env);
                }
                (None, Op::Iterate(_, reading)) if reading.attach => {
                    self.answer(asked.id, asked.call, not_found(task), true, env);
                }
                (None, Op::Enqueue { .. } | Op::Iterate(..)) => {
                    outdated = true;
                    self.operate_live(task, asked, env);
                    if let Some(waiting) = self.resolving.get_mut(&task) {
                        // First its key is looked up.
                        return waiting.extend(behind);
                    }
                }
                (None, _) => self.answer(asked.id, asked.call, not_found(task), true, env),
            }
        }
    }

    /// On a task that has ended.
    pub(super) fn operate_ended(
        &mut self,
        seq: Seq,
        record: &TaskRecord,
        Asked { id, call, op }: Asked,
        env: &mut Env,
    ) {
        let task = record.id;
        let State::Finished(finish) = &record.state else {
            env.say(format_args!(
                "the store holds {task} as live, and the core does not know it"
            ));
            return self.answer(id, call, not_found(task), true, env);
        };
        let is_stream = record.options.stream;
        let other = |spec: &asynq_core::TaskSpec| asynq_core::digest(spec) != record.digest;
        let exists = Answer::Refused(Refused::ByCore(Refusal::AlreadyExists(task)));
        let answer = match op {
            Op::Enqueue { ref spec, .. } if let Some(refusal) = refuse_again(spec, record, env) => {
                Answer::Refused(Refused::ByCore(refusal))
            }
            Op::Iterate(spec, reading) if !reading.attach && other(&spec) => exists,
            Op::Iterate(..) if !is_stream => Answer::Refused(Refused::ByCore(Refusal::NotAStream(task))),
            Op::Iterate(..) if finish.purged => Answer::Refused(Refused::ResultExpired),
            Op::Iterate(_, reading) => {
                let end = Box::new(finished(record, finish));
                return match finish.result {
                    Some(_) => self.read(Job::Tail(seq, end, id, call, reading)),
                    None => self.read_tail(*end, Some(Tail::nothing(reading.from)), id, call, &reading, env),
                };
            }
            Op::Enqueue { wait, .. } => {
                self.answer(id, call, Answer::Enqueued(task), !wait, env);
                match wait {
                    true if finish.purged => Answer::Refused(Refused::ResultExpired),
                    true => return self.tell_end(seq, (finished(record, finish), is_stream), id, call, env),
                    false => return,
                }
            }
            Op::Wait(_) if finish.purged => Answer::Refused(Refused::ResultExpired),
            Op::Cancel(_) | Op::Stop(..) | Op::Show(_) if finish.purged => not_found(task),
            Op::Wait(_) => return self.tell_end(seq, (finished(record, finish), is_stream), id, call, env),
            Op::Cancel(_) | Op::Stop(..) => Answer::Cancelled(task, finish.outcome.state_name()),
            Op::Show(_) => Answer::Shown,
            Op::Retry(_) => {
                let request = self.request(id, call, false);
                let mut record = Box::new(record.clone());
                if env.has_bug(Bug::AttemptsForgotten) {
                    record.grant = Grant::default();
                }
                return self.apply(CoreEvent::Retry { request, seq, record }, env);
            }
            Op::Purge(_) => {
                let request = self.request(id, call, false);
                let event = CoreEvent::Purge {
                    request,
                    seq,
                    record: Box::new(record.clone()),
                    states: StateSet::ENDED,
                };
                return self.apply(event, env);
            }
            Op::Forget(_) | Op::Flow(..) => return,
        };
        self.answer(id, call, answer, true, env);
    }

    /// Tells the end of a task that was looked up, with its result.
    fn tell_end(&mut self, seq: Seq, (finished, is_stream): (Finished, bool), id: ConnId, call: u64, env: &mut Env) {
        if env.has_bug(Bug::WaiterForgotten) {
            return;
        }
        // What is left of a stream is no result.
        if finished.outcome == Outcome::Succeeded && !is_stream {
            self.read(Job::Result(seq, Box::new(finished), id, call));
        } else {
            self.answer(id, call, Answer::Finished(Arc::new(finished)), true, env);
        }
    }

    pub(super) fn result_read(
        &mut self,
        finished: Finished,
        result: Option<Payload>,
        id: ConnId,
        call: u64,
        env: &mut Env,
    ) {
        let answer = match result {
            None => Answer::Refused(Refused::ResultExpired),
            result => Answer::Finished(Arc::new(Finished { result, ..finished })),
        };
        self.answer(id, call, answer, true, env);
    }

    /// The core has answered, and the answer is durable.
    pub(super) fn reply(&mut self, RequestId(key): RequestId, reply: Reply, env: &mut Env) {
        let Some(Request { id, call, wait }) = self.requests.remove(&key) else {
            panic!("the core answered request {key} twice");
        };
        let (answer, last) = match reply {
            Reply::Enqueued { task, .. } => (Answer::Enqueued(task), !wait),
            Reply::Attached { task, at, .. } => (Answer::Reading(task, at), true),
            Reply::Cancelled { task, state, .. } => (Answer::Cancelled(task, state), true),
            Reply::Retried { task, .. } => (Answer::Retried(task), true),
            Reply::Purged { task, .. } => (Answer::Purged(task), true),
            Reply::QueueSet(queue) => panic!("nobody has set queue {}", queue.name),
            Reply::Refused(refusal) => {
                let last = !wait || self.waiters.remove(id, call);
                (Answer::Refused(Refused::ByCore(refusal)), last)
            }
        };
        self.answer(id, call, answer, last, env);
    }

    /// A task has ended, durably.
    pub(super) fn finished(&mut self, finished: Finished, env: &mut Env) {
        let end = Arc::new(finished);
        self.end_stream(&end);
        let task = match self.waiters.any_task() {
            Some(other) if env.has_bug(Bug::ResultsMixedUp) => other,
            _ => end.task,
        };
        for (id, call) in self.waiters.take(task) {
            let end = if task == end.task {
                end.clone()
            } else {
                Arc::new(Finished {
                    task,
                    ..Finished::clone(&end)
                })
            };
            self.answer(id, call, Answer::Finished(end.clone()), true, env);
            if env.has_bug(Bug::ToldTwice) {
                self.answer(id, call, Answer::Finished(end), true, env);
            }
        }
    }

    pub(super) fn answer(&mut self, id: ConnId, call: u64, answer: Answer, last: bool, env: &mut Env) {
        env.record(Record::Answer(asker(id), call, last));
        let opens = matches!(answer, Answer::Reading(..));
        self.send(id, Down::Answer(call, answer, last));
        if opens {
            self.opened(id);
        }
    }
}

fn not_found(task: TaskId) -> Answer {
    Answer::Refused(Refused::ByCore(Refusal::NotFound(task)))
}

/// The end of a task, as far as its record tells it.
fn finished(record: &TaskRecord, finish: &Finish) -> Finished {
    Finished {
        task: record.id,
        outcome: finish.outcome.clone(),
        result: None,
        failure: record.failure.clone(),
        enqueued_at: record.enqueued_at,
        started_at: finish.started_at,
        at: finish.at,
        attempts: record.grant.attempt,
    }
}
