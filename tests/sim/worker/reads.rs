//! Runs that read the items of what they have called: as a caller does, each over a
//! connection of its own; see `worker/src/calls/iterate.rs`. How many they take and give
//! room for is said on that connection too, where real ones have a session for it.

use std::time::Duration;

use asynq_core::{ConsumerId, Credit, Finished, ItemBatch, LeaseToken, Outcome, Place, Refusal, TaskSpec};
use asynq_tests::history::Record;

use super::{Wake, Worker};
use crate::broker::end_of;
use crate::dice::fingerprint;
use crate::env::Env;
use crate::message::{Answer, Ask, Down, Op, Reading, Refused, Up};
use crate::net::{ConnId, To};

/// See the module.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) token: LeaseToken,
    /// Which of the calls.
    number: u64,
    spec: Box<TaskSpec>,
    consumer: ConsumerId,
    open_seq: u64,
    /// Room past what it is done with, in items and bytes.
    window: (u64, u64),
    /// It is done with what comes before.
    done: Place,
    /// Behind the last item of this opening.
    cursor: Place,
    /// The usual time it takes for what comes at once.
    pace: Duration,
}

impl Read {
    /// Room for a window past what is done.
    fn credit(&self, env: &mut Env) -> Credit {
        let credit = Credit {
            acked: self.done.index,
            limit_index: self.done.index + self.window.0,
            limit_bytes: self.done.byte + self.window.1,
        };
        env.record(Record::Credit {
            task: self.spec.id,
            items: credit.limit_index,
            bytes: credit.limit_bytes,
        });
        credit
    }
}

impl Worker {
    /// The called task is there: the run reads its items.
    pub(super) fn read(&mut self, token: LeaseToken, number: u64, spec: Box<TaskSpec>, env: &mut Env) {
        let read = Read {
            token,
            number,
            spec,
            consumer: ConsumerId(self.dice.bytes16()),
            open_seq: 1,
            window: (self.dice.int(1..12), self.dice.int(80..600)),
            done: Place::START,
            cursor: Place::START,
            pace: self
                .dice
                .long_tailed(Duration::from_micros(100)..Duration::from_secs(3)),
        };
        self.open_read(read, env);
    }

    fn open_read(&mut self, mut read: Read, env: &mut Env) {
        let conn = env.connect(self.peer(), self.life);
        let (task, from) = (read.spec.id, read.done);
        read.cursor = from;
        env.record(Record::Reads {
            task,
            index: from.index,
        });
        let credit = read.credit(env);
        let reading = Reading {
            consumer: read.consumer,
            open_seq: read.open_seq,
            from,
            credit: Credit {
                limit_bytes: read.window.1,
                ..credit
            },
            auto_ack: false,
            attach: true,
            take_over: false,
        };
        env.up(conn, Up::Iterate(read.spec.clone(), reading));
        self.reads.insert(conn, read);
    }

    /// Whether a run reads.
    pub(super) fn is_reading(&self, token: LeaseToken) -> bool {
        self.reads.values().any(|read| read.token == token)
    }

    /// A frame of a stream.
    pub(super) fn hears_of_stream(&mut self, conn: ConnId, message: Down, env: &mut Env) {
        match message {
            Down::Answer(_, Answer::Reading(_, at), _) => self.read_opened(conn, at, env),
            Down::Answer(_, Answer::Refused(Refused::ByCore(Refusal::NotPlaced(_))), _) => self.read_lost(conn, env),
            Down::Answer(_, Answer::Refused(refused), _) => self.read_refused(conn, &refused, env),
            Down::Items(batch) => self.read_items(conn, &batch, env),
            Down::StreamEnd(count, end) => self.read_over(conn, count, &end, env),
            _ => {}
        }
    }

    fn read_opened(&mut self, conn: ConnId, at: Place, env: &mut Env) {
        let Some(read) = self.reads.get(&conn) else { return };
        let (task, from) = (read.spec.id, read.done);
        if (from.index, from.byte) != (at.index, at.byte) {
            let why = format!("it begins at {at:?}, and was asked for from {from:?}");
            env.record(Record::Broken { task, why });
            self.stop_reading(conn, env);
        }
    }

    fn read_items(&mut self, conn: ConnId, batch: &ItemBatch, env: &mut Env) {
        let jitter = self.dice.int(20..200) as u32;
        let Some(read) = self.reads.get_mut(&conn) else { return };
        for (index, item) in (batch.first_index..).zip(batch.items()) {
            env.record(Record::Received {
                task: read.spec.id,
                index,
                value: fingerprint(item),
            });
            read.cursor.pass(item);
        }
        let (cursor, pause) = (read.cursor, read.pace * jitter / 100);
        self.wake_in(pause, Wake::Taken(conn, cursor), env);
    }

    /// It is done with items: there is room for more.
    pub(super) fn taken(&mut self, conn: ConnId, upto: Place, env: &mut Env) {
        let Some(read) = self.reads.get_mut(&conn) else { return };
        if upto.index <= read.done.index || !env.net.is_open(conn, To::Peer) {
            return; // what was not done with before the connection broke comes again
        }
        read.done = upto;
        let credit = read.credit(env);
        let op = Op::Flow(read.spec.id, read.consumer, read.open_seq, credit);
        env.up(conn, Up::Asks(vec![Ask { call: 0, op }]));
    }

    fn read_over(&mut self, conn: ConnId, count: u64, end: &Finished, env: &mut Env) {
        env.record(Record::Told(end.task, end_of(end)));
        env.record(Record::Over {
            task: end.task,
            count,
            whole: end.outcome == Outcome::Succeeded,
        });
        self.stop_reading(conn, env);
    }

    /// The broker will not have it read, which is right only where nothing is left of it.
    fn read_refused(&mut self, conn: ConnId, refused: &Refused, env: &mut Env) {
        if let Some(read) = self.reads.get(&conn) {
            let (task, why) = (read.spec.id, format!("{refused:?}"));
            env.record(match refused {
                Refused::ByCore(Refusal::NotFound(_)) => Record::Missing(task),
                _ => Record::Broken { task, why },
            });
        }
        self.stop_reading(conn, env);
    }

    /// The connection broke: the stream is opened again.
    pub(super) fn read_lost(&mut self, conn: ConnId, env: &mut Env) {
        env.close(conn, To::Peer);
        let pause = self.dice.time(Duration::from_millis(1)..Duration::from_millis(500));
        self.wake_in(pause, Wake::ReadAgain(conn), env);
    }

    pub(super) fn read_again(&mut self, conn: ConnId, env: &mut Env) {
        if let Some(mut read) = self.reads.remove(&conn) {
            read.open_seq += 1;
            self.open_read(read, env);
        }
    }

    /// The handler is done with the items, and goes on.
    fn stop_reading(&mut self, conn: ConnId, env: &mut Env) {
        env.close(conn, To::Peer);
        if let Some(read) = self.reads.remove(&conn) {
            let run = self.runs.get(&read.token);
            // Its end may have been told before the last of its items.
            if run.is_some_and(|run| run.calls.has(read.number)) {
                self.withdraws(read.token, read.number, env);
            } else {
                self.has_been_told(read.token, env);
            }
        }
    }

    /// The run reads no more, or not that.
    pub(super) fn drop_reads(&mut self, token: LeaseToken, number: Option<u64>, env: &mut Env) {
        let is_that = |read: &Read| read.token == token && number.is_none_or(|number| read.number == number);
        let dropped = self.reads.iter().filter(|(_, read)| is_that(read));
        let conns: Vec<ConnId> = dropped.map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.reads.remove(&conn);
            env.close(conn, To::Peer);
        }
    }
}
