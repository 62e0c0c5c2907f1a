//! The broker: one task owns the core, three threads own the store, everybody
//! else holds a [`Broker`].

mod admission;
mod caller;
mod callers;
mod clients;
mod consumer;
mod emitter;
mod error;
mod handle;
mod keys;
mod lane;
mod listing;
mod operators;
mod outbox;
mod payloads;
mod reader;
mod run;
mod streams;
mod waiters;
mod worker;
mod workers;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use asynq_core::{Core, Output, Recovered, Timestamp};
use asynq_store::{Belief, StoreError};
use slab::Slab;
use tokio::sync::mpsc;
use tracing::{info, warn};

pub(crate) use caller::{Answer, Answered, Ask, Caller, CallingRun, Enqueue, Op};
pub(crate) use clients::ClientId;
pub(crate) use consumer::{Consumer, ConsumerGuard, Frame, Iterate};
pub(crate) use emitter::{Control, Emission, EmitRun, Emitter};
pub(crate) use error::{End, Error};
pub(crate) use handle::{Broker, CallerGuard, Command};
pub(crate) use listing::{ListTasks, Page};
pub(crate) use run::Loop;
pub(crate) use worker::{Hangup, Report, ToWorker, WorkerConn, WorkerHello, WorkerInput};

use crate::clock::{ClampedClock, Clock, judge};
use crate::limits::{COMMAND_QUEUE, PAYLOAD_CACHE_BYTES};
use crate::server::Backing;

/// Takes the shard over and brings the core to where it was. Blocks.
///
/// # Errors
/// If the store cannot be read.
pub(crate) fn open(backing: Backing, clock: Arc<dyn Clock>) -> Result<(Broker, Loop), StoreError> {
    let Backing { mut store, durability } = backing;
    let mut core = Core::with_seed(RandomState::new().hash_one("ids"));
    let latest = store.latest()?;
    let (clock, belief) = settle_clock(clock, latest);
    store.believe(belief);
    let doubted = (belief == Belief::Doubted).then_some(latest);
    if doubted.is_some() {
        core.doubt_clock(clock.now());
    }
    let mut tasks = 0;
    let opened = store.open(clock.now(), &mut |seq, record| {
        tasks += 1;
        core.restore(seq, record);
    })?;
    info!(
        epoch = opened.epoch.0,
        tasks,
        sessions = opened.sessions.len(),
        "shard opened"
    );

    let mut sessions = workers::Sessions::default();
    opened.sessions.iter().for_each(|session| sessions.remember(session.id));
    let (now, mut out) = (clock.now(), Output::default());
    let recovered = Recovered {
        epoch: opened.epoch,
        previous: opened.previous,
        next_seq: opened.next_seq,
        sessions: opened.sessions,
        finished: opened.finished,
        queues: opened.queues,
    };
    core.start(now, recovered, &mut out);

    let thread_failed = |error: std::io::Error| StoreError::Failed(format!("cannot start a thread: {error}"));
    let reader = reader::Reader::start("asynq-reader", store.reader()?).map_err(thread_failed)?;
    let lister = reader::Reader::start("asynq-lister", store.reader()?).map_err(thread_failed)?;
    let mut admission = admission::Admission::default();
    admission.observe(store.room(), 0);
    let horizon = doubted.map_or(now, |_| Timestamp::ZERO);
    let writer = writer::Writer::start(store, opened.epoch, horizon).map_err(thread_failed)?;
    let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let broker = Broker::new(sender, clock, opened.epoch, durability, doubted.is_some());
    let last_stored = asynq_core::Seq(opened.next_seq.0.saturating_sub(1));
    let mut this = Loop {
        broker: broker.clone(),
        commands,
        core,
        out,
        now,
        horizon,
        believed_until: doubted,
        requests: Slab::new(),
        clients: clients::Clients::default(),
        waiters: waiters::Waiters::default(),
        resolving: foldhash::HashMap::default(),
        resolving_keys: foldhash::HashMap::default(),
        sessions,
        streams: streams::Streams::default(),
        payloads: payloads::PayloadCache::new(PAYLOAD_CACHE_BYTES, last_stored),
        writer,
        reader,
        lister,
        gathering: run::Gathering::default(),
        in_flight: None,
        admission,
        last_batch: opened.last_batch,
        meters: crate::metrics::Meters::default(),
    };
    this.absorb(run::Acks::All);
    Ok((broker, this))
}

/// The clock to go by where the store knows of times up to `latest`, and what it is
/// worth.
fn settle_clock(clock: Arc<dyn Clock>, latest: Timestamp) -> (Arc<dyn Clock>, Belief) {
    let now = clock.now();
    let belief = judge(latest, now, clock.standing());
    let (ahead, behind) = (now.since(latest), latest.since(now));
    match belief {
        Belief::Doubted => warn!(
            ?ahead,
            "the clock is far ahead of all that is in the store, and the kernel does not call it synchronised: \
             nothing expires and nothing is forgotten until the broker is started with --trust-clock, \
             or with the clock set right"
        ),
        Belief::Trusted if behind > Duration::ZERO => {
            warn!(?behind, "the store has later times than the clock, which is trusted");
            return (clock, belief);
        }
        Belief::Believed if behind > Duration::ZERO => warn!(
            by = ?behind,
            "the clock was set back; going on from the latest time in the store. If the clock is right, \
             start the broker with --trust-clock"
        ),
        Belief::Trusted | Belief::Believed => {}
    }
    (Arc::new(ClampedClock::new(clock, latest)), belief)
}

#[cfg(test)]
mod tests;
