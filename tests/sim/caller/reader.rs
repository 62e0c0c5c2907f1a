//! A caller that reads a stream: it takes items in its own time, gives credit as
//! it does, and may leave early. It does what `client/src/iterate` does.

use std::collections::VecDeque;
use std::time::Duration;

use asynq_core::{ConsumerId, Credit, ItemBatch, Outcome, Place, Refusal, TaskId, TaskSpec};
use asynq_tests::history::Record;

use super::wants::Later;
use super::{Caller, Link, Wake};
use crate::broker::end_of;
use crate::dice::fingerprint;
use crate::env::Env;
use crate::message::{Answer, Ask, Down, Op, Reading, Refused, Up};
use crate::net::{ConnId, To};

#[derive(Debug)]
pub(super) struct Reader {
    task: TaskId,
    /// What was asked for, to be asked for again.
    spec: Box<TaskSpec>,
    /// Times it was opened.
    open_seq: u64,
    /// The fingerprint of what was asked for.
    words: u64,
    consumer: ConsumerId,
    auto_ack: bool,
    /// Room past the last item taken, in items and bytes.
    window: (u64, u64),
    told: Credit,
    /// Behind the last item received.
    received: Place,
    taken: (u64, u64),
    /// Lengths of items that have come and are not taken.
    waiting: VecDeque<u32>,
    taking: bool,
    /// The usual time it takes to take one.
    pace: Duration,
}

impl Reader {
    pub(super) fn is_auto(&self) -> bool {
        self.auto_ack
    }

    /// What the broker is to know, told again: totals do no harm twice.
    pub(super) fn latest_flow(&self) -> Option<Ask> {
        let op = Op::Flow(self.task, self.consumer, self.told);
        (!self.auto_ack).then_some(Ask { call: 0, op })
    }

    fn room(&self) -> Credit {
        Credit {
            acked: self.taken.0,
            limit_index: self.taken.0 + self.window.0,
            limit_bytes: self.taken.1 + self.window.1,
        }
    }
}

impl Caller {
    pub(super) fn open_reader(&mut self, spec: TaskSpec, env: &mut Env) {
        let conn = env.connect(self.peer(), self.life);
        let auto_ack = self.dice.chance(250);
        let mut reader = Reader {
            task: spec.id,
            spec: Box::new(spec.clone()),
            open_seq: 1,
            words: asynq_core::digest(&spec),
            consumer: ConsumerId(self.dice.bytes16()),
            auto_ack,
            window: (self.dice.int(1..12), self.dice.int(80..600)),
            told: Credit {
                acked: 0,
                limit_index: u64::MAX,
                limit_bytes: u64::MAX,
            },
            received: Place::START,
            taken: (0, 0),
            waiting: VecDeque::new(),
            taking: false,
            pace: self
                .dice
                .long_tailed(Duration::from_micros(100)..Duration::from_secs(3)),
        };
        env.record(Record::Asked(spec.id));
        if !auto_ack {
            reader.told = reader.room();
            record_credit(&reader, env);
        }
        let reading = Reading {
            consumer: reader.consumer,
            open_seq: 1,
            from: Place::START,
            credit: reader.told,
            auto_ack,
        };
        env.asked_for(&spec);
        self.readers.insert(conn, reader);
        env.up(conn, Up::Iterate(Box::new(spec), reading));
        if self.dice.chance(300) {
            self.do_later(Later::Leave(conn), Duration::from_secs(10), env);
        }
    }

    /// A frame of the stream.
    pub(super) fn reads(&mut self, conn: ConnId, message: Down, env: &mut Env) {
        match message {
            Down::Answer(_, Answer::Enqueued(task), _) => {
                env.acknowledged.insert(task);
                let words = self.readers.get(&conn).map_or(0, |reader| reader.words);
                env.record(Record::Acknowledged(task, words));
            }
            Down::Answer(_, Answer::Refused(Refused::ByCore(Refusal::NotPlaced(_))), _) => self.broken(conn, env),
            Down::Answer(..) => self.given_up(conn, env),
            Down::Items(batch) => self.items(conn, &batch, env),
            Down::StreamEnd(count, end) => {
                env.record(Record::Told(end.task, end_of(&end)));
                if end.outcome == Outcome::Succeeded {
                    env.record(Record::Whole { task: end.task, count });
                }
                self.readers.remove(&conn);
                env.close(conn, To::Peer);
            }
            _ => {}
        }
    }

