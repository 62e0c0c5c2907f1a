//! The loop's part in streams of items: who consumes them, how far they may go,
//! which Emit stream they come from.

use std::sync::Arc;

use asynq_core::{
    ConsumerId, Credit, Event, Finished, ItemBatch, LeaseToken, Reader, Refusal, SessionId, TaskId, Verdict,
};
use foldhash::HashMap;
use tracing::debug;

use super::caller::{Answer, Caller};
use super::consumer::{Consumer, Frame, Iterate};
use super::emitter::{Emission, EmitRun, Emitter};
use super::error::End;
use super::run::Loop;

/// Streams whose end is not durable yet.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<TaskId, Stream>);

#[derive(Debug)]
struct Stream {
    id: ConsumerId,
    /// `None`: it has gone.
    consumer: Option<Arc<Consumer>>,
    /// What the consumer has said so far.
    asked: Credit,
    /// What of that the core has been told.
    given: Credit,
    /// Items handed on.
    sent: u64,
    /// `None` before Emit is open, and once the run's end has come.
    emitter: Option<Arc<Emitter>>,
}

impl Streams {
    /// The stream this consumer takes from: not one that was refused to it,
    /// whatever it calls itself.
    fn of(&mut self, task: TaskId, consumer: &Arc<Consumer>) -> Option<&mut Stream> {
        let is_its = |stream: &&mut Stream| stream.consumer.as_ref().is_some_and(|now| Arc::ptr_eq(now, consumer));
        self.0.get_mut(&task).filter(is_its)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Items for the consumer. They may be handed on before the task itself is
    /// durable: who opened the stream takes nothing before it has been told of
    /// that.
    pub(super) fn items(&mut self, task: TaskId, batch: ItemBatch) {
        let Some(stream) = self.0.get_mut(&task) else { return };
        stream.sent = batch.first_index + batch.lengths.len() as u64;
        if let Some(consumer) = &stream.consumer {
            consumer.outbox().push(Frame::Items(batch));
        }
    }

    /// How far a run may go.
    pub(super) fn credit(&self, token: LeaseToken, credit: Credit) {
        // Not open yet: it is told when it is.
        if let Some(emitter) = self.0.get(&token.task).and_then(|stream| stream.emitter.as_ref()) {
            emitter.credit(credit);
        }
    }

    /// A task has ended, durably.
    pub(super) fn finished(&mut self, end: &Arc<Finished>) {
        let Some(stream) = self.0.remove(&end.task) else { return };
        if let Some(emitter) = stream.emitter {
            emitter.end(End::Done);
        }
        if let Some(consumer) = stream.consumer {
            consumer.outbox().push(Frame::End {
                count: stream.sent,
                end: end.clone(),
            });
            consumer.outbox().end(End::Done);
        }
    }
}

impl Loop {
    pub(super) fn iterate(&mut self, caller: Arc<Caller>, call: u64, Iterate { spec, consumer, .. }: Iterate) {
        if consumer.outbox().is_over() {
            // It has left already, and will not leave again.
            return caller.answer(call, Answer::Failed(End::Gone.into()), true);
        }
        let (task, id) = (spec.id, consumer.id());
        let credit = consumer.cap(consumer.asked());
        let known = self.core.is_live(task);
        let request = self.request(caller, call, false);
        self.apply(Event::Enqueue {
            request,
            spec,
            reader: Some(Reader { consumer: id, credit }),
        });
        if !known && self.core.is_live(task) {
            let stream = Stream {
                id,
                asked: consumer.asked(),
                consumer: Some(consumer),
                given: credit,
                sent: 0,
                emitter: None,
            };
            self.streams.0.insert(task, stream);
        }
    }

    /// The consumer has taken items, and has room for more.
    pub(super) fn flow(&mut self, task: TaskId, consumer: ConsumerId, credit: Credit) {
        let Some(stream) = self.streams.0.get_mut(&task).filter(|stream| stream.id == consumer) else {
            return;
        };
        stream.asked = Credit {
            acked: stream.asked.acked.max(credit.acked),
            limit_index: stream.asked.limit_index.max(credit.limit_index),
            limit_bytes: stream.asked.limit_bytes.max(credit.limit_bytes),
        };
        if let Some(consumer) = stream.consumer.clone() {
            self.give_credit(task, &consumer);
        }
    }

    /// Gives what credit there is, after a flow or after items were written.
    pub(super) fn give_credit(&mut self, task: TaskId, consumer: &Arc<Consumer>) {
        let Some(stream) = self.streams.of(task, consumer) else {
            return;
        };
        let credit = consumer.cap(stream.asked);
        if credit != stream.given {
            stream.given = credit;
            let consumer = consumer.id();
            self.apply(Event::Flow { task, consumer, credit });
        }
    }

    /// Nobody takes the items any more.
    pub(super) fn consumer_left(&mut self, task: TaskId, consumer: &Arc<Consumer>) {
        if let Some(stream) = self.streams.of(task, consumer) {
            stream.consumer = None;
            let consumer = consumer.id();
            self.apply(Event::ReaderGone { task, consumer });
        }
    }

    /// Why a consumer may not stop a live task.
    pub(super) fn refuse_stop(&self, task: TaskId, consumer: ConsumerId) -> Option<Refusal> {
        match self.streams.0.get(&task) {
            Some(stream) if stream.id == consumer => None,
            Some(_) => Some(Refusal::BeingRead(task)),
            None => Some(Refusal::Invalid {
                field: "id",
                problem: format!("names task {task}, which was not opened with Iterate; use Cancel"),
            }),
        }
    }

    pub(super) fn emit(&mut self, run: EmitRun, emitter: &Arc<Emitter>, said: Emission) {
        // The core refuses what a run says that is not current, and an emitter
        // that has gone may have left its last words.
        let EmitRun { session, token } = run;
        match said {
            Emission::Opened => self.open_emit(session, token, emitter),
            Emission::Items(batch) => self.apply(Event::Items { session, token, batch }),
            Emission::Blocked(credit) => self.apply(Event::Blocked { session, token, credit }),
            Emission::End(count) => {
                self.last_emission(token, emitter);
                self.apply(Event::Iterated { session, token, count });
            }
            Emission::Failed(failure) => {
                self.last_emission(token, emitter);
                self.apply(Event::Failed {
                    session,
                    token,
                    failure,
                    min_attempts: 0, // half a stream is not sent again
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

    fn open_emit(&mut self, session: SessionId, token: LeaseToken, emitter: &Arc<Emitter>) {
        if self.core.holder(token) != Some(session) {
            debug!(task = %token.task, %session, "items of a run that is not current are refused");
            let state = self.core.task(token.task).map(|view| view.record.state.name());
            return emitter.acknowledge(Verdict::Stale(state));
        }
        // Where nobody asked for a stream, the core says so to the first item.
        if let Some(stream) = self.streams.0.get_mut(&token.task) {
            // The run knows the credit of its assignment; more may have come since.
            emitter.credit(stream.given);
            if let Some(before) = stream.emitter.replace(emitter.clone()) {
                before.end(End::Superseded);
            }
        }
    }

    /// The emitter stays open for the verdict, which comes after the end of the
    /// task.
    fn last_emission(&mut self, token: LeaseToken, emitter: &Arc<Emitter>) {
        if let Some(stream) = self.streams.0.get_mut(&token.task) {
            stream.emitter = None;
        }
        self.sessions.expect_verdict(token, emitter.clone());
    }
}
