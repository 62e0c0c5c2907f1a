//! The loop: it owns the core, gathers changes, and holds back what tells of
//! them until they are durable.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use asynq_core::{
    Change, Core, Effect, Event as CoreEvent, Key, Name, Outcome, Output, Payload, Seq, StopCause, TaskId, Timestamp,
};
use asynq_store::{Opened, StoreError};
use asynq_tests::history::Record;

use super::Wake;
use super::callers::{Behind, Request};
use super::reads::{Job, Reads};
use super::seen::{end_of, record_claims};
use super::streams::Streams;
use super::waiters::Waiters;
use super::workers::Sessions;
use crate::bug::Bug;
use crate::disk::{Batch, Disk};
use crate::env::{Env, Event};
use crate::message::{Answer, Down, Up};
use crate::net::{ConnId, Hangup, To};
use crate::plan::Fault;

/// As in `server/src/limits.rs`.
const GAP: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_millis(200);

/// Something that waits for what was decided before it to be durable.
#[derive(Debug)]
pub(super) enum Held {
    Effect(Effect),
    Answer(ConnId, u64, Answer),
    Read(Job),
}

#[derive(Debug)]
enum Arrived {
    Message(ConnId, Up),
    HungUp(ConnId, Hangup),
    Wrote(ConnId, u64, u64),
}

#[derive(Debug, Default)]
struct Gathering {
    changes: Vec<Change>,
    held: Vec<Held>,
    last_insert: Seq,
}

/// See the module.
pub(super) struct Process {
    pub(super) life: u32,
    pub(super) core: Core,
    pub(super) out: Output,
    /// The time of the turn, on the broker's clock.
    pub(super) now: Timestamp,
    pub(super) requests: BTreeMap<u64, Request>,
    pub(super) asked: u64,
    pub(super) waiters: Waiters,
    pub(super) resolving: BTreeMap<TaskId, Behind>,
    pub(super) resolving_keys: BTreeMap<(Name, Key), Behind>,
    pub(super) sessions: Sessions,
    pub(super) streams: Streams,
    /// Arguments in memory; `None` for those too large to ride along.
    pub(super) arguments: BTreeMap<Seq, Option<Payload>>,
    pub(super) durable: Seq,
    /// When the process began, and what its clock read then.
    began: (Duration, Timestamp),
    epoch: asynq_core::Epoch,
    last_batch: u64,
    inbox: VecDeque<Arrived>,
    turn_due: bool,
    time_due: Option<Duration>,
    /// What has become due is not looked at before.
    settled: Duration,
    gathering: Gathering,
    in_flight: Option<(Vec<Held>, Seq)>,
    pub(super) reads: Reads,
    outgoing: BTreeMap<ConnId, Vec<Down>>,
    /// Connections to be closed once what they were told has gone out.
    pub(super) ending: Vec<ConnId>,
}

impl Process {
    pub(super) fn new(life: u32, core: Core, opened: &Opened, began: (Duration, Timestamp)) -> Self {
        let mut sessions = Sessions::default();
        opened.sessions.iter().for_each(|session| sessions.remember(session.id));
        Self {
            life,
            core,
            out: Output::default(),
            now: began.1,
            requests: BTreeMap::new(),
            asked: 0,
            waiters: Waiters::default(),
            resolving: BTreeMap::new(),
            resolving_keys: BTreeMap::new(),
            sessions,
            streams: Streams::default(),
            arguments: BTreeMap::new(),
            durable: Seq(opened.next_seq.0.saturating_sub(1)),
            began,
            epoch: opened.epoch,
            last_batch: opened.last_batch,
            inbox: VecDeque::new(),
            turn_due: false,
            time_due: None,
            settled: Duration::ZERO,
            gathering: Gathering::default(),
            in_flight: None,
            reads: Reads::default(),
            outgoing: BTreeMap::new(),
            ending: Vec::new(),
        }
    }

    /// Takes in what the restart led to.
    pub(super) fn begin(&mut self, disk: &mut Disk, env: &mut Env) -> Result<(), StoreError> {
        self.absorb(env);
        self.end_turn(disk, env)
    }

    pub(super) fn arrives(&mut self, id: ConnId, message: Up, env: &mut Env) {
        self.take_in(Arrived::Message(id, message), env);
    }

    pub(super) fn hung_up(&mut self, id: ConnId, how: Hangup, env: &mut Env) {
        self.take_in(Arrived::HungUp(id, how), env);
    }

