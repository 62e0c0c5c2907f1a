//! The sending half of a stream: generator in, frames out, by one Emit after the
//! other. What was sent is kept until it is acknowledged; after a break the broker
//! says how much of it is to be sent again.
//!
//! What must outlast a break is in the pump itself: its futures may be dropped at
//! any await.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Credit, EmitEnd, EmitFrame, EmitResume, ItemBatch};
use asynq_proto::{Backoff, TaskError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::Slot;
use super::batch::{Batcher, Filled};
use super::kept::Kept;
use super::lane::{Lane, Open, Word};
use crate::context::Context;
use crate::handler::panicked;
use crate::items::{Items, Opened};
use crate::ledger::Outcome;
use crate::limits::BLOCKED_AFTER;

pub(super) struct Pump {
    context: Context,
    pub(super) slot: Slot,
    /// The generator; `None` once it has ended.
    items: Option<Box<dyn Items>>,
    /// How it ended.
    ended: Result<(), TaskError>,
    /// What an earlier run has sent is left out.
    begun: bool,
    batch: Batcher,
    kept: Kept,
    credit: watch::Receiver<Credit>,
    backoff: Backoff,
}

/// Why nothing more is sent by a lane.
enum Halt {
    /// It is gone; its link says why.
    Gone,
    /// The broker asks for what is not here.
    Astray(String),
}

impl Pump {
    pub(super) fn new(context: Context, opened: Opened, credit: watch::Receiver<Credit>, slot: Slot) -> Self {
        let start = context.start().place();
        let (items, ended) = match opened {
            Ok(items) => (Some(items), Ok(())),
            Err(error) => (None, Err(error)),
        };
        Self {
            context,
            slot,
            items,
            ended,
            begun: false,
            batch: Batcher::new(start),
            kept: Kept::new(start),
            credit,
            backoff: Backoff::reconnect(),
        }
    }

    /// Sends all items and awaits the broker's word. `None` if it has taken the end.
    pub(super) async fn run(&mut self, open: &mut Open) -> Option<Outcome> {
        // The first lane can only begin at the beginning: it does not wait to be told.
        let mut is_first = true;
        loop {
            let Lane { frames, from, mut link } = open(self.standing());
            let word = tokio::select! {
                biased;
                word = &mut link => word,
                word = self.send(&frames, (!is_first).then_some(from)) => Ok(word),
            };
            let (task, id) = (self.context.name(), self.context.task_id());
            match word {
                Ok(Word::Taken) => return None,
                Ok(Word::Lost(why)) => tracing::debug!(task, %id, why, "a stream of items broke; resuming it"),
                Ok(Word::Refused(why)) => {
                    tracing::warn!(task, %id, why, "a stream of items was refused; its run ends");
                    return Some(Outcome::Ended);
                }
                Err(_) => return Some(Outcome::Ended), // the worker ends
            }
            is_first = false;
            sleep(self.backoff.pause()).await;
        }
    }

    /// What a broker has to know that has lost its memory since.
    fn standing(&self) -> EmitResume {
        EmitResume {
            floor: Some(self.kept.floor().into()),
            head: self.kept.head().index,
            credit: Some(*self.credit.borrow()),
        }
    }

    /// Sends what there is by this lane. Only an error ends it: the link has the last word.
    async fn send(&mut self, frames: &mpsc::Sender<EmitFrame>, from: Option<oneshot::Receiver<u64>>) -> Word {
        match self.try_send(frames, from).await {
            Err(Halt::Astray(why)) => Word::Refused(why),
            Err(Halt::Gone) | Ok(()) => pending().await,
        }
    }

    async fn try_send(
        &mut self,
        frames: &mpsc::Sender<EmitFrame>,
        from: Option<oneshot::Receiver<u64>>,
    ) -> Result<(), Halt> {
        if let Some(from) = from {
            let from = from.await.map_err(|_| Halt::Gone)?;
            self.backoff.reset();
            send_again(&self.kept, frames, from).await?;
            for mark in self.kept.marks().iter() {
                say(frames, Frame::Checkpoint(mark.clone())).await?;
            }
        }
        if !self.begun {
            self.begin().await;
        }
        while self.items.is_some() {
            self.send_more(frames).await?;
        }
        // One that has failed may be tried again.
        if let (Err(_), Some(mark)) = (&self.ended, self.batch.take_mark()) {
            self.kept.mark(mark.clone());
            say(frames, Frame::Checkpoint(mark)).await?;
        }
        self.send_end(frames).await
    }

    /// Waits until what an earlier run has sent is left out.
    async fn begin(&mut self) {
        let Some(items) = &mut self.items else { return };
        let started = poll_fn(|cx| {
            let started = catch_unwind(AssertUnwindSafe(|| items.poll_start(cx)));
            started.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))))
        });
        if let Err(error) = started.await {
            self.end(Err(error));
        }
        self.begun = true;
    }

    /// Sends the items that come next, or finds that there are none.
    async fn send_more(&mut self, frames: &mpsc::Sender<EmitFrame>) -> Result<(), Halt> {
        // While it waits to be sent, the generator rests.
        let permit = frames.reserve().await.map_err(|_| Halt::Gone)?;
        let Some(items) = &mut self.items else { return Ok(()) };
        let credit = *self.credit.borrow_and_update();
        self.kept.forget(credit.acked);
        items.allow(credit);
        let filled = tokio::select! {
            biased;
            filled = poll_fn(|cx| self.batch.poll_fill(cx, &mut **items, credit, &self.context)) => filled,
            Ok(()) = self.credit.changed() => return Ok(()), // more room, or less to keep
        };
        match filled {
            Filled::Batch(items) => permit.send(self.keep(items)),
            Filled::Mark(mark) => {
                self.kept.mark(mark.clone());
                permit.send(frame(Frame::Checkpoint(mark)));
            }
            Filled::NoCredit => {
                if timeout(BLOCKED_AFTER, self.more_room(credit)).await.is_err() {
                    self.give_up_slot();
                    permit.send(frame(Frame::Blocked(credit)));
                    self.more_room(credit).await;
                }
            }
            Filled::Over(rest, ended) => {
                if let Some(rest) = rest {
                    permit.send(self.keep(rest));
                }
                self.end(ended);
            }
        }
        Ok(())
    }

    fn keep(&mut self, items: ItemBatch) -> EmitFrame {
        self.kept.push(items.clone(), self.batch.place());
        frame(Frame::Items(items))
    }

    /// Waits for more than this much.
    async fn more_room(&mut self, than: Credit) {
        let more = |now: &Credit| now.limit_index > than.limit_index || now.limit_bytes > than.limit_bytes;
        if self.credit.wait_for(more).await.is_err() {
            pending::<()>().await; // nobody grants any
        }
    }

    /// The generator has ended: it is gone before that is known, and its destructors
    /// are the handler's code too.
    fn end(&mut self, ended: Result<(), TaskError>) {
        self.ended = ended.and(self.drop_generator());
    }

    pub(super) fn drop_generator(&mut self) -> Result<(), TaskError> {
        let items = self.items.take();
        catch_unwind(AssertUnwindSafe(|| drop(items))).map_err(|panic| panicked(&*panic))
    }

    async fn send_end(&mut self, frames: &mpsc::Sender<EmitFrame>) -> Result<(), Halt> {
        self.context.settled().await;
        self.give_up_slot();
        let head = self.kept.head();
        let last = match &self.ended {
            Ok(()) => Frame::End(EmitEnd {
                count: head.index,
                digest: head.digest,
            }),
            Err(error) => Frame::Failure(error.clone().into_wire()),
        };
        say(frames, last).await
    }

    /// To be done before the broker is told, so that whoever it sends instead is let in.
    fn give_up_slot(&mut self) {
        self.context.give_up_slot();
        drop(self.slot.take());
    }
}

async fn send_again(kept: &Kept, frames: &mpsc::Sender<EmitFrame>, from: u64) -> Result<(), Halt> {
    let batches = kept.from(from).ok_or_else(|| {
        let (floor, head) = (kept.floor().index, kept.head().index);
        Halt::Astray(format!("it is to go on with item {from}, and has {floor} to {head}"))
    })?;
    for items in batches {
        say(frames, Frame::Items(items)).await?;
    }
    Ok(())
}

async fn say(frames: &mpsc::Sender<EmitFrame>, said: Frame) -> Result<(), Halt> {
    frames.send(frame(said)).await.map_err(|_| Halt::Gone)
}

fn frame(frame: Frame) -> EmitFrame {
    EmitFrame {
        frame: Some(frame),
        ..EmitFrame::default()
    }
}
