//! The loop's part in streams of items: who consumes them, how far they may go,
//! which Emit stream they come from, and what is left of them when their task has
//! ended.

use std::sync::Arc;

use asynq_core::{
    ConsumerId, Credit, EmitResume, Event, Finished, ItemBatch, LeaseToken, Left, Place, Reader, Refusal, SessionId,
    State, Tail, TaskId, TaskRecord, Verdict,
};
use foldhash::HashMap;
use tracing::debug;

use super::caller::{Answer, Caller};
use super::callers;
use super::consumer::{Consumer, Iterate};
use super::emitter::{Emission, EmitRun, Emitter};
use super::error::{End, Error};
use super::lane::Lane;
use super::reader::Job;
use super::run::Loop;

/// What is under way of streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Of tasks whose end is not durable yet.
    live: HashMap<TaskId, Stream>,
    /// Consumers of tasks that have ended, which have not been handed all yet.
    ended: HashMap<(TaskId, ConsumerId), Lane>,
    /// Who asks to read a stream just now.
    asks: Option<Arc<Consumer>>,
}

#[derive(Debug, Default)]
struct Stream {
    /// `None`: nobody reads it.
    lane: Option<Lane>,
    /// What of the consumer's credit the core has been told.
    given: Credit,
    /// `None` before Emit is open, and once the run's end has come.
    emitter: Option<Arc<Emitter>>,
}

impl Streams {
    /// What this consumer is sent of a live task: not one that was refused to it,
    /// whatever it calls itself.
    fn of(&mut self, task: TaskId, consumer: &Arc<Consumer>) -> Option<&mut Stream> {
        let is_its = |stream: &&mut Stream| stream.lane.as_ref().is_some_and(|lane| lane.is_of(consumer));
        self.live.get_mut(&task).filter(is_its)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Who asks reads it from here on, and who did before does not.
    pub(super) fn reading(&mut self, task: TaskId, at: Place) {
        let Some(consumer) = self.asks.take() else { return };
        let lane = Lane::new(consumer, at);
        let stream = self.live.entry(task).or_default();
        stream.given = lane.credit();
        if let Some(before) = stream.lane.replace(lane) {
            before.cut(Refusal::StaleReader(task));
        }
    }

    /// The items the consumer wants are gone.
    pub(super) fn not_read(&mut self, task: TaskId, floor: u64) {
        if let Some(lane) = self.live.get_mut(&task).and_then(|stream| stream.lane.take()) {
            lane.cut(Refusal::BelowFloor { task, floor });
        }
    }

    /// Items for the consumer.
    pub(super) fn items(&mut self, task: TaskId, batch: ItemBatch) {
        if let Some(lane) = self.live.get_mut(&task).and_then(|stream| stream.lane.as_mut()) {
            lane.push(batch);
        }
    }

    /// How far a run may go.
    pub(super) fn credit(&self, token: LeaseToken, credit: Credit) {
        // Not open yet: it is told when it is.
        if let Some(emitter) = self.emitter(token.task) {
            emitter.credit(credit);
        }
    }

    /// Where a run goes on whose Emit broke.
    pub(super) fn send_from(&self, token: LeaseToken, from: u64) {
        if let Some(emitter) = self.emitter(token.task) {
            emitter.send_from(from);
        }
    }

    fn emitter(&self, task: TaskId) -> Option<&Arc<Emitter>> {
        self.live.get(&task)?.emitter.as_ref()
    }

    /// A task has ended, durably.
    pub(super) fn finished(&mut self, end: &Arc<Finished>) {
        let Some(stream) = self.live.remove(&end.task) else {
            return;
        };
        if let Some(emitter) = stream.emitter {
            emitter.end(End::Done);
        }
        if let Some(mut lane) = stream.lane {
            lane.finish(end.clone());
            self.keep(end.task, lane);
        }
    }

    /// What is left of a stream whose task has ended, for one consumer.
    fn keep(&mut self, task: TaskId, lane: Lane) {
        if lane.is_over() {
            return;
        }
        let key = (task, lane.consumer().id());
        if let Some(before) = self.ended.insert(key, lane) {
            before.cut(Refusal::StaleReader(task));
        }
    }
}

impl Loop {
    /// On a task that lives, or a new one.
    pub(super) fn iterate(&mut self, caller: Arc<Caller>, call: u64, iterate: Iterate) {
        let Iterate {
            task,
            spec,
            reader,
            consumer,
            ..
        } = iterate;
        if consumer.outbox().is_over() {
            // It has left already, and will not leave again.
            return caller.answer(call, Answer::Failed(End::Gone.into()), true);
        }
        // Bytes are counted from where it begins, wherever that is.
        let from = Place { byte: 0, ..reader.from };
        let reader = Reader {
            credit: consumer.cap(consumer.asked(), from),
            ..reader
        };
        let request = self.request(caller, call, false);
        self.streams.asks = Some(consumer);
        self.apply(match spec {
            Some(spec) => Event::Enqueue {
                request,
                spec,
                reader: Some(reader),
            },
            None => Event::Attach { request, task, reader },
        });
        self.streams.asks = None;
    }

