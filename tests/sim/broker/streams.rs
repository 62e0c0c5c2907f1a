//! Streams of items: who consumes them, how far they may go, where they come
//! from; see asynqd's `streams`.

use std::collections::BTreeMap;
use std::sync::Arc;

use asynq_core::limits::DETACH_GRACE as GRACE;
use asynq_core::{
    ConsumerId, Credit, EmitResume, Event as CoreEvent, Finished, ItemBatch, LeaseToken, Left, Place, Reader, Refusal,
    SessionId, Tail, TaskId, TaskSpec, Verdict,
};
use asynq_tests::history::Record;

use super::process::Process;
use super::seen::asker;
use crate::bug::Bug;
use crate::env::Env;
use crate::message::{Answer, Down, Emission, Reading, Refused};
use crate::net::{ConnId, Hangup, To};

/// Items the broker keeps room for where it acknowledges what it has written.
const AUTO_ACK_ITEMS: u64 = 6;
/// The same in bytes.
const AUTO_ACK_BYTES: u64 = 400;

/// What is under way of streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Of tasks whose end is not durable yet.
    by_task: BTreeMap<TaskId, Stream>,
    /// Which run an Emit connection is of.
    emitters: BTreeMap<ConnId, (SessionId, LeaseToken)>,
    /// Who asks to read a stream just now.
    asks: Option<(ConnId, Reading)>,
    /// What waits until its reader has been told that the stream is open.
    unopened: BTreeMap<ConnId, Vec<Down>>,
}

#[derive(Debug, Default)]
struct Stream {
    /// `None`: nobody reads it.
    consumer: Option<Consumer>,
    given: Credit,
    emitter: Option<ConnId>,
    /// What was handed on last, for a planted bug.
    last: Option<ItemBatch>,
}

#[derive(Debug, Clone, Copy)]
struct Consumer {
    conn: ConnId,
    id: ConsumerId,
    open_seq: u64,
    auto_ack: bool,
    /// Where its items begin.
    at: Place,
    asked: Credit,
    written: (u64, u64),
    /// One past the last item it was sent.
    head: u64,
}

impl Consumer {
    /// Credit as far as it can be given.
    fn credit(&self) -> Credit {
        if !self.auto_ack {
            return self.asked;
        }
        let (items, bytes) = (self.at.index + self.written.0, self.at.byte + self.written.1);
        Credit {
            acked: items,
            limit_index: items + AUTO_ACK_ITEMS,
            limit_bytes: bytes + AUTO_ACK_BYTES,
        }
    }
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.by_task.len()
    }

    /// Why a consumer may not stop a live task.
    pub(super) fn refuse_stop(&self, task: TaskId, consumer: ConsumerId) -> Option<Refusal> {
        let reads = self.by_task.get(&task).and_then(|stream| stream.consumer);
        let other = reads.is_some_and(|now| now.id != consumer);
        other.then_some(Refusal::BeingRead(task))
    }
}

impl Process {
    /// A task has ended, durably: its stream is over.
    pub(super) fn end_stream(&mut self, end: &Arc<Finished>) {
        let Some(stream) = self.streams.by_task.remove(&end.task) else {
            return;
        };
        self.ending.extend(stream.emitter);
        if let Some(Consumer { conn, head, .. }) = stream.consumer {
            self.frame(conn, Down::StreamEnd(head, end.clone()));
            self.ending.push(conn);
        }
    }

    /// A frame for a reader, after the one that says where its items begin.
    fn frame(&mut self, conn: ConnId, frame: Down) {
        match self.streams.unopened.get_mut(&conn) {
            Some(waiting) => waiting.push(frame),
            None => self.send(conn, frame),
        }
    }

    /// A reader is told that its stream is open.
    pub(super) fn opened(&mut self, conn: ConnId) {
        let waiting = self.streams.unopened.remove(&conn);
        waiting.into_iter().flatten().for_each(|frame| self.send(conn, frame));
    }

    pub(super) fn iterate(&mut self, id: ConnId, call: u64, spec: Box<TaskSpec>, reading: Reading, env: &mut Env) {
        if !env.net.is_open(id, To::Broker) {
            return self.answer(id, call, Answer::Refused(Refused::StreamOver), true, env);
        }
        let request = self.request(id, call, false);
        let room = Credit {
            acked: 0,
            limit_index: reading.from.index + AUTO_ACK_ITEMS,
            limit_bytes: AUTO_ACK_BYTES,
        };
        let credit = if reading.auto_ack { room } else { reading.credit };
        let reader = Reader {
            consumer: reading.consumer,
            open_seq: reading.open_seq,
            credit: self.inflated(credit, env),
            from: reading.from,
            take_over: reading.take_over,
            grace: GRACE,
        };
        self.streams.asks = Some((id, reading));
        let event = if reading.attach {
            let task = spec.id;
            CoreEvent::Attach { request, task, reader }
        } else {
            let reader = Some(reader);
            CoreEvent::Enqueue { request, spec, reader }
        };
        self.apply(event, env);
        self.streams.asks = None;
    }

