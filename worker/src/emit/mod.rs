//! One run whose items somebody reads as they come: its generator pulled as far
//! as the reader has room, its items sent up, the broker's word awaited.
//!
//! A generator is pulled for item i only once i lies within the credit; an item
//! that then turns out to have too many bytes is held back, one at most. Items
//! that are ready together travel together; none waits for another.

mod batch;
mod collect;
mod lane;
mod shelf;

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};

use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Credit, EmitEnd, EmitFrame};
use asynq_proto::{Payload, TaskError};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::context::Context;
use crate::data::Data;
use crate::handler::{Handler, panicked};
use crate::items::{BlockingSingle, Items, Opened, OpenedBlocking, Single};
use crate::ledger::Outcome;
use crate::limits::BLOCKED_AFTER;
use crate::threads::Threads;
use batch::{Batcher, Filled};
pub(crate) use collect::{collect, collect_blocking};
use lane::{Lane, Word};

/// Who reads a run's items as they come.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// The session the run belongs to.
    pub(crate) session: Bytes,
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
    let emission = Emission {
        context: context.clone(),
        lane: Lane::open(data, &context, reader),
        slot,
    };
    match handler {
        Handler::Async(handler) => {
            emission
                .run(Ok(Box::new(Single(Some(handler(context, payload))))))
                .await
                .0
        }
        Handler::Iter(handler) | Handler::Either { iter: handler, .. } => {
            let opened = catch_unwind(AssertUnwindSafe(|| handler(context, payload)));
            emission
                .run(opened.unwrap_or_else(|panic| Err(panicked(&*panic))))
                .await
                .0
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
    let pumped = data.spawn(emission.run(Ok(Box::new(items)))).await;
    // A run is over, and its slot free, once its thread has let go of the iterator.
    let _ = done.await;
    let (outcome, _slot) = pumped.unwrap_or((Some(Outcome::Ended), None));
    outcome
}

/// One stream of items on its way to the broker.
struct Emission {
    context: Context,
    lane: Lane,
    slot: Slot,
}

impl Emission {
    /// Sends all items and awaits the broker's word, unless the run is stopped
    /// before: then the generator is dropped at its await point.
    async fn run(self, opened: Opened) -> (Option<Outcome>, Slot) {
        let Self {
            context,
            lane: Lane {
                frames,
                credit,
                mut link,
            },
            mut slot,
        } = self;
        let (mut items, refused) = match opened {
            Ok(items) => (Some(items), None),
            Err(error) => (None, Some(error)),
        };
        let pump = Pump {
            context: &context,
            frames,
            credit,
            slot: &mut slot,
            batch: Batcher::default(),
        };
        let outcome = tokio::select! {
            biased;
            _ = context.stopped() => Some(Outcome::Ended),
            word = &mut link => match word {
                Ok(Word::Taken) => None,
                Ok(Word::Lost(why)) => {
                    tracing::warn!(task = context.name(), id = %context.task_id(), why, "a stream of items broke; its run ends");
                    Some(Outcome::Ended)
                }
                Err(_) => Some(Outcome::Ended), // the worker ends
            },
            never = pump.run(&mut items, refused) => match never {},
        };
        if dropped(items).is_err() {
            tracing::warn!(task = context.name(), "a generator panicked while it was dropped");
        }
        context.settled().await;
        (outcome, slot)
    }
}

/// The sending half: generator in, frames out.
struct Pump<'a> {
    context: &'a Context,
    frames: mpsc::Sender<EmitFrame>,
    credit: watch::Receiver<Credit>,
    slot: &'a mut Slot,
    batch: Batcher,
}

impl Pump<'_> {
    /// Never returns: what ends a stream is the broker's word, or its loss.
    async fn run(mut self, items: &mut Option<Box<dyn Items>>, refused: Option<TaskError>) -> Infallible {
        let ended = match (&mut *items, refused) {
            (Some(items), _) => self.send(&mut **items).await,
            (None, refused) => refused.map(Err),
        };
        if let Some(ended) = ended {
            // Gone before its end is known; and its destructors are the handler's code too.
            let gone = dropped(items.take());
            let ended = ended.and_then(|count| gone.map(|()| count));
            self.context.settled().await;
            let last = match ended {
                Ok(count) => Frame::End(EmitEnd { count }),
                Err(error) => Frame::Failure(error.into_wire()),
            };
            give_up(self.slot, self.context);
            let _ = self.frames.send(frame(last)).await; // or the link says why not
        }
        pending().await
    }

    /// Sends items as they come, until the generator ends: then says how many
    /// there were, or how it failed. `None` if the link is gone.
    async fn send(&mut self, items: &mut dyn Items) -> Option<Result<u64, TaskError>> {
        let Self {
            context,
            frames,
            credit: credits,
            slot,
            batch,
        } = self;
        loop {
            // While it waits to be sent, the generator rests.
            let permit = frames.reserve().await.ok()?;
            let credit = *credits.borrow_and_update();
            items.allow(credit);
            match poll_fn(|cx| batch.poll_fill(cx, items, credit, context)).await {
                Filled::Batch(items) => permit.send(frame(Frame::Items(items))),
                Filled::NoCredit => match timeout(BLOCKED_AFTER, credits.changed()).await {
                    Ok(changed) => changed.ok()?,
                    Err(_) => {
                        give_up(slot, context);
                        permit.send(frame(Frame::Blocked(credit)));
                        credits.changed().await.ok()?;
                    }
                },
                Filled::Over(rest, ended) => {
                    if let Some(rest) = rest {
                        permit.send(frame(Frame::Items(rest)));
                    }
                    return Some(ended);
                }
            }
        }
    }
}

/// To be done before the broker is told, so that whoever it sends instead is let in.
fn give_up(slot: &mut Slot, context: &Context) {
    context.give_up_slot();
    drop(slot.take());
}

fn frame(frame: Frame) -> EmitFrame {
    EmitFrame {
        frame: Some(frame),
        ..EmitFrame::default()
    }
}

fn dropped(items: Option<Box<dyn Items>>) -> Result<(), TaskError> {
    catch_unwind(AssertUnwindSafe(|| drop(items))).map_err(|panic| panicked(&*panic))
}

/// Whether there is more room after taking the larger of each.
fn raise(credit: &mut Credit, other: Credit) -> bool {
    let before = (credit.limit_index, credit.limit_bytes);
    *credit = Credit {
        acked: credit.acked.max(other.acked),
        limit_index: before.0.max(other.limit_index),
        limit_bytes: before.1.max(other.limit_bytes),
    };
    before != (credit.limit_index, credit.limit_bytes)
}

#[cfg(test)]
mod tests;