    pub(super) fn wrote(&mut self, id: ConnId, items: u64, bytes: u64, env: &mut Env) {
        self.take_in(Arrived::Wrote(id, items, bytes), env);
    }

    fn take_in(&mut self, arrived: Arrived, env: &mut Env) {
        self.inbox.push_back(arrived);
        if !std::mem::replace(&mut self.turn_due, true) {
            let soon = env.dice.time(Duration::from_micros(1)..Duration::from_micros(200));
            env.schedule(soon, Event::Broker(self.life, Wake::Turn));
        }
    }

    /// One turn of the loop.
    pub(super) fn turn(&mut self, wake: Wake, disk: &mut Disk, env: &mut Env) -> Result<(), StoreError> {
        self.now = self.began.1 + (env.now - self.began.0);
        if let Some(gap) = env.take_gap().filter(|&gap| gap > GAP) {
            self.apply(CoreEvent::Gap(gap), env);
            self.settled = env.now + SETTLE;
        }
        if env.now >= self.settled && self.core.next_wakeup().is_some_and(|due| due <= self.now) {
            self.apply(CoreEvent::Tick, env);
        }
        match wake {
            Wake::Written => self.written(disk, env)?,
            Wake::Found => self.found(disk, env)?,
            Wake::Time => self.time_due = None,
            Wake::Turn => {
                self.turn_due = false;
                for arrived in std::mem::take(&mut self.inbox) {
                    self.command(arrived, env);
                }
            }
            Wake::Start => {}
        }
        self.end_turn(disk, env)
    }

    fn end_turn(&mut self, disk: &mut Disk, env: &mut Env) -> Result<(), StoreError> {
        self.flush(disk, env);
        self.kick(env);
        for (id, messages) in std::mem::take(&mut self.outgoing) {
            env.down(id, messages);
        }
        for id in std::mem::take(&mut self.ending) {
            env.close(id, To::Broker);
        }
        self.core.check();
        // After a gap what has become due, claims among it, is yet to be looked at.
        if self.is_settled() && env.now >= self.settled && env.dice.chance(50) {
            self.check_against(disk, env)?;
        }
        if let Some(due) = self.core.next_wakeup() {
            let at = (env.now + due.since(self.now).max(Duration::from_millis(1))).max(self.settled);
            if self.time_due.is_none_or(|planned| at < planned) {
                self.time_due = Some(at);
                env.schedule(at - env.now, Event::Broker(self.life, Wake::Time));
            }
        }
        Ok(())
    }

    fn command(&mut self, arrived: Arrived, env: &mut Env) {
        match arrived {
            Arrived::HungUp(id, how) => {
                self.waiters.remove_caller(id);
                self.consumer_left(id, how, env);
                self.worker_hangup(id, how, env);
            }
            Arrived::Wrote(id, items, bytes) => self.written_to(id, items, bytes, env),
            // What is found of a connection that is gone is passed over.
            Arrived::Message(id, _) if !env.net.is_open(id, To::Broker) => {}
            Arrived::Message(id, message) => match message {
                Up::Greet => self.send(id, Down::Welcome(self.now)),
                Up::Asks(asks) => self.ask(id, asks, env),
                Up::Iterate(spec, reading) => self.open_stream(id, spec, reading, env),
                Up::Hello { hello, resume } => self.worker_hello(id, *hello, resume, env),
                Up::Work(work) => self.worker_input(id, work, env),
                Up::EmitOpened(session, token, resume) => self.open_emit(id, session, token, resume, env),
                Up::Emit(said) => self.emit(id, said, env),
                Up::CompleteLarge(token, result, spawned) => self.complete_large(id, token, (result, spawned), env),
                Up::Fetch(token) => self.fetch(id, token),
                Up::CallApart(call, spec) => self.call_apart(id, call, spec, env),
                Up::End(_) => {}
            },
        }
    }

    /// Puts a message into a connection's outbox.
    pub(super) fn send(&mut self, id: ConnId, message: Down) {
        self.outgoing.entry(id).or_default().push(message);
    }

    /// Tells the core, and takes in what follows.
    pub(super) fn apply(&mut self, event: CoreEvent, env: &mut Env) {
        env.say(format_args!("> {event:?}"));
        self.core.apply(self.now, event, &mut self.out);
        self.absorb(env);
    }

