//! The wire, on a thread of its own: one session with the broker, kept up over
//! any number of connections. No handler can stall its heartbeats, and no
//! await in here waits for the runtime.

mod connect;
mod serve;
mod transfer;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use asynq_proto::limits::MAX_BATCH_OPS;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::{Backoff, Connector, Wire, v1};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::calls::{Asked, Shared};
use crate::error::RunError;
use crate::extend::Extensions;
use crate::lease::{Lease, since_boot};
use crate::ledger::Ledger;
use crate::limits::{DRAIN_FLUSH, IDLE, LEASE_CHECK};
use crate::runtime::{Report, Start};
use connect::NoLink;
use serve::Served;

/// What the worker as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Takes tasks.
    Serving,
    /// Takes nothing new.
    Draining,
}

/// What the session tells the broker, and how long it tries.
pub(crate) struct SessionConfig {
    pub(crate) connector: Connector,
    /// For values too large for the session.
    pub(crate) data: WorkersClient<Wire>,
    pub(crate) name: String,
    pub(crate) slots: u32,
    pub(crate) tasks: Vec<v1::TaskDeclaration>,
    pub(crate) drain_timeout: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) exit_when_idle: bool,
}

/// The session came to its end.
#[derive(Debug)]
struct Ended;

struct Drain {
    /// When unfinished runs are told to stop; `None` once they are.
    stop_at: Option<Instant>,
    /// When those that have not by then are given back all the same; `None` once they are.
    release_at: Option<Instant>,
    /// When even that is given up.
    give_up_at: Instant,
}

/// One end of `Workers.Work`.
pub(crate) struct Session {
    config: SessionConfig,
    starts: mpsc::Sender<Start>,
    reports: mpsc::Receiver<Report>,
    mode: watch::Receiver<Mode>,
    ready: Option<oneshot::Sender<()>>,

    ledger: Ledger,
    extensions: Extensions,
    /// The session to resume.
    id: Option<Bytes>,
    /// The session's latest name, for streams of items.
    named: watch::Sender<Bytes>,
    /// `None` before the first welcome, and again once it ran out.
    lease: Option<Lease>,
    /// How often the lease ran out.
    fences: u64,
    connected: bool,
    drain: Option<Drain>,
    idle_since: Option<Instant>,
    taken: Vec<Report>,
    /// What runs call.
    asks: mpsc::Receiver<Asked>,
    asked: Vec<Asked>,
    shared: Arc<Shared>,
}

impl Session {
    pub(crate) fn new(
        config: SessionConfig,
        starts: mpsc::Sender<Start>,
        reports: mpsc::Receiver<Report>,
        mode: watch::Receiver<Mode>,
        ready: oneshot::Sender<()>,
        (shared, asks): (Arc<Shared>, mpsc::Receiver<Asked>),
    ) -> Self {
        Self {
            ledger: Ledger::new(config.kill_grace),
            extensions: Extensions::default(),
            config,
            starts,
            reports,
            mode,
            ready: Some(ready),
            id: None,
            named: watch::Sender::default(),
            lease: None,
            fences: 0,
            connected: false,
            drain: None,
            idle_since: None,
            taken: Vec::new(),
            asks,
            asked: Vec::new(),
            shared,
        }
    }

