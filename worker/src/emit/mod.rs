//! One run whose items somebody reads as they come: its generator pulled as far
//! as the reader has room, its items sent up, the broker's word awaited.
//!
//! A generator is pulled for item i only once i lies within the credit; an item
//! that then turns out to have too many bytes is held back, one at most. Items
//! that are ready together travel together; none waits for another.
//!
//! A blocking generator puts its items on a `shelf`, one that has run before does a
//! `replay`; the `pump` gathers what comes into `batch`es, which are `kept` until
//! they are acknowledged, and sends them by one `lane` after the other. Who calls
//! a generator has its items `collect`ed.

mod batch;
mod collect;
mod kept;
mod lane;
mod marks;
mod pump;
mod replay;
mod shelf;

use std::panic::{AssertUnwindSafe, catch_unwind};

use asynq_proto::v1::Credit;
use asynq_proto::{Payload, TaskError};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::context::Context;
use crate::data::Data;
use crate::handler::{Handler, panicked};
use crate::items::{BlockingSingle, Opened, OpenedBlocking, Single};
use crate::ledger::Outcome;
use crate::threads::Threads;
pub(crate) use collect::{collect, collect_blocking};
use lane::Open;
use pump::Pump;
pub(crate) use replay::Start;
use replay::{Replay, Replayed};

/// Who reads a run's items as they come.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// The session the run belongs to, which has another name after some breaks.
    pub(crate) session: watch::Receiver<Bytes>,
    /// What the reader has room for to begin with.
    pub(crate) credit: Credit,
}

/// A run's slot, which others may have while it waits for its reader.
pub(crate) type Slot = Option<OwnedSemaphorePermit>;

/// Runs a handler for a reader. The outcome is `None` when the broker has taken
/// it already, over the stream itself.
pub(crate) async fn run(
    handler: &Handler,
    context: Context,
    payload: Payload,
    reader: Reader,
    slot: Slot,
    (data, threads): (&Data, &Threads),
) -> Option<Outcome> {
    let (granted, credit) = watch::channel(reader.credit);
    let emission = Emission {
        context: context.clone(),
        open: lane::to_broker(data, context.clone(), reader, granted),
        credit,
        slot,
    };
    match handler {
        Handler::Async(handler) => {
            let result = Single(Some(handler(context, payload)));
            emission.run_async(Ok(Box::new(result))).await
        }
        Handler::Iter(handler) | Handler::Either { iter: handler, .. } => {
            let opened = catch_unwind(AssertUnwindSafe(|| handler(context, payload)));
            emission
                .run_async(opened.unwrap_or_else(|panic| Err(panicked(&*panic))))
                .await
        }
        Handler::Blocking(handler) => {
            let handler = handler.clone();
            let open =
                move || -> OpenedBlocking { Ok(Box::new(BlockingSingle(Some(move || handler(context, payload))))) };
            run_blocking(emission, open, data, threads).await
        }
        Handler::BlockingIter(handler) => {
            let handler = handler.clone();
            run_blocking(emission, move || handler(context, payload), data, threads).await
        }
    }
}

/// The generator has a thread of its own; its items go from there straight to
/// the thread of the data connection.
async fn run_blocking<F>(emission: Emission, open: F, data: &Data, threads: &Threads) -> Option<Outcome>
where
    F: FnOnce() -> OpenedBlocking + Send + 'static,
{
    let (producer, items) = shelf::new(emission.context.clone());
    let (returned, done) = oneshot::channel();
    let run = emission.context.clone();
    let work = Box::new(move || {
        run.on_this_thread(|| producer.run(open));
        let _ = returned.send(()); // nobody may be waiting any more
    });
    if let Err(error) = threads.run(work) {
        let error = TaskError::retryable(format!("failed to start a thread for the task: {error}"));
        return emission.run(Err(error)).await.0;
    }
    let pumped = data.line().spawn(emission.run(Ok(Box::new(items)))).await;
    // A run is over, and its slot free, once its thread has let go of the iterator.
    let _ = done.await;
    let (outcome, _slot) = pumped.unwrap_or((Some(Outcome::Ended), None));
    outcome
}

/// One stream of items on its way to the broker.
struct Emission {
    context: Context,
    open: Open,
    credit: watch::Receiver<Credit>,
    slot: Slot,
}

impl Emission {
    async fn run_async(self, opened: Opened) -> Option<Outcome> {
        let opened = opened.map(|items| match Replay::of(&self.context) {
            Some(replay) => Box::new(Replayed::new(items, replay)),
            None => items,
        });
        self.run(opened).await.0
    }

    /// Sends all items and awaits the broker's word, unless the run is stopped
    /// before: then the generator is dropped at its await point.
    async fn run(self, opened: Opened) -> (Option<Outcome>, Slot) {
        let Self {
            context,
            mut open,
            credit,
            slot,
        } = self;
        let mut pump = Pump::new(context.clone(), opened, credit, slot);
        let outcome = tokio::select! {
            biased;
            _ = context.stopped() => Some(Outcome::Ended),
            outcome = pump.run(&mut open) => outcome,
        };
        if pump.drop_generator().is_err() {
            tracing::warn!(task = context.name(), "a generator panicked while it was dropped");
        }
        context.settled().await;
        (outcome, pump.slot)
    }
}

/// Takes the larger of each; whether one is.
fn raise(credit: &mut Credit, other: Credit) -> bool {
    let before = *credit;
    *credit = Credit {
        acked: before.acked.max(other.acked),
        limit_index: before.limit_index.max(other.limit_index),
        limit_bytes: before.limit_bytes.max(other.limit_bytes),
    };
    before != *credit
}

#[cfg(test)]
mod tests;
