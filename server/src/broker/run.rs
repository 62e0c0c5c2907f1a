//! The broker loop: it owns the core. Select, take all that is ready, apply,
//! hand the changes to the writer if it is idle, release what has become
//! durable. While one commit runs the next batch gathers; there are no timers.

use std::sync::Arc;
use std::time::Duration;

use asynq_core::{Change, Core, Effect, Event, Key, Name, Output, Seq, TaskId, Timestamp, Verdict};
use asynq_store::StoreError;
use foldhash::HashMap;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::admission::{Admission, disk_bytes, value_bytes};
use super::caller::{Answer, Caller};
use super::callers::{Behind, Request};
use super::clients::Clients;
use super::error::End;
use super::handle::{Broker, Command, Sent};
use super::listing::{Listing, Page};
use super::payloads::PayloadCache;
use super::reader::{Found, Job, Reader};
use super::streams::Streams;
use super::waiters::Waiters;
use super::worker::{Hangup, ToWorker, WorkerConn};
use super::workers::Sessions;
use super::writer::{Writer, Written};
use crate::limits::{COMMANDS_PER_TURN, GAP, MAX_GATHERED_BYTES, MAX_GATHERED_CHANGES, MAX_HELD, MAX_NAP, SETTLE};
use crate::metrics::{Figures, Meters};

/// The least time between two looks at the clock.
const MIN_NAP: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(super) broker: Broker,
    pub(super) commands: mpsc::Receiver<Sent>,
    pub(super) core: Core,
    pub(super) out: Output,
    /// The time of the turn.
    pub(super) now: Timestamp,
    /// What is past its time by then may be pruned.
    pub(super) horizon: Timestamp,
    /// The last time that was believed, if the clock is not; see `--trust-clock`.
    pub(super) believed_until: Option<Timestamp>,
    pub(super) requests: Slab<Request>,
    pub(super) clients: Clients,
    pub(super) waiters: Waiters,
    pub(super) resolving: HashMap<TaskId, Behind>,
    /// The same for keys. The ids of those that wait have a place in `resolving`.
    pub(super) resolving_keys: HashMap<(Name, Key), Behind>,
    pub(super) sessions: Sessions,
    pub(super) streams: Streams,
    pub(super) payloads: PayloadCache,
    pub(super) writer: Writer,
    pub(super) reader: Reader,
    /// Another one, for listings.
    pub(super) lister: Reader,
    pub(super) gathering: Gathering,
    /// What to release when the commit under way is durable.
    pub(super) in_flight: Option<InFlight>,
    /// Whether new tasks find space.
    pub(super) admission: Admission,
    pub(super) last_batch: u64,
    pub(super) meters: Meters,
}

/// Something that waits until all that was decided before it is durable.
#[derive(Debug)]
pub(super) enum Held {
    Effect(Effect),
    /// A worker's reports up to this message.
    Acked(Arc<WorkerConn>, u64),
    Answer(Arc<Caller>, u64, Answer),
    Read(Job),
    List(Job),
    Page(Box<Listing>, Page),
}

/// Which acknowledgements a worker is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    All,
    /// The others are sent together, by the number of the message.
    Refusals,
}

/// What a turn of the loop begins with.
enum Wake {
    Written(Written),
    Found(Vec<Found>),
    Command(Sent),
    Time,
}

/// The next batch.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    changes: Vec<Change>,
    bytes: usize,
    /// Bytes of disk it may take.
    disk_bytes: u64,
    held: Vec<Held>,
    last_insert: Seq,
    keeps_horizon: bool,
}

/// A commit under way.
#[derive(Debug)]
pub(super) struct InFlight {
    held: Vec<Held>,
    disk_bytes: u64,
    last_insert: Seq,
    keeps_horizon: bool,
}

impl InFlight {
    pub(super) fn keeps_horizon(&self) -> bool {
        self.keeps_horizon
    }
}

