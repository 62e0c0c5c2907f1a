//! The broker: a disk that stays, and a process that comes and goes.
//!
//! The process mirrors asynqd's loop (`server/src/broker`) around the real core:
//! changes gather while a commit is under way, what tells of them waits until
//! they are durable, what is unknown is read from the store first.

mod agree;
mod callers;
mod calls;
mod keys;
mod process;
mod reads;
mod seen;
mod streams;
mod waiters;
mod workers;

use std::time::Duration;

use asynq_core::{Core, Output, Recovered};
use asynq_store::StoreError;
use asynq_tests::history::Record;

use super::bug::Bug;
use super::disk::Disk;
use super::env::{Env, Event};
use super::message::Up;
use super::net::{ConnId, Hangup, To};
use process::Process;
pub(crate) use seen::end_of;

/// What the broker waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    /// The process starts.
    Start,
    /// What has come is taken in.
    Turn,
    /// A time the core asked for.
    Time,
    /// The commit under way is done.
    Written,
    /// The reads under way are done.
    Found,
}

/// See the module.
pub(crate) struct Broker {
    pub(crate) disk: Disk,
    process: Option<Box<Process>>,
    life: u32,
    /// The next commit fails.
    store_fails: bool,
}

impl Broker {
    pub(crate) fn new(disk: Disk) -> Self {
        Self {
            disk,
            process: None,
            life: 0,
            store_fails: false,
        }
    }

    pub(crate) fn start_in(&mut self, after: Duration, env: &mut Env) {
        self.life += 1;
        env.schedule(after, Event::Broker(self.life, Wake::Start));
    }

    pub(crate) fn fail_the_store(&mut self) {
        self.store_fails = true;
    }

    /// # Errors
    /// If the store does what it must not.
    pub(crate) fn wake(&mut self, life: u32, wake: Wake, env: &mut Env) -> Result<(), StoreError> {
        if life != self.life {
            return Ok(());
        }
        if matches!(wake, Wake::Start) {
            return self.start(env);
        }
        if matches!(wake, Wake::Written) && self.store_fails {
            self.store_fails = false;
            env.say(format_args!("the store fails"));
            let whole = env.dice.chance(500);
            return self.crash(whole, env);
        }
        match &mut self.process {
            Some(process) => process.turn(wake, &mut self.disk, env),
            None => Ok(()),
        }
    }

    fn start(&mut self, env: &mut Env) -> Result<(), StoreError> {
        let mut core = Core::new();
        let wall = env.wall();
        let mut opened = self.disk.open(wall, &mut |seq, mut record| {
            if let Some(checkpoint) = &mut record.checkpoint {
                checkpoint.index += u64::from(env.has_bug(Bug::CheckpointMovedOn));
                if env.has_bug(Bug::TokensMixedUp) {
                    checkpoint.token = (checkpoint.index - 1).to_be_bytes().to_vec().into();
                }
            }
            core.restore(seq, record);
        })?;
        env.say(format_args!("the broker opens: {opened:?}"));
        if env.has_bug(Bug::SessionsForgotten) {
            opened.sessions.clear();
        }
        let latest = if env.has_bug(Bug::ClockNotClamped) {
            wall
        } else {
            opened.latest
        };
        let now = wall.max(latest);
        let (mut epoch, mut previous) = (opened.epoch, opened.previous);
        if env.has_bug(Bug::EpochStands) {
            (epoch.0, previous.0) = (1, 1);
        }
        // What passed before it was there is no gap of its own.
        env.take_gap();
        env.record(Record::Opened(epoch));
        let mut process = Process::new(self.life, core, &opened, (env.now, now));
        let recovered = Recovered {
            epoch,
            previous,
            next_seq: opened.next_seq,
            sessions: opened.sessions,
            finished: opened.finished,
            queues: opened.queues,
        };
        let mut out = Output::default();
        process.core.start(now, recovered, &mut out);
        process.out = out;
        env.broker_up = true;
        process.begin(&mut self.disk, env)?;
        self.process = Some(Box::new(process));
        Ok(())
    }

    /// The process is gone from one moment to the next; `whole`: the batch under
    /// way has reached the disk.
    ///
    /// # Errors
    /// If that batch cannot be written.
    pub(crate) fn crash(&mut self, whole: bool, env: &mut Env) -> Result<(), StoreError> {
        self.process = None;
        env.broker_up = false;
        for id in env.net.open_at(To::Broker, None) {
            env.net.shut(id, To::Broker);
            env.record(Record::Gone(seen::asker(id)));
            let passes = env.net.peer(id).is_none_or(|(peer, _)| env.net.passes(peer, env.now));
            let noticed = if passes { env.latency() } else { Duration::from_secs(3) };
            env.schedule(noticed, Event::Lost(id, To::Peer));
        }
        let pause = env.dice.long_tailed(Duration::from_millis(20)..Duration::from_secs(10));
        self.start_in(pause, env);
        let changes = self.disk.crash(whole)?;
        seen::record_claims(changes, env);
        Ok(())
    }

    /// A message arrives.
    pub(crate) fn arrives(&mut self, id: ConnId, message: Up, env: &mut Env) {
        if let Some(process) = &mut self.process {
            process.arrives(id, message, env);
        }
    }

    /// A connection is gone.
    pub(crate) fn lost(&mut self, id: ConnId, how: Hangup, env: &mut Env) {
        env.record(Record::Gone(seen::asker(id)));
        if let Some(process) = &mut self.process {
            process.hung_up(id, how, env);
        }
    }

    /// Items have been written to a consumer for which the broker acknowledges.
    pub(crate) fn wrote(&mut self, id: ConnId, items: u64, bytes: u64, env: &mut Env) {
        if let Some(process) = &mut self.process {
            process.wrote(id, items, bytes, env);
        }
    }

    /// Tasks that have not ended.
    pub(crate) fn live_tasks(&self) -> Option<u64> {
        let process = self.process.as_ref()?;
        let queues = process.core.queues(process.now);
        let live = |(state, count): (&asynq_core::StateName, &u64)| if state.is_terminal() { 0 } else { *count };
        Some(queues.iter().flat_map(|queue| queue.counts.iter().map(live)).sum())
    }

    /// Slots that it takes for leaked.
    pub(crate) fn leaked(&self) -> Option<u32> {
        let workers = self.process.as_ref()?.core.workers();
        Some(workers.iter().map(|worker| worker.leaked).sum())
    }

    /// Nothing is to be written, read or answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_settled())
    }

    /// Puts on record what is left that should not be. The end of the shard.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn record_leftovers(&mut self, env: &mut Env) -> Result<(), StoreError> {
        if let Some(process) = &self.process {
            process.record_leftovers(env);
            let sessions = self.disk.open(env.wall(), &mut |_, _| {})?.sessions;
            let over = sessions
                .iter()
                .filter(|session| !process.core.knows_session(session.id));
            env.record(Record::Left {
                place: "sessions in the store that are over",
                count: over.count() as u64,
            });
        }
        Ok(())
    }
}
