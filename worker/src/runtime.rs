//! Running handlers: on the caller's runtime or on threads, each run apart, so
//! that a panic or an endless loop is that run's own.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use asynq_proto::{Payload, TaskError};
use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::builder::{Ready, Worker};
use crate::calls::{Reading, Shared};
use crate::context::{Context, LeaseToken, StopCause};
use crate::data::Data;
use crate::emit::{self, Reader, Slot, collect, collect_blocking};
use crate::error::RunError;
use crate::handler::{Handler, RunResult, panicked};
use crate::ledger::Outcome;
use crate::limits::{REPORTS, SLOT_SLACK, STARTS};
use crate::registry::Registry;
use crate::session::{Mode, Session, SessionConfig};
use crate::threads::Threads;

/// A run for the runtime to start.
pub(crate) struct Start {
    pub(crate) context: Context,
    pub(crate) payload: Payload,
    /// Who reads its items as they come, if anybody does.
    pub(crate) reader: Option<Reader>,
}

/// How a run ended.
pub(crate) struct Report {
    pub(crate) token: LeaseToken,
    /// `None` if the broker has acknowledged it elsewhere.
    pub(crate) outcome: Option<Outcome>,
}

/// Runs a worker until `shutdown` and through its drain.
pub(crate) async fn run(worker: Worker, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    // Three times the slots: some may be lent, and runs the broker has given up
    // may still be among them.
    let (starts_in, mut starts) = mpsc::channel(3 * worker.slots as usize);
    let (reports, reports_out) = mpsc::channel(REPORTS);
    // Dropping it, with this future, ends the wire at once.
    let (mode, mode_out) = watch::channel(Mode::Serving);
    let (asks_in, asks) = mpsc::channel(REPORTS);
    let slots = Arc::new(Semaphore::new(worker.slots as usize));
    let (ready_in, mut ready) = oneshot::channel();
    let (done_in, mut done) = oneshot::channel();

    let broker = worker.connector.endpoint().to_string();
    let tasks = worker.registry.len();
    let mut on_ready = worker.on_ready;
    let data = Data::start(&worker.connector).map_err(RunError::Thread)?;
    let reading = Reading::new(worker.connector.clone(), data.line());
    let shared = Shared::new(slots.clone(), asks_in, reading);
    let config = SessionConfig {
        connector: worker.connector,
        data: data.line().client(),
        name: worker.name,
        slots: worker.slots,
        tasks: worker.registry.declarations(),
        drain_timeout: worker.drain_timeout,
        kill_grace: worker.kill_grace,
        exit_when_idle: worker.exit_when_idle,
    };
    let session = Session::new(
        config,
        starts_in,
        reports_out,
        mode_out,
        ready_in,
        (shared.clone(), asks),
    );
    thread::Builder::new()
        .name("asynq-wire".into())
        // Whoever waits for `done` may be gone by then.
        .spawn(move || drop(done_in.send(session.run_on_this_thread())))
        .map_err(RunError::Thread)?;

    let runner = Arc::new(Runner {
        registry: worker.registry,
        slots,
        shared,
        threads: Threads::default(),
        data,
        draining: CancellationToken::new(),
        kill_grace: worker.kill_grace,
        reports,
    });
    let mut runs = JoinSet::new();
    let mut shutdown = pin!(shutdown.fuse());
    let mut asked = false;
    let mut started = Vec::with_capacity(STARTS);
    loop {
        tokio::select! {
            // Many at a time: a run that does nothing is cheap.
            1.. = starts.recv_many(&mut started, STARTS) => {
                for start in started.drain(..) {
                    runs.spawn(start.context.clone().around(runner.clone().run(start)));
                }
            }
            Some(_) = runs.join_next() => while runs.try_join_next().is_some() {},
            () = &mut shutdown, if !asked => {
                asked = true;
                runner.draining.cancel();
                mode.send_replace(Mode::Draining);
            }
            Ok(()) = &mut ready, if on_ready.is_some() => {
                if let Some(then) = on_ready.take() {
                    then(&Ready { tasks, broker: broker.clone() });
                }
            }
            result = &mut done => return result.unwrap_or(Err(RunError::WireDied)),
        }
    }
}

struct Runner {
    registry: Registry,
    slots: Arc<Semaphore>,
    shared: Arc<Shared>,
    threads: Threads,
    data: Data,
    draining: CancellationToken,
    kill_grace: Duration,
    reports: mpsc::Sender<Report>,
}

impl Runner {
    async fn run(self: Arc<Self>, start: Start) {
        let token = start.context.token();
        let outcome = self.outcome(start).await;
        if let Some(Outcome::Failed(error)) = &outcome {
            // The broker keeps it with the task; here it could be a flood.
            tracing::debug!(kind = error.kind, error = error.message, "a run failed");
        }
        // The wire is gone only when nobody waits for outcomes any more.
        let _ = self.reports.send(Report { token, outcome }).await;
    }

