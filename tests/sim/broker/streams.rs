//! Streams of items: who consumes them, how far they may go, where they come
//! from; see asynqd's `streams`.

use std::collections::BTreeMap;
use std::sync::Arc;

use asynq_core::{
    ConsumerId, Credit, Event as CoreEvent, Finished, ItemBatch, LeaseToken, Reader, Refusal, SessionId, TaskId,
    TaskSpec, Verdict,
};
use asynq_tests::history::Record;

use super::process::Process;
use crate::bug::Bug;
use crate::env::Env;
use crate::message::{Answer, Down, Emission, Reading, Refused};
use crate::net::{ConnId, To};

/// Items the broker keeps room for where it acknowledges what it has written.
const AUTO_ACK_ITEMS: u64 = 6;
/// The same in bytes.
const AUTO_ACK_BYTES: u64 = 400;

/// Streams whose end is not durable yet.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_task: BTreeMap<TaskId, Stream>,
    /// Which run an Emit connection is of.
    emitters: BTreeMap<ConnId, (SessionId, LeaseToken)>,
}

#[derive(Debug)]
struct Stream {
    id: ConsumerId,
    /// `None`: it has gone.
    consumer: Option<Consumer>,
    asked: Credit,
    given: Credit,
    sent: u64,
    emitter: Option<ConnId>,
}

#[derive(Debug, Clone, Copy)]
struct Consumer {
    conn: ConnId,
    auto_ack: bool,
    written: (u64, u64),
}

impl Consumer {
    /// Credit as far as it can be given.
    fn cap(&self, asked: Credit) -> Credit {
        if !self.auto_ack {
            return asked;
        }
        let (items, bytes) = self.written;
        Credit {
            acked: items,
            limit_index: asked.limit_index.min(items + AUTO_ACK_ITEMS),
            limit_bytes: asked.limit_bytes.min(bytes + AUTO_ACK_BYTES),
        }
    }
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.by_task.len()
    }

    /// Why a consumer may not stop a live task.
    pub(super) fn refuse_stop(&self, task: TaskId, consumer: ConsumerId) -> Option<Refusal> {
        match self.by_task.get(&task) {
            Some(stream) if stream.id == consumer => None,
            _ => Some(Refusal::BeingRead(task)),
        }
    }
}

impl Process {
    /// A task has ended, durably: its stream is over.
    pub(super) fn end_stream(&mut self, end: &Arc<Finished>) {
        let Some(stream) = self.streams.by_task.remove(&end.task) else {
            return;
        };
        self.ending.extend(stream.emitter);
        if let Some(Consumer { conn, .. }) = stream.consumer {
            self.send(conn, Down::StreamEnd(stream.sent, end.clone()));
            self.ending.push(conn);
        }
    }

    pub(super) fn iterate(&mut self, id: ConnId, call: u64, spec: Box<TaskSpec>, reading: Reading, env: &mut Env) {
        if !env.net.is_open(id, To::Broker) {
            return self.answer(id, call, Answer::Refused(Refused::StreamOver), true, env);
        }
        let consumer = Consumer {
            conn: id,
            auto_ack: reading.auto_ack,
            written: (0, 0),
        };
        let task = spec.id;
        let credit = consumer.cap(reading.credit);
        let known = self.core.is_live(task);
        let request = self.request(id, call, false);
        let reader = Some(Reader {
            consumer: reading.consumer,
            credit: self.inflated(credit, env),
        });
        self.apply(CoreEvent::Enqueue { request, spec, reader }, env);
        if !known && self.core.is_live(task) {
            let stream = Stream {
                id: reading.consumer,
                consumer: Some(consumer),
                asked: reading.credit,
                given: credit,
                sent: 0,
                emitter: None,
            };
            self.streams.by_task.insert(task, stream);
            self.record_credit(task, reading.auto_ack, credit, env);
        }
    }

    /// Who acknowledges for its consumer gives the credit itself.
    fn record_credit(&self, task: TaskId, auto_ack: bool, credit: Credit, env: &mut Env) {
        if auto_ack {
            env.record(Record::Credit {
                task,
                items: credit.limit_index,
                bytes: credit.limit_bytes,
            });
        }
    }

    fn inflated(&self, credit: Credit, env: &Env) -> Credit {
        let factor = if env.has_bug(Bug::CreditDoubled) { 2 } else { 1 };
        Credit {
            limit_index: credit.limit_index.saturating_mul(factor),
            limit_bytes: credit.limit_bytes.saturating_mul(factor),
            ..credit
        }
    }

