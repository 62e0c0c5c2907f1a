//! A caller that reads a stream: it takes items in its own time, gives credit as
//! it does, and may leave early. Where its connection breaks it opens the stream
//! again, where it was done with it; what it has at hand comes twice. It does what
//! `client/src/iterate` does.

use std::collections::VecDeque;
use std::time::Duration;

use asynq_core::{ConsumerId, Credit, Finished, ItemBatch, OnLoss, Outcome, Place, Refusal, TaskId, TaskSpec};
use asynq_tests::history::Record;

use super::wants::{Later, on_loss};
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
    consumer: ConsumerId,
    auto_ack: bool,
    /// It was open once: the task is there.
    attach: bool,
    take_over: bool,
    /// It is open now.
    open: bool,
    /// Room past the last item taken, in items and bytes.
    window: (u64, u64),
    told: Credit,
    /// What it was done with when it told that.
    done: Place,
    /// Both, as the present opening has them.
    asked: (Credit, Place),
    /// Behind the last item taken.
    taken: Place,
    /// Behind the last item received, and behind the last of this opening.
    received: Place,
    cursor: Place,
    /// Items that have come and are not taken.
    waiting: VecDeque<Vec<u8>>,
    taking: bool,
    /// The usual time it takes to take one.
    pace: Duration,
}

/// What the next process knows of a stream that this one reads.
#[derive(Debug)]
pub(super) struct Bookmark {
    spec: Box<TaskSpec>,
    taken: Place,
}

impl Reader {
    pub(super) fn is_auto(&self) -> bool {
        self.auto_ack
    }

    /// What the broker is to know, told again: totals do no harm twice.
    pub(super) fn latest_flow(&self) -> Option<Ask> {
        let op = Op::Flow(self.task, self.consumer, self.open_seq, self.told);
        (self.open && !self.auto_ack).then_some(Ask { call: 0, op })
    }

    /// Room for a window past what is taken.
    fn make_room(&mut self, env: &mut Env) {
        self.told = Credit {
            acked: self.taken.index,
            limit_index: self.taken.index + self.window.0,
            limit_bytes: self.taken.byte + self.window.1,
        };
        self.done = self.taken;
        env.record(Record::Credit {
            task: self.task,
            items: self.told.limit_index,
            bytes: self.told.limit_bytes,
        });
    }

    /// What it asks for now, from where it was done with the stream.
    fn reading(&mut self) -> Reading {
        self.asked = (self.told, self.done);
        Reading {
            consumer: self.consumer,
            open_seq: self.open_seq,
            from: self.done,
            credit: Credit {
                limit_bytes: self.told.limit_bytes - self.done.byte,
                ..self.told
            },
            auto_ack: self.auto_ack,
            attach: self.attach,
            take_over: self.take_over,
        }
    }

    /// The stream is open, and its items begin there.
    fn opened(&mut self, at: Place) {
        if self.done.digest.is_none() && self.done == self.received {
            // It knew the index only; bytes count from here.
            self.told.limit_bytes = self.told.limit_bytes - self.done.byte + at.byte;
            (self.done, self.taken, self.received) = (at, at, at);
            self.asked = (self.told, at);
        }
        self.cursor = self.asked.1;
        (self.open, self.attach) = (true, true);
    }

    /// One more item, and whether that is the one which came here before.
    fn receive(&mut self, item: &[u8]) -> bool {
        self.cursor.pass(item);
        if self.cursor.index > self.received.index {
            self.received = self.cursor;
            self.waiting.push_back(item.to_vec());
        }
        self.cursor.index < self.received.index || self.cursor == self.received
    }
}

impl Caller {
    pub(super) fn open_reader(&mut self, spec: TaskSpec, env: &mut Env) {
        env.record(Record::Asked(spec.id));
        if on_loss(&spec.name) == OnLoss::Fail {
            env.record(Record::OneRun(spec.id));
        }
        env.asked_for(&spec);
        let auto_ack = self.dice.chance(250);
        let mut reader = self.reader(Box::new(spec), Place::START);
        if auto_ack {
            reader.auto_ack = true;
            (reader.told.limit_index, reader.told.limit_bytes) = (u64::MAX, u64::MAX);
        } else {
            reader.make_room(env);
        }
        let conn = self.open(reader, env);
        if self.dice.chance(300) {
            self.do_later(Later::Leave(conn), Duration::from_secs(10), env);
        }
    }