    /// Keeps the session up until the worker has drained or is dropped.
    pub(crate) fn run_on_this_thread(self) -> Result<(), RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RunError::Thread)?;
        let result = runtime.block_on(self.run());
        // A name server that does not answer must not hold up the end.
        runtime.shutdown_background();
        result
    }

    async fn run(mut self) -> Result<(), RunError> {
        let mut backoff = Backoff::reconnect();
        let mut reachable = true;
        loop {
            let lost = match self.connect().await {
                Ok(link) => {
                    backoff.reset();
                    reachable = true;
                    self.connected = true;
                    let served = self.serve(link).await;
                    self.connected = false;
                    self.idle_since = None;
                    match served {
                        Served::Ended(Ended) => break,
                        Served::Lost(why) => why,
                    }
                }
                Err(NoLink::Ended(Ended)) => break,
                Err(NoLink::Refused(error)) => return Err(error),
                Err(NoLink::Failed(why)) => why,
            };
            if std::mem::take(&mut reachable) {
                let runs = self.ledger.unfinished();
                tracing::warn!(%lost, runs, "no connection to the broker; trying again, runs go on");
            } else {
                tracing::debug!(%lost, "still no connection to the broker");
            }
            if self.meanwhile(sleep(backoff.pause())).await.is_err() {
                break;
            }
        }
        // What still runs answers to nobody now.
        self.ledger.drop_all();
        Ok(())
    }

    /// Waits for `work` without neglecting everything else.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = pin!(work);
        loop {
            if self.drain.is_some() && self.ledger.is_empty() {
                return Err(Ended); // nobody to say goodbye to, nothing to say
            }
            tokio::select! {
                done = &mut work => return Ok(done),
                kept = self.upkeep() => kept?,
            }
        }
    }

    /// Waits for the next thing that does not come over the wire, and does it.
    /// Nothing is lost when it is dropped midway.
    async fn upkeep(&mut self) -> Result<(), Ended> {
        let wake = self.next_wake();
        let room = self.ledger.has_room();
        tokio::select! {
            taken = self.reports.recv_many(&mut self.taken, MAX_BATCH_OPS), if room => {
                if taken == 0 {
                    return Err(Ended);
                }
                for Report { token, outcome } in self.taken.drain(..) {
                    self.ledger.returned(token, outcome);
                }
            }
            1.. = self.asks.recv_many(&mut self.asked, MAX_BATCH_OPS) => {
                for asked in self.asked.drain(..) {
                    self.ledger.call(&self.shared, asked);
                }
            }
            () = self.shared.leaving() => {
                for call in self.shared.take_withdrawn() {
                    self.ledger.withdraw(call);
                }
            }
            // An error is the worker's future dropped.
            changed = self.mode.changed() => {
                changed.map_err(|_| Ended)?;
                self.start_drain();
            }
            () = self.extensions.news() => {
                for (token, at) in self.extensions.take() {
                    self.ledger.extend(token, at);
                }
            }
            () = sleep_until(wake) => {}
        }
        self.look_at_the_clock()
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let lease = self
            .lease
            .as_ref()
            .map_or(LEASE_CHECK, |lease| lease.left(since_boot()).min(LEASE_CHECK));
        let drain = self
            .drain
            .as_ref()
            .map(|drain| drain.stop_at.or(drain.release_at).unwrap_or(drain.give_up_at));
        let idle = self.idle_since.map(|since| since + IDLE);
        let abandons = self.ledger.abandons_at();
        [drain, idle, abandons]
            .into_iter()
            .flatten()
            .fold(now + lease, Instant::min)
    }

    fn look_at_the_clock(&mut self) -> Result<(), Ended> {
        if self
            .lease
            .as_ref()
            .is_some_and(|lease| lease.left(since_boot()).is_zero())
        {
            self.fence();
        }
        let now = Instant::now();
        self.ledger.abandon(now);
        if self.idle_since.is_some_and(|since| now >= since + IDLE) {
            self.start_drain();
        }
        let Some(drain) = &mut self.drain else { return Ok(()) };
        if drain.stop_at.take_if(|at| now >= *at).is_some() {
            let runs = self.ledger.unfinished();
            if runs > 0 {
                tracing::warn!(runs, "the drain timeout is near; giving back what has not finished");
            }
            self.ledger.stop_all();
        }
        if drain.release_at.take_if(|at| now >= *at).is_some() {
            self.ledger.release_all();
        }
        if now >= drain.give_up_at { Err(Ended) } else { Ok(()) }
    }

    /// The broker may by now have given our tasks to others: so they end here,
    /// and their outcomes with them.
    fn fence(&mut self) {
        let runs = self.ledger.drop_all();
        if runs > 0 {
            tracing::error!(
                runs,
                "no heartbeat was acknowledged for the length of the lease; runs are dropped"
            );
        }
        self.lease = None;
        self.id = None;
        self.fences += 1;
    }

    fn start_drain(&mut self) {
        self.idle_since = None;
        if self.drain.is_some() {
            return;
        }
        let timeout = self.config.drain_timeout;
        let give_up_at = Instant::now() + timeout;
        let flush = DRAIN_FLUSH.min(timeout / 4);
        self.drain = Some(Drain {
            stop_at: Some(give_up_at - flush),
            release_at: Some(give_up_at - flush / 2),
            give_up_at,
        });
        self.ledger.release_unstarted();
    }
}