    pub(super) fn flow(&mut self, task: TaskId, consumer: ConsumerId, credit: Credit, env: &mut Env) {
        let Some(stream) = self
            .streams
            .by_task
            .get_mut(&task)
            .filter(|stream| stream.id == consumer)
        else {
            return;
        };
        stream.asked = Credit {
            acked: stream.asked.acked.max(credit.acked),
            limit_index: stream.asked.limit_index.max(credit.limit_index),
            limit_bytes: stream.asked.limit_bytes.max(credit.limit_bytes),
        };
        self.give_credit(task, env);
    }

    fn give_credit(&mut self, task: TaskId, env: &mut Env) {
        let Some(stream) = self.streams.by_task.get_mut(&task) else {
            return;
        };
        let Some(by) = stream.consumer else { return };
        let credit = by.cap(stream.asked);
        if credit == stream.given {
            return;
        }
        stream.given = credit;
        let consumer = stream.id;
        self.record_credit(task, by.auto_ack, credit, env);
        let credit = self.inflated(credit, env);
        self.apply(CoreEvent::Flow { task, consumer, credit }, env);
    }

    /// A consumer's connection has taken items.
    pub(super) fn written_to(&mut self, conn: ConnId, items: u64, bytes: u64, env: &mut Env) {
        let of = |stream: &&mut Consumer| stream.conn == conn;
        let found = self.streams.by_task.iter_mut().find_map(|(task, stream)| {
            let consumer = stream.consumer.as_mut().filter(of)?;
            consumer.written.0 += items;
            consumer.written.1 += bytes;
            Some(*task)
        });
        if let Some(task) = found {
            self.give_credit(task, env);
        }
    }

    /// Nobody takes the items any more.
    pub(super) fn consumer_left(&mut self, conn: ConnId, env: &mut Env) {
        self.streams.emitters.remove(&conn);
        let reads = |stream: &Stream| stream.consumer.is_some_and(|consumer| consumer.conn == conn);
        let Some((&task, stream)) = self.streams.by_task.iter_mut().find(|(_, stream)| reads(stream)) else {
            return;
        };
        stream.consumer = None;
        let consumer = stream.id;
        if !env.has_bug(Bug::ReaderForgotten) {
            self.apply(CoreEvent::ReaderGone { task, consumer }, env);
        }
    }

    pub(super) fn open_emit(&mut self, conn: ConnId, session: SessionId, token: LeaseToken) {
        self.streams.emitters.insert(conn, (session, token));
        if self.core.holder(token) != Some(session) {
            let state = self.core.task(token.task).map(|view| view.record.state.name());
            self.send(conn, Down::Verdict(Verdict::Stale(state)));
            self.ending.push(conn);
            return;
        }
        if let Some(stream) = self.streams.by_task.get_mut(&token.task) {
            let given = stream.given;
            let before = stream.emitter.replace(conn);
            self.ending.extend(before);
            self.send(conn, Down::Credit(given));
        }
    }

    pub(super) fn emit(&mut self, conn: ConnId, said: Emission, env: &mut Env) {
        let Some(&(session, token)) = self.streams.emitters.get(&conn) else {
            return;
        };
        if matches!(said, Emission::End(_) | Emission::Failed(_)) {
            // It stays open for the verdict, which comes after the end of the task.
            if let Some(stream) = self.streams.by_task.get_mut(&token.task) {
                stream.emitter = None;
            }
            self.sessions.expect_verdict(token, conn);
        }
        let event = match said {
            Emission::Items(batch) => CoreEvent::Items { session, token, batch },
            Emission::Blocked(credit) => CoreEvent::Blocked { session, token, credit },
            Emission::End(count) => CoreEvent::Iterated { session, token, count },
            Emission::Failed(failure) => CoreEvent::Failed {
                session,
                token,
                failure,
                min_attempts: 0,
            },
        };
        self.apply(event, env);
    }

    /// How far a run may go.
    pub(super) fn credit(&mut self, token: LeaseToken, credit: Credit) {
        let stream = self.streams.by_task.get(&token.task);
        // Not open yet: it is told when it is.
        if let Some(emitter) = stream.and_then(|stream| stream.emitter) {
            self.send(emitter, Down::Credit(credit));
        }
    }

    /// Items for the consumer.
    pub(super) fn items(&mut self, task: TaskId, batch: ItemBatch, env: &mut Env) {
        let Some(stream) = self.streams.by_task.get_mut(&task) else {
            return;
        };
        stream.sent = batch.first_index + batch.lengths.len() as u64;
        if let Some(Consumer { conn, .. }) = stream.consumer {
            if env.has_bug(Bug::ItemsTwice) && env.dice.chance(50) {
                self.send(conn, Down::Items(batch.clone()));
            }
            self.send(conn, Down::Items(batch));
        }
    }

    /// The last word on an Emit connection, or on a large result.
    pub(super) fn last_word(&mut self, conn: ConnId, verdict: Verdict) {
        self.send(conn, Down::Verdict(verdict));
        self.ending.push(conn);
    }
}