    fn absorb(&mut self, env: &mut Env) {
        let Output { changes, effects } = std::mem::take(&mut self.out);
        for change in changes {
            env.say(format_args!("  change {change:?}"));
            self.note(&change, env);
            self.gathering.changes.push(change);
        }
        for effect in effects {
            env.say(format_args!("  effect {effect:?}"));
            if let Effect::Stop {
                token,
                cause: StopCause::Timeout,
                ..
            } = &effect
            {
                env.record(Record::TookTooLong(*token, self.now.as_micros()));
            }
            let hasty = match &effect {
                Effect::Assign(_) => Bug::RunsBeforeClaim,
                _ => Bug::AnswersBeforeCommit,
            };
            if !effect.after_commit() {
                self.effect(effect, env);
            } else if !env.has_bug(hasty) {
                if let Effect::Assign(run) = &effect {
                    self.sessions.reading.insert(run.token, Vec::new());
                }
                self.gathering.held.push(Held::Effect(effect));
            } else {
                self.release(Held::Effect(effect), env);
            }
        }
    }

    fn note(&mut self, change: &Change, env: &mut Env) {
        match change {
            Change::Insert { seq, payload, .. } => {
                self.gathering.last_insert = *seq;
                let inline = payload.data.len() <= crate::message::INLINE_BYTES;
                // A cache too small for all: some are read again.
                if env.dice.chance(700) {
                    self.arguments.insert(*seq, inline.then(|| payload.clone()));
                }
            }
            Change::Finish { seq, .. } => _ = self.arguments.remove(seq),
            Change::SessionClosed(session) => self.session_over(*session, env),
            Change::Update { .. } | Change::Purge { .. } | Change::QueueSet { .. } | Change::SessionOpened(_) => {}
        }
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.gathering.held.push(held);
    }

    fn flush(&mut self, disk: &mut Disk, env: &mut Env) {
        if self.in_flight.is_some() {
            return;
        }
        let Gathering {
            changes,
            held,
            last_insert,
        } = std::mem::take(&mut self.gathering);
        if changes.is_empty() {
            held.into_iter().for_each(|held| self.release(held, env));
            return;
        }
        self.last_batch += 1;
        disk.begin(Batch {
            epoch: self.epoch,
            number: self.last_batch,
            changes,
        });
        self.in_flight = Some((held, last_insert));
        let slow = env.has_fault(Fault::SlowDisk) && env.dice.chance(100);
        let most = Duration::from_millis(if slow { 1_000 } else { 3 });
        let time = env.dice.long_tailed(Duration::from_micros(100)..most);
        env.schedule(time, Event::Broker(self.life, Wake::Written));
    }

    fn written(&mut self, disk: &mut Disk, env: &mut Env) -> Result<(), StoreError> {
        let Some((held, last_insert)) = self.in_flight.take() else {
            return Ok(());
        };
        record_claims(disk.sync()?, env);
        self.durable = self.durable.max(last_insert);
        held.into_iter().for_each(|held| self.release(held, env));
        if env.dice.chance(100) {
            let pruned = disk.prune(self.epoch, self.now)?;
            self.core.forgot(&pruned.forgotten);
        }
        Ok(())
    }

    fn release(&mut self, held: Held, env: &mut Env) {
        match held {
            Held::Effect(Effect::Reply(request, reply)) => self.reply(request, reply, env),
            Held::Effect(Effect::Finished(finished)) => {
                env.record(Record::Ended(finished.task, end_of(&finished)));
                if let Outcome::Dead(reason) = finished.outcome {
                    let kind = finished.failure.as_ref().map(|failure| failure.kind.clone());
                    env.record(Record::Died(finished.task, reason, kind.unwrap_or_default()));
                }
                self.finished(*finished, env);
            }
            Held::Effect(Effect::Assign(run)) => self.assign_late(run, env),
            Held::Effect(effect) => self.effect(effect, env),
            Held::Answer(id, call, answer) => self.answer(id, call, answer, true, env),
            Held::Read(job) => self.read(job),
        }
    }

    /// Nothing is to be written, read or answered.
    pub(super) fn is_settled(&self) -> bool {
        let gathered = self.gathering.changes.is_empty() && self.gathering.held.is_empty();
        gathered && self.in_flight.is_none() && self.reads.is_idle() && self.inbox.is_empty()
    }
}