    async fn outcome(&self, start: Start) -> Option<Outcome> {
        let Start {
            context,
            payload,
            reader,
        } = start;
        self.shared.settle();
        let wanted = !context.is_stopped() && !self.draining.is_cancelled();
        // The broker keeps to the slots; but a run it has given up may still hold one.
        let slot = if wanted && let Ok(slot) = self.slots.clone().try_acquire_owned() {
            Some(slot)
        } else {
            tokio::select! {
                biased;
                cause = context.stopped() => return Some(stopped(cause)),
                () = self.draining.cancelled() => return Some(Outcome::Released),
                slot = self.slots.clone().acquire_owned() => slot.ok(),
                // It is leaked, and the broker knows or is about to.
                () = sleep(self.kill_grace + SLOT_SLACK) => return Some(Outcome::Released),
            }
        };
        let Some(handler) = self.registry.handler(context.name()) else {
            let message = format!("this worker has not registered the task {:?}", context.name());
            return Some(Outcome::Failed(TaskError::retryable(message)));
        };
        match reader {
            // Boxed, as all that few runs need: what it takes would be moved about with every run.
            Some(reader) => {
                Box::pin(emit::run(
                    handler,
                    context,
                    payload,
                    reader,
                    slot,
                    (&self.data, &self.threads),
                ))
                .await
            }
            None => {
                let at_most_once = context.is_at_most_once();
                match self.call(handler, context.clone(), payload, slot).await {
                    // It has begun, and must not do so elsewhere.
                    Outcome::Released if at_most_once => Some(Outcome::Ended),
                    Outcome::Completed(result) => Some(with_spawned(&context, result)),
                    outcome => Some(outcome),
                }
            }
        }
    }

    /// Runs a handler for one result.
    async fn call(&self, handler: &Handler, context: Context, payload: Payload, slot: Slot) -> Outcome {
        match handler {
            Handler::Async(handler) | Handler::Either { call: handler, .. } => {
                run_async(&context, handler(context.clone(), payload)).await
            }
            Handler::Iter(handler) => {
                let items = async { collect(handler(context.clone(), payload)?).await };
                run_async(&context, Box::pin(items)).await
            }
            Handler::Blocking(handler) => {
                let (handler, run) = (handler.clone(), context.clone());
                Box::pin(self.run_blocking(&context, slot, move || handler(run, payload))).await
            }
            Handler::BlockingIter(handler) => {
                let (handler, run) = (handler.clone(), context.clone());
                let items = move || collect_blocking(handler(run.clone(), payload)?, || run.is_stopped());
                Box::pin(self.run_blocking(&context, slot, items)).await
            }
        }
    }

    async fn run_blocking<F>(&self, context: &Context, slot: Slot, handler: F) -> Outcome
    where
        F: FnOnce() -> RunResult + Send + 'static,
    {
        let (returned, result) = oneshot::channel();
        let run = context.clone();
        let work = Box::new(move || {
            let handler = || run.on_this_thread(handler);
            let result = catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|panic| Err(panicked(&*panic)));
            drop(slot); // taken for as long as the thread is
            let _ = returned.send(result); // nobody may be waiting any more
        });
        if let Err(error) = self.threads.run(work) {
            return Outcome::Failed(TaskError::retryable(format!(
                "failed to start a thread for the task: {error}"
            )));
        }
        let result = result
            .await
            .unwrap_or_else(|_| Err(TaskError::retryable("the handler's thread died")));
        match context.stop_cause() {
            Some(cause) => stopped(cause),
            None => result.into(),
        }
    }
}

async fn run_async(context: &Context, handler: impl Future<Output = RunResult> + Unpin) -> Outcome {
    let mut run = AssertUnwindSafe(handler).catch_unwind();
    let outcome = tokio::select! {
        biased;
        result = &mut run => match (result.unwrap_or_else(|panic| Err(panicked(&*panic))), context.stop_cause()) {
            // A call that was broken off for the stop, most likely.
            (Err(_), Some(cause)) => stopped(cause),
            (result, _) => result.into(),
        },
        cause = context.stopped() => stopped(cause),
    };
    // Its destructors are the handler's code too.
    if catch_unwind(AssertUnwindSafe(|| drop(run))).is_err() {
        tracing::warn!(task = context.name(), "a handler panicked while it was dropped");
    }
    context.settled().await;
    outcome
}

fn with_spawned(context: &Context, result: Payload) -> Outcome {
    let spawned = context.take_spawned();
    if spawned.is_empty() {
        return Outcome::Completed(result);
    }
    Outcome::CompletedWith(Box::new((result, spawned)))
}

impl From<RunResult> for Outcome {
    fn from(result: RunResult) -> Self {
        match result {
            Ok(result) => Self::Completed(result),
            Err(error) => Self::Failed(error),
        }
    }
}

fn stopped(cause: StopCause) -> Outcome {
    match cause {
        StopCause::Shutdown => Outcome::Released,
        StopCause::Cancelled | StopCause::Timeout | StopCause::Deadline | StopCause::LeaseLost => Outcome::Ended,
    }
}