    /// Who asks reads it from here on, and who did before does not.
    pub(super) fn reading(&mut self, task: TaskId, at: Place, env: &mut Env) {
        let Some((conn, reading)) = self.streams.asks.take() else {
            return;
        };
        let consumer = Consumer {
            conn,
            id: reading.consumer,
            open_seq: reading.open_seq,
            auto_ack: reading.auto_ack,
            at,
            asked: Credit {
                limit_bytes: at.byte.saturating_add(reading.credit.limit_bytes),
                ..reading.credit
            },
            written: (0, 0),
            head: at.index,
        };
        env.record(Record::Attached(task, GRACE));
        if !reading.auto_ack {
            // Its bytes count from a place that it may not know itself.
            env.record(Record::Credit {
                task,
                items: consumer.asked.limit_index,
                bytes: consumer.asked.limit_bytes,
            });
        }
        self.streams.unopened.insert(conn, Vec::new());
        let stream = self.streams.by_task.entry(task).or_default();
        stream.given = consumer.credit();
        let again = stream.last.clone().filter(|_| env.has_bug(Bug::FloorForgotten));
        let (credit, before) = (stream.given, stream.consumer.replace(consumer));
        if let Some(batch) = again {
            self.frame(conn, Down::Items(batch));
        }
        if let Some(before) = before {
            // Its question may be unanswered yet; the end of its call is the answer.
            env.record(Record::Gone(asker(before.conn)));
            self.streams.unopened.remove(&before.conn);
            self.ending.push(before.conn);
        }
        self.record_credit(task, reading.auto_ack, credit, env);
    }

    /// The items the consumer wants are gone.
    pub(super) fn not_read(&mut self, task: TaskId, env: &mut Env) {
        env.record(Record::Detached(task));
        let consumer = self
            .streams
            .by_task
            .get_mut(&task)
            .and_then(|stream| stream.consumer.take());
        self.ending.extend(consumer.map(|consumer| consumer.conn));
    }