    fn items(&mut self, conn: ConnId, batch: &ItemBatch, env: &mut Env) {
        let Some(reader) = self.readers.get_mut(&conn) else {
            return;
        };
        let mut start = 0;
        for (index, &length) in (batch.first_index..).zip(&batch.lengths) {
            let end = start + length as usize;
            env.record(Record::Received {
                task: reader.task,
                index,
                value: fingerprint(&batch.data[start..end]),
            });
            reader.received.pass(&batch.data[start..end]);
            start = end;
            reader.waiting.push_back(length);
        }
        if !std::mem::replace(&mut reader.taking, true) {
            let pace = reader.pace;
            self.wake_in(pace, Wake::Take(conn), env);
        }
    }

    /// Takes the next item, and gives credit once half the window is taken.
    pub(super) fn take(&mut self, conn: ConnId, env: &mut Env) {
        let jitter = self.dice.int(20..200) as u32;
        let Some(reader) = self.readers.get_mut(&conn) else {
            return;
        };
        let Some(length) = reader.waiting.pop_front() else {
            reader.taking = false;
            return;
        };
        reader.taken.0 += 1;
        reader.taken.1 += u64::from(length);
        let items_due = 2 * (reader.taken.0 - reader.told.acked) >= reader.window.0;
        let bytes_due = (reader.told.limit_bytes - reader.taken.1) <= reader.window.1 / 2;
        if (items_due || bytes_due) && !reader.auto_ack {
            reader.told = reader.room();
            record_credit(reader, env);
            if let (Link::Up(session), Some(flow)) = (self.link, reader.latest_flow()) {
                env.up(session, Up::Asks(vec![flow]));
            }
        }
        let pause = reader.pace * jitter / 100;
        self.wake_in(pause, Wake::Take(conn), env);
    }

    /// Leaves a stream before its end: says so, or just goes.
    pub(super) fn leave(&mut self, conn: ConnId, env: &mut Env) {
        let Some(reader) = self.readers.get(&conn) else { return };
        if self.dice.chance(500) {
            let op = Op::Stop(reader.task, reader.consumer);
            self.ask(op, env);
        } else {
            self.readers.remove(&conn);
            env.close(conn, To::Peer);
        }
    }

    /// The stream broke: it is opened again, from what has not come.
    pub(super) fn broken(&mut self, conn: ConnId, env: &mut Env) {
        if self.is_auto(conn) {
            return self.given_up(conn, env);
        }
        env.close(conn, To::Peer);
        let pause = self.dice.time(Duration::from_millis(1)..Duration::from_millis(500));
        self.wake_in(pause, Wake::Reopen(conn), env);
    }

    pub(super) fn reopen(&mut self, conn: ConnId, env: &mut Env) {
        let Some(mut reader) = self.readers.remove(&conn) else {
            return;
        };
        reader.open_seq += 1;
        let reading = Reading {
            consumer: reader.consumer,
            open_seq: reader.open_seq,
            from: reader.received,
            credit: Credit {
                limit_bytes: reader.told.limit_bytes - reader.received.byte,
                ..reader.told
            },
            auto_ack: false,
        };
        let again = env.connect(self.peer(), self.life);
        env.up(again, Up::Iterate(reader.spec.clone(), reading));
        if reader.taking {
            self.wake_in(reader.pace, Wake::Take(again), env);
        }
        self.readers.insert(again, reader);
    }

    /// Nobody reads it any more: what became of it the task can tell.
    fn given_up(&mut self, conn: ConnId, env: &mut Env) {
        env.close(conn, To::Peer);
        if let Some(reader) = self.readers.remove(&conn)
            && env.acknowledged.contains(&reader.task)
        {
            self.wait_later(reader.task, env);
        }
    }
}

fn record_credit(reader: &Reader, env: &mut Env) {
    env.record(Record::Credit {
        task: reader.task,
        items: reader.told.limit_index,
        bytes: reader.told.limit_bytes,
    });
}