    /// On a task that has ended: what nobody has taken of it is read from the store.
    pub(super) fn iterate_ended(
        &mut self,
        record: &TaskRecord,
        seq: asynq_core::Seq,
        caller: Arc<Caller>,
        call: u64,
        iterate: Iterate,
    ) {
        let task = record.id;
        let refused = |error: Error| caller.answer(call, Answer::Failed(error), true);
        if iterate
            .spec
            .as_ref()
            .is_some_and(|spec| asynq_core::digest(spec) != record.digest)
        {
            return refused(Refusal::AlreadyExists(task).into());
        }
        if !record.options.stream {
            return refused(Refusal::NotAStream(task).into());
        }
        let State::Finished(finish) = &record.state else { return };
        if finish.purged {
            return refused(Error::ResultPurged(task));
        }
        let end = Box::new(callers::finished(record, finish));
        if finish.result.is_some() {
            let job = Job::Tail {
                seq,
                end,
                caller,
                call,
                iterate: Box::new(iterate),
            };
            return self.reader.push(job);
        }
        let nothing = Tail::nothing(iterate.reader.from);
        self.read_tail(*end, Some(nothing), &caller, call, &iterate);
    }

    /// The store has been looked into for what is left of a stream.
    pub(super) fn read_tail(
        &mut self,
        end: Finished,
        tail: Option<Tail>,
        caller: &Arc<Caller>,
        call: u64,
        iterate: &Iterate,
    ) {
        let (task, from, consumer) = (end.task, iterate.reader.from, &iterate.consumer);
        let Some(tail) = tail else {
            return caller.answer(call, Answer::Failed(Error::ResultExpired(task)), true);
        };
        if consumer.outbox().is_over() {
            return caller.answer(call, Answer::Failed(End::Gone.into()), true);
        }
        let (at, wanted) = match tail.read(task, &end.outcome, from) {
            Ok(read) => read,
            Err(refusal) => return caller.answer(call, Answer::Failed(refusal.into()), true),
        };
        let mut lane = Lane::new(consumer.clone(), at);
        wanted.into_iter().for_each(|batch| lane.push(batch));
        lane.finish(Arc::new(end));
        self.streams.keep(task, lane);
        let attached = Answer::Attached {
            task,
            existed: true,
            worker_known: true,
            at,
        };
        caller.answer(call, attached, true);
    }

    /// The consumer has taken items, and has room for more.
    pub(super) fn flow(&mut self, task: TaskId, consumer: ConsumerId, open_seq: u64, credit: Credit) {
        let follows = |lane: &&mut Lane| {
            let now = lane.consumer();
            now.id() == consumer && (open_seq == 0 || now.open_seq() == open_seq)
        };
        let Streams { live, ended, .. } = &mut self.streams;
        let lane = match ended.get_mut(&(task, consumer)) {
            None => live.get_mut(&task).and_then(|stream| stream.lane.as_mut()),
            lane => lane,
        };
        if let Some(lane) = lane.filter(follows) {
            lane.raise(credit);
            let consumer = lane.consumer().clone();
            self.give_credit(task, &consumer);
        }
    }

    /// Gives what credit there is, after a flow or after items were written.
    pub(super) fn give_credit(&mut self, task: TaskId, consumer: &Arc<Consumer>) {
        let key = (task, consumer.id());
        if let Some(lane) = self.streams.ended.get_mut(&key).filter(|lane| lane.is_of(consumer)) {
            lane.release();
            if lane.is_over() {
                self.streams.ended.remove(&key);
            }
            return;
        }
        let Some(stream) = self.streams.of(task, consumer) else {
            return;
        };
        let Some(lane) = &mut stream.lane else { return };
        lane.release();
        let credit = lane.credit();
        if credit != stream.given {
            stream.given = credit;
            self.apply(Event::Flow {
                task,
                consumer: consumer.id(),
                open_seq: consumer.open_seq(),
                credit,
            });
        }
    }