    fn reader(&mut self, spec: Box<TaskSpec>, from: Place) -> Reader {
        Reader {
            task: spec.id,
            spec,
            open_seq: 1,
            consumer: ConsumerId(self.dice.bytes16()),
            auto_ack: false,
            attach: false,
            take_over: false,
            open: false,
            window: (self.dice.int(1..12), self.dice.int(80..600)),
            told: Credit::default(),
            done: from,
            asked: (Credit::default(), from),
            taken: from,
            received: from,
            cursor: from,
            waiting: VecDeque::new(),
            taking: false,
            pace: self
                .dice
                .long_tailed(Duration::from_micros(100)..Duration::from_secs(3)),
        }
    }

    /// Opens the stream on a connection of its own.
    fn open(&mut self, mut reader: Reader, env: &mut Env) -> ConnId {
        let conn = env.connect(self.peer(), self.life);
        env.record(Record::Reads {
            task: reader.task,
            index: reader.done.index,
        });
        env.up(conn, Up::Iterate(reader.spec.clone(), reader.reading()));
        self.readers.insert(conn, reader);
        conn
    }

    /// The process goes; the next one may go on with some of its streams.
    pub(super) fn leave_bookmarks(&mut self, env: &mut Env) {
        for reader in std::mem::take(&mut self.readers).into_values() {
            if reader.attach && !reader.auto_ack && self.dice.chance(500) {
                self.bookmarks.push(Bookmark {
                    spec: reader.spec,
                    taken: reader.taken,
                });
            }
        }
        if !self.bookmarks.is_empty() {
            let pause = self
                .dice
                .long_tailed(Duration::from_millis(20)..Duration::from_secs(40));
            self.wake_in(pause, Wake::TakeUp, env);
        }
    }

    /// Goes on where the process before this one was.
    pub(super) fn take_up(&mut self, env: &mut Env) {
        for Bookmark { spec, taken } in std::mem::take(&mut self.bookmarks) {
            let mut reader = self.reader(spec, taken);
            (reader.attach, reader.take_over) = (true, true);
            reader.make_room(env);
            if self.dice.chance(700) {
                // It has noted the index only.
                let from = Place::at_index(taken.index);
                reader.told.limit_bytes -= taken.byte - from.byte;
                (reader.done, reader.taken, reader.received, reader.cursor) = (from, from, from, from);
            }
            self.open(reader, env);
        }
    }

    /// A frame of the stream.
    pub(super) fn reads(&mut self, conn: ConnId, message: Down, env: &mut Env) {
        match message {
            Down::Answer(_, Answer::Reading(task, at), _) => self.opened(conn, task, at, env),
            Down::Answer(_, Answer::Refused(Refused::ByCore(Refusal::NotPlaced(_))), _) => self.broken(conn, env),
            Down::Answer(_, Answer::Refused(refused), _) => self.refused(conn, &refused, env),
            Down::Items(batch) => self.items(conn, &batch, env),
            Down::StreamEnd(count, end) => self.over(conn, count, &end, env),
            _ => {}
        }
    }

    fn opened(&mut self, conn: ConnId, task: TaskId, at: Place, env: &mut Env) {
        let Some(reader) = self.readers.get_mut(&conn) else {
            return;
        };
        env.acknowledged.insert(task);
        env.record(Record::Acknowledged(task, asynq_core::digest(&reader.spec)));
        reader.opened(at);
        let from = reader.cursor;
        if (from.index, from.byte) != (at.index, at.byte) {
            let why = format!("it begins at {at:?}, and was asked for from {from:?}");
            return self.changed(conn, why, env);
        }
        // What was given meanwhile was told to nobody.
        let flow = reader.latest_flow().filter(|_| reader.told != reader.asked.0);
        if let (Link::Up(session), Some(flow)) = (self.link, flow) {
            env.up(session, Up::Asks(vec![flow]));
        }
    }