impl Gathering {
    /// Takes what has been gathered. The next batch is likely to be as large.
    fn take(&mut self) -> Self {
        let next = Self {
            changes: Vec::with_capacity(self.changes.len()),
            held: Vec::with_capacity(self.held.len()),
            ..Self::default()
        };
        std::mem::replace(self, next)
    }

    /// What it says of tasks that have ended is true only if none of them is
    /// pruned before it is written.
    pub(super) fn keep_horizon(&mut self) {
        self.keeps_horizon = true;
    }

    pub(super) fn keeps_horizon(&self) -> bool {
        self.keeps_horizon
    }

    fn has_room(&self) -> bool {
        self.changes.len() < MAX_GATHERED_CHANGES && self.bytes < MAX_GATHERED_BYTES && self.held.len() < MAX_HELD
    }
}

impl Loop {
    /// Runs until `stop`, and then until all that was taken in is durable and
    /// answered; or until the store fails. The store is closed on return.
    ///
    /// # Errors
    /// If the store fails: what was not answered is indefinite.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let result = self.turns(&stop).await;
        let end = match &result {
            Ok(()) => End::ShuttingDown,
            Err(error) => {
                error!(%error, "the shard is closed: nothing of the batch under way or later is acknowledged");
                End::StoreFailed
            }
        };
        self.broker.end(end);
        if result.is_ok() {
            self.writer.stop().await;
            info!("all is durable, the store is closed");
        }
        result
    }

    async fn turns(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let nap = sleep_until(Instant::now());
        tokio::pin!(nap);
        let mut awake_by = self.broker.clock().up();
        let mut settled = awake_by;
        loop {
            let stopping = stop.is_cancelled();
            if stopping && self.is_settled() {
                return Ok(());
            }
            let (reading, listing) = (!self.reader.is_idle(), !self.lister.is_idle());
            let take = !stopping && self.gathering.has_room();
            let wake = tokio::select! {
                biased;
                written = self.writer.next() => Wake::Written(written),
                found = self.reader.next(), if reading => Wake::Found(found?),
                found = self.lister.next(), if listing => Wake::Found(found?),
                () = stop.cancelled(), if !stopping => Wake::Time,
                () = &mut nap => Wake::Time,
                Some(sent) = self.commands.recv(), if take => Wake::Command(sent),
                () = self.broker.leaving() => Wake::Time,
            };
            let began = Instant::now();
            self.now = self.broker.clock().now();
            let up = self.broker.clock().up();
            let gap = up.saturating_sub(awake_by);
            if gap > GAP {
                warn!(
                    ?gap,
                    "the broker did not run for a while; leases last for as much longer"
                );
                self.apply(Event::Gap(gap));
                settled = up + SETTLE;
            }
            if up >= settled && self.core.next_wakeup().is_some_and(|due| due <= self.now) {
                self.apply(Event::Tick);
            }
            match wake {
                Wake::Written(written) => self.written(written)?,
                Wake::Found(found) => self.found(found)?,
                Wake::Command(sent) => self.take_commands(sent),
                Wake::Time => {}
            }
            for caller in self.broker.take_gone() {
                self.waiters.remove_caller(caller);
            }
            for (task, consumer, how) in self.broker.take_left() {
                self.consumer_left(task, &consumer, how);
            }
            self.flush();
            self.move_horizon();
            self.reader.kick();
            self.lister.kick();
            let due = self.core.next_wakeup().map_or(MAX_NAP, |due| due.since(self.now));
            let done = Instant::now();
            self.meters.turn(done.duration_since(began));
            self.broker.beat(done);
            let length = due.max(settled.saturating_sub(up)).clamp(MIN_NAP, MAX_NAP);
            nap.as_mut().reset(done + length);
            // The turn itself is none of it: a long one is a gap as well.
            awake_by = up + length;
        }
    }

    /// Nothing is left to be written, read or answered, but for listings: who
    /// waits for one is told that the broker goes down.
    fn is_settled(&self) -> bool {
        let gathered = self.gathering.changes.is_empty() && self.gathering.held.is_empty();
        gathered && self.in_flight.is_none() && self.reader.is_idle()
    }

    /// Goes through the command that came and all others that are ready, as
    /// far as there is room.
    fn take_commands(&mut self, first: Sent) {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(Sent { command, .. }) = next {
            self.command(command);
            taken += 1;
            let more = taken < COMMANDS_PER_TURN && self.gathering.has_room();
            next = if more { self.commands.try_recv().ok() } else { None };
        }
    }

    fn command(&mut self, command: Command) {
        // Whoever asked and has gone needs no answer: failed sends are passed over.
        match command {
            Command::Hello {
                caller,
                client,
                connection,
            } => self.clients.hello(client, connection, &caller),
            Command::Ask { caller, asks } => self.ask(&caller, asks),
            Command::Finish { caller } => caller.finish(),
            Command::WorkerHello { hello, conn, opened } => {
                let session = self.worker_hello(hello, conn.clone());
                if let Err(Ok(session)) = opened.send(session) {
                    // Nobody is there who would.
                    self.worker_hangup(session, &conn, Hangup::Reset);
                }
            }
            Command::WorkerInput { session, conn, input } => self.worker_input(session, &conn, input),
            Command::WorkerHangup { session, conn, how } => self.worker_hangup(session, &conn, how),
            Command::CompleteLarge { report, reply } => self.complete_large(report, reply),
            Command::FetchPayload { token, reply } => self.fetch(token, reply),
            Command::Emit { run, emitter, said } => self.emit(run, &emitter, said),
            Command::Flow {
                task,
                consumer,
                open_seq,
                credit,
            } => self.flow(task, consumer, open_seq, credit),
            Command::Written { task, consumer } => self.give_credit(task, &consumer),
            Command::List(listing) => self.list(listing),
            Command::Queues(reply) => {
                let _ = reply.send(self.core.queues(self.now));
            }
            Command::Figures(reply) => {
                let _ = reply.send(self.figures());
            }
            Command::Ping(reply) => {
                let _ = reply.send(());
            }
            Command::Workers(reply) => {
                let _ = reply.send(self.core.workers());
            }
        }
    }

    fn figures(&self) -> Box<Figures> {
        Box::new(Figures {
            meters: self.meters.clone(),
            tally: self.core.tally(),
            queues: self.core.queues(self.now),
            workers: self.core.workers(),
            streams: self.streams.len(),
            callers: self.broker.sessions(),
            room: self.admission.room(),
            disk_full: self.admission.is_closed(),
            clock_doubted: self.believed_until.is_some(),
        })
    }

    /// Tells the core, and takes in what follows: changes gather, effects are
    /// done at once or held.
    pub(super) fn apply(&mut self, event: Event) {
        self.core.apply(self.now, event, &mut self.out);
        self.absorb(Acks::All);
    }

    pub(super) fn absorb(&mut self, acks: Acks) {
        let Output {
            mut changes,
            mut effects,
        } = std::mem::take(&mut self.out);
        for change in changes.drain(..) {
            self.note(&change);
            self.gathering.changes.push(change);
        }
        for effect in effects.drain(..) {
            let is_acceptance = matches!(
                effect,
                Effect::Ack {
                    verdict: Verdict::Accepted(_),
                    ..
                }
            );
            if is_acceptance && acks == Acks::Refusals {
                continue;
            }
            if effect.after_commit() {
                if let Effect::Assign(run) = &effect {
                    self.sessions.hold_back(run.token);
                }
                self.hold(Held::Effect(effect));
            } else {
                self.effect(effect);
            }
        }
        // Both keep their capacity for the next event.
        self.out = Output { changes, effects };
    }

    fn note(&mut self, change: &Change) {
        self.meters.change(change);
        self.admission.note(change);
        let gathering = &mut self.gathering;
        gathering.disk_bytes += disk_bytes(change);
        gathering.bytes += value_bytes(change);
        match change {
            Change::Insert { seq, payload, .. } => {
                gathering.last_insert = *seq;
                self.payloads.insert(*seq, payload);
            }
            Change::Finish { seq, .. } => {
                self.payloads.remove(*seq);
            }
            Change::SessionClosed(session) => self.sessions.forget(*session),
            Change::Purge { .. } | Change::Update { .. } | Change::QueueSet { .. } | Change::SessionOpened(_) => {}
        }
    }

    /// Puts off until all that was decided so far is durable. [`Loop::flush`]
    /// at the end of the turn releases it, if that is so already.
    pub(super) fn hold(&mut self, held: Held) {
        self.gathering.held.push(held);
    }

    /// Begins a commit if there is something to write and none is under way.
    fn flush(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        if self.gathering.changes.is_empty() {
            let held = self.gathering.take().held;
            return self.release(held);
        }
        let Gathering {
            changes,
            held,
            disk_bytes,
            last_insert,
            keeps_horizon,
            ..
        } = self.gathering.take();
        self.last_batch += 1;
        self.meters.commit_begins(changes.len());
        self.writer.write(self.last_batch, changes);
        self.in_flight = Some(InFlight {
            held,
            disk_bytes,
            last_insert,
            keeps_horizon,
        });
    }

    fn written(&mut self, written: Written) -> Result<(), StoreError> {
        match written {
            Written::Durable => {
                self.meters.commit_ends();
                if let Some(InFlight { held, last_insert, .. }) = self.in_flight.take() {
                    self.payloads.durable(last_insert);
                    self.release(held);
                }
                Ok(())
            }
            Written::Pruned(pruned) => {
                self.core.forgot(&pruned.forgotten);
                Ok(())
            }
            Written::Looked(room) => {
                let under_way = self.in_flight.as_ref().map_or(0, |batch| batch.disk_bytes);
                self.admission.observe(room, under_way + self.gathering.disk_bytes);
                Ok(())
            }
            Written::Failed(error) => Err(error),
        }
    }

    fn release(&mut self, held: Vec<Held>) {
        for held in held {
            match held {
                Held::Effect(Effect::Reply(request, reply)) => self.reply(request, reply),
                Held::Effect(Effect::Finished(finished)) => self.finished(*finished),
                Held::Effect(Effect::Assign(run)) => self.assign_late(run),
                Held::Effect(effect) => self.effect(effect),
                // A refusal among them may be looked up still.
                Held::Acked(conn, number) if self.sessions.looks_up() => self.reader.push(Job::Acked(conn, number)),
                Held::Acked(conn, number) => conn.outbox().push(ToWorker::Acked(number)),
                Held::Answer(caller, call, answer) => caller.answer(call, answer, true),
                Held::Read(job) => self.reader.push(job),
                Held::List(job) => self.lister.push(job),
                Held::Page(listing, page) => listing.answer(page),
            }
        }
    }

    fn found(&mut self, found: Vec<Found>) -> Result<(), StoreError> {
        for found in found {
            match found {
                Found::Arguments(run, payload) => self.arguments_read(run, payload)?,
                Found::Task(id, task) => self.resolved(id, task),
                Found::Key(queue, key, task) => self.key_resolved(queue, key, task.as_ref()),
                Found::Tail {
                    end,
                    tail,
                    caller,
                    call,
                    iterate,
                } => self.read_tail(*end, tail, &caller, call, &iterate),
                Found::State(session, token, state) => self.state_found(session, token, state),
                Found::Acked(conn, number) => conn.outbox().push(ToWorker::Acked(number)),
                Found::Listed(listing, part) => self.listed(listing, part),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_a_slow_commit_is_bounded() {
        let mut gathering = Gathering::default();
        let read = || Held::Read(Job::Task(TaskId([1; 16])));
        gathering.held.extend((1..MAX_HELD).map(|_| read()));
        assert!(gathering.has_room());
        gathering.held.push(read());
        assert!(!gathering.has_room());
    }
}