    /// Nobody takes the items any more, for now or for good.
    pub(super) fn consumer_left(&mut self, task: TaskId, consumer: &Arc<Consumer>, how: Left) {
        let key = (task, consumer.id());
        if self.streams.ended.get(&key).is_some_and(|lane| lane.is_of(consumer)) {
            self.streams.ended.remove(&key);
        }
        if let Some(stream) = self.streams.of(task, consumer) {
            stream.lane = None;
            self.apply(Event::ReaderGone {
                task,
                consumer: consumer.id(),
                open_seq: consumer.open_seq(),
                how,
            });
        }
    }

    /// Why a consumer may not stop a live task.
    pub(super) fn refuse_stop(&self, task: TaskId, consumer: ConsumerId) -> Option<Refusal> {
        let is_stream = self.core.task(task).is_some_and(|view| view.record.options.stream);
        if !is_stream {
            return Some(Refusal::Invalid {
                field: "id",
                problem: format!("names task {task}, which was not opened with Iterate; use Cancel"),
            });
        }
        let lane = self.streams.live.get(&task).and_then(|stream| stream.lane.as_ref());
        // Where nobody reads it, whoever did may stop it.
        let other = lane.is_some_and(|lane| lane.consumer().id() != consumer);
        other.then_some(Refusal::BeingRead(task))
    }

    pub(super) fn emit(&mut self, run: EmitRun, emitter: &Arc<Emitter>, said: Emission) {
        // The core refuses what a run says that is not current, and an emitter
        // that has gone may have left its last words.
        let EmitRun { session, token } = run;
        let is_other = |now: &Arc<Emitter>| !Arc::ptr_eq(now, emitter);
        if !matches!(said, Emission::Opened(_)) && self.streams.emitter(token.task).is_some_and(is_other) {
            return; // Another has taken its place, to which the run says all this again.
        }
        match said {
            Emission::Opened(resume) => self.open_emit(session, token, emitter, resume),
            Emission::Items(batch) => self.apply(Event::Items { session, token, batch }),
            Emission::Checkpoint(checkpoint) => self.apply(Event::Checkpoint {
                session,
                token,
                checkpoint,
            }),
            Emission::Blocked(credit) => self.apply(Event::Blocked { session, token, credit }),
            Emission::End(count, digest) => {
                self.last_emission(token, emitter);
                self.apply(Event::Iterated {
                    session,
                    token,
                    count,
                    digest,
                });
            }
            Emission::Failed(failure) => {
                self.last_emission(token, emitter);
                self.apply(Event::Failed {
                    session,
                    token,
                    failure,
                    min_attempts: 0,
                });
            }
            Emission::Crashed(failure) => {
                self.last_emission(token, emitter);
                self.apply(Event::Crashed {
                    session,
                    token,
                    failure,
                });
            }
        }
    }

    fn open_emit(&mut self, session: SessionId, token: LeaseToken, emitter: &Arc<Emitter>, resume: Option<EmitResume>) {
        if !self.core.is_connected(session) {
            // After a restart the session may be on its way as well; and what it
            // holds is not known before.
            return emitter.end(Error::SessionAway);
        }
        if self.core.holder(token) != Some(session) {
            debug!(task = %token.task, %session, "items of a run that is not current are refused");
            let state = self.core.task(token.task).map(|view| view.record.state.name());
            return emitter.acknowledge(Verdict::Stale(state));
        }
        if resume.is_some_and(|resume| self.core.is_old_emit(token, &resume)) {
            return emitter.end(End::Superseded);
        }
        // Where nobody asked for a stream, the core says so to the first item.
        if self
            .core
            .task(token.task)
            .is_some_and(|view| view.record.options.stream)
        {
            let stream = self.streams.live.entry(token.task).or_default();
            if let Some(before) = stream.emitter.replace(emitter.clone()) {
                before.end(End::Superseded);
            }
        }
        self.apply(Event::EmitOpened { session, token, resume });
    }

    /// The emitter stays open for the verdict, which comes after the end of the
    /// task.
    fn last_emission(&mut self, token: LeaseToken, emitter: &Arc<Emitter>) {
        if let Some(stream) = self.streams.live.get_mut(&token.task) {
            stream.emitter = None;
        }
        self.sessions.expect_verdict(token, emitter.clone());
    }
}