    fn over(&mut self, conn: ConnId, count: u64, end: &Finished, env: &mut Env) {
        env.record(Record::Told(end.task, end_of(end)));
        env.record(Record::Over {
            task: end.task,
            count,
            whole: end.outcome == Outcome::Succeeded,
        });
        self.readers.remove(&conn);
        env.close(conn, To::Peer);
    }

    fn items(&mut self, conn: ConnId, batch: &ItemBatch, env: &mut Env) {
        let Some(reader) = self.readers.get_mut(&conn) else {
            return;
        };
        let mut same = true;
        for (index, item) in (batch.first_index..).zip(batch.items()) {
            env.record(Record::Received {
                task: reader.task,
                index,
                value: fingerprint(item),
            });
            same &= reader.receive(item);
        }
        if !same {
            return self.changed(conn, "it yields other items than before".into(), env);
        }
        let comes = !reader.waiting.is_empty() && !std::mem::replace(&mut reader.taking, true);
        if comes {
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
        let Some(item) = reader.waiting.pop_front() else {
            reader.taking = false;
            return;
        };
        reader.taken.pass(&item);
        let items_due = 2 * (reader.taken.index - reader.told.acked) >= reader.window.0;
        let bytes_due = (reader.told.limit_bytes - reader.taken.byte) <= reader.window.1 / 2;
        if (items_due || bytes_due) && !reader.auto_ack {
            reader.make_room(env);
            if let (Link::Up(session), Some(flow)) = (self.link, reader.latest_flow()) {
                env.up(session, Up::Asks(vec![flow]));
            }
        }
        let pause = reader.pace * jitter / 100;
        self.wake_in(pause, Wake::Take(conn), env);
    }

    /// Leaves a stream before its end: says so, or ends the call, or is just gone.
    pub(super) fn leave(&mut self, conn: ConnId, env: &mut Env) {
        let Some(reader) = self.readers.get(&conn) else { return };
        let task = reader.task;
        match self.dice.int(0..3) {
            0 => {
                env.record(Record::Stops(task));
                let op = Op::Stop(task, reader.consumer);
                self.ask(op, env);
                return;
            }
            1 => env.up(conn, Up::End(true)),
            _ => {}
        }
        self.readers.remove(&conn);
        env.close(conn, To::Peer);
    }

    /// The stream broke: it is opened again.
    pub(super) fn broken(&mut self, conn: ConnId, env: &mut Env) {
        if self.is_auto(conn) {
            return self.given_up(conn, env);
        }
        env.close(conn, To::Peer);
        if let Some(reader) = self.readers.get_mut(&conn) {
            reader.open = false;
        }
        let pause = self.dice.time(Duration::from_millis(1)..Duration::from_millis(500));
        self.wake_in(pause, Wake::Reopen(conn), env);
    }

    pub(super) fn reopen(&mut self, conn: ConnId, env: &mut Env) {
        let Some(mut reader) = self.readers.remove(&conn) else {
            return;
        };
        reader.open_seq += 1;
        let takes = reader.taking.then_some(reader.pace);
        let again = self.open(reader, env);
        if let Some(pace) = takes {
            self.wake_in(pace, Wake::Take(again), env);
        }
    }

    /// The broker will not have it read. Of one that was open, only what is left of
    /// it may be kept for no time at all.
    fn refused(&mut self, conn: ConnId, refused: &Refused, env: &mut Env) {
        let short = |reader: &Reader| reader.spec.options.result_ttl == Some(Duration::ZERO);
        let expired = matches!(refused, Refused::ResultExpired);
        if let Some(reader) = self.readers.get(&conn)
            && reader.attach
            && !(expired && short(reader))
        {
            let (task, why) = (reader.task, format!("{refused:?}"));
            env.record(match refused {
                Refused::ByCore(Refusal::NotFound(_)) => Record::Missing(task),
                _ => Record::Broken { task, why },
            });
        }
        self.given_up(conn, env);
    }

    /// It is not the stream that it was.
    fn changed(&mut self, conn: ConnId, why: String, env: &mut Env) {
        if let Some(reader) = self.readers.get(&conn) {
            let task = reader.task;
            env.record(Record::Broken { task, why });
        }
        self.given_up(conn, env);
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