    /// The store has been looked into for what is left of a stream.
    pub(super) fn read_tail(
        &mut self,
        end: Finished,
        tail: Option<Tail>,
        id: ConnId,
        call: u64,
        reading: &Reading,
        env: &mut Env,
    ) {
        let (task, from) = (end.task, reading.from);
        let Some(tail) = tail else {
            return self.answer(id, call, Answer::Refused(Refused::ResultExpired), true, env);
        };
        let (at, mut wanted) = match tail.read(task, &end.outcome, from) {
            Ok(read) => read,
            Err(refusal) => return self.answer(id, call, Answer::Refused(Refused::ByCore(refusal)), true, env),
        };
        self.answer(id, call, Answer::Reading(task, at), true, env);
        if env.has_bug(Bug::WholeTail) {
            wanted = tail.batches().to_vec();
        }
        // Its window was as large when they came.
        let head = wanted.last().map_or(from.index, ItemBatch::end);
        wanted.into_iter().for_each(|batch| self.send(id, Down::Items(batch)));
        self.send(id, Down::StreamEnd(head, Arc::new(end)));
        self.ending.push(id);
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

    pub(super) fn flow(
        &mut self,
        task: TaskId,
        (consumer, open_seq): (ConsumerId, u64),
        credit: Credit,
        env: &mut Env,
    ) {
        let reads = self
            .streams
            .by_task
            .get_mut(&task)
            .and_then(|stream| stream.consumer.as_mut());
        let Some(reads) = reads.filter(|now| now.id == consumer && now.open_seq == open_seq) else {
            return;
        };
        reads.asked = Credit {
            acked: reads.asked.acked.max(credit.acked),
            limit_index: reads.asked.limit_index.max(credit.limit_index),
            limit_bytes: reads.asked.limit_bytes.max(credit.limit_bytes),
        };
        self.give_credit(task, env);
    }

    fn give_credit(&mut self, task: TaskId, env: &mut Env) {
        let Some(stream) = self.streams.by_task.get_mut(&task) else {
            return;
        };
        let Some(by) = stream.consumer else { return };
        let credit = by.credit();
        if credit == stream.given {
            return;
        }
        stream.given = credit;
        self.record_credit(task, by.auto_ack, credit, env);
        let credit = self.inflated(credit, env);
        let event = CoreEvent::Flow {
            task,
            consumer: by.id,
            open_seq: by.open_seq,
            credit,
        };
        self.apply(event, env);
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

    /// Nobody takes the items any more, for now or for good.
    pub(super) fn consumer_left(&mut self, conn: ConnId, how: Hangup, env: &mut Env) {
        self.streams.emitters.remove(&conn);
        self.streams.unopened.remove(&conn);
        let reads = |stream: &Stream| stream.consumer.is_some_and(|consumer| consumer.conn == conn);
        let Some((&task, stream)) = self.streams.by_task.iter_mut().find(|(_, stream)| reads(stream)) else {
            return;
        };
        let Some(by) = stream.consumer.take() else { return };
        if !env.has_bug(Bug::ReaderForgotten) {
            let stops = by.auto_ack || how == Hangup::Clean;
            env.record(match stops {
                true => Record::Stops(task),
                false => Record::Detached(task),
            });
            let event = CoreEvent::ReaderGone {
                task,
                consumer: by.id,
                open_seq: by.open_seq,
                how: match stops || env.has_bug(Bug::CutIsStop) {
                    true => Left::Stopped,
                    false => Left::Cut,
                },
            };
            self.apply(event, env);
        }
    }

    pub(super) fn open_emit(
        &mut self,
        conn: ConnId,
        session: SessionId,
        token: LeaseToken,
        resume: Option<EmitResume>,
        env: &mut Env,
    ) {
        if !self.core.is_connected(session) {
            // It is to try again.
            self.ending.push(conn);
            return;
        }
        self.streams.emitters.insert(conn, (session, token));
        if self.core.holder(token) != Some(session) {
            let state = self.core.task(token.task).map(|view| view.record.state.name());
            self.send(conn, Down::Verdict(Verdict::Stale(state)));
            self.ending.push(conn);
            return;
        }
        if resume.is_some_and(|resume| self.core.is_old_emit(token, &resume)) {
            self.streams.emitters.remove(&conn);
            self.ending.push(conn);
            return;
        }
        let stream = self.streams.by_task.entry(token.task).or_default();
        let before = stream.emitter.replace(conn);
        self.ending.extend(before);
        self.apply(CoreEvent::EmitOpened { session, token, resume }, env);
    }

    pub(super) fn emit(&mut self, conn: ConnId, said: Emission, env: &mut Env) {
        let Some(&(session, token)) = self.streams.emitters.get(&conn) else {
            return;
        };
        let now = self.streams.by_task.get(&token.task).and_then(|stream| stream.emitter);
        if now.is_some_and(|now| now != conn) {
            return; // Another has taken its place, to which the run says all this again.
        }
        if matches!(said, Emission::End(..) | Emission::Failed(_)) {
            // It stays open for the verdict, which comes after the end of the task.
            if let Some(stream) = self.streams.by_task.get_mut(&token.task) {
                stream.emitter = None;
            }
            self.sessions.expect_verdict(token, conn);
        }
        let event = match said {
            Emission::Items(batch) => CoreEvent::Items { session, token, batch },
            Emission::Checkpoint(checkpoint) => CoreEvent::Checkpoint {
                session,
                token,
                checkpoint,
            },
            Emission::Blocked(credit) => CoreEvent::Blocked { session, token, credit },
            Emission::End(count, digest) => CoreEvent::Iterated {
                session,
                token,
                count,
                digest,
            },
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

    /// Where a run goes on whose Emit broke.
    pub(super) fn send_from(&mut self, token: LeaseToken, from: u64) {
        let stream = self.streams.by_task.get(&token.task);
        if let Some(emitter) = stream.and_then(|stream| stream.emitter) {
            self.send(emitter, Down::SendFrom(from));
        }
    }

    /// Items for the consumer.
    pub(super) fn items(&mut self, task: TaskId, batch: ItemBatch, env: &mut Env) {
        let Some(stream) = self.streams.by_task.get_mut(&task) else {
            return;
        };
        if let Some(Consumer { conn, head, .. }) = &mut stream.consumer {
            let conn = *conn;
            *head = batch.end();
            stream.last = Some(batch.clone());
            if env.has_bug(Bug::ItemsTwice) && env.dice.chance(50) {
                self.frame(conn, Down::Items(batch.clone()));
            }
            self.frame(conn, Down::Items(batch));
        }
    }

    /// The last word on an Emit connection, or on a large result.
    pub(super) fn last_word(&mut self, conn: ConnId, verdict: Verdict) {
        self.send(conn, Down::Verdict(verdict));
        self.ending.push(conn);
    }
}
