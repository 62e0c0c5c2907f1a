//! One consumer of a stream: what it is to be sent, how far it has got.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use asynq_core::{ConsumerId, Credit, Finished, ItemBatch, Left, Place, Reader, TaskId, TaskSpec};
use asynq_proto::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPS};
use tokio::runtime::Handle;

use super::error::Error;
use super::handle::{Broker, Command};
use super::outbox::{Outbox, Weigh};
use crate::limits::{AUTO_ACK_ITEMS, STREAM_BACKLOG_BYTES, STREAM_BACKLOG_ITEMS};
use crate::line::Line;

/// A task whose items are to be sent as they come.
#[derive(Debug)]
pub(crate) struct Iterate {
    pub(crate) task: TaskId,
    /// What to run; `None`: only a task that is there is read.
    pub(crate) spec: Option<Box<TaskSpec>>,
    /// The id was made here, so it cannot have been used before.
    pub(crate) is_new: bool,
    /// The caller has not sent the id before, so its age says nothing.
    pub(crate) is_fresh: bool,
    /// From where it is read; the credit is the consumer's.
    pub(crate) reader: Reader,
    pub(crate) consumer: Arc<Consumer>,
}

/// What a consumer is sent.
#[derive(Debug)]
pub(crate) enum Frame {
    Items(ItemBatch),
    /// The stream is whole, or will not get longer: `count` items were sent.
    End {
        count: u64,
        end: Arc<Finished>,
    },
}

impl Weigh for Frame {
    fn weight(&self) -> usize {
        match self {
            Self::Items(batch) => 64 + 4 * batch.lengths.len() + batch.data.len(),
            Self::End { end, .. } => 64 + end.failure.as_ref().map_or(0, |f| f.message.len() + f.trace.len()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Consumer {
    id: ConsumerId,
    /// Counts the times it has opened the stream.
    open_seq: u64,
    /// What it said when it opened the stream; bytes are counted from there.
    asked: Credit,
    /// The end of its call is taken for a lost connection.
    detaches: bool,
    /// What is written counts as taken.
    auto_ack: bool,
    /// Filled as far as credit goes, and [`Consumer::cap`] bounds that.
    outbox: Outbox<Frame>,
    written_items: AtomicU64,
    written_bytes: AtomicU64,
}

impl Consumer {
    /// One that says itself what it has taken and has room for.
    pub(crate) fn new((id, open_seq): (ConsumerId, u64), asked: Credit, detaches: bool) -> Arc<Self> {
        Self::with((id, open_seq), asked, detaches, false)
    }

    /// One for which the broker keeps a window of its own open past what is
    /// written.
    pub(crate) fn auto_ack(id: ConsumerId, open_seq: u64) -> Arc<Self> {
        let asked = Credit {
            acked: 0,
            limit_index: u64::MAX,
            limit_bytes: u64::MAX,
        };
        Self::with((id, open_seq), asked, false, true)
    }

    fn with((id, open_seq): (ConsumerId, u64), asked: Credit, detaches: bool, auto_ack: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            open_seq,
            asked,
            detaches,
            auto_ack,
            outbox: Outbox::new(),
            written_items: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
        })
    }

    pub(super) fn id(&self) -> ConsumerId {
        self.id
    }

    pub(super) fn open_seq(&self) -> u64 {
        self.open_seq
    }

    pub(super) fn asked(&self) -> Credit {
        self.asked
    }

    pub(super) fn outbox(&self) -> &Outbox<Frame> {
        &self.outbox
    }

    /// Credit as far as it can be given to a consumer that reads from `at`: whatever
    /// it says, no more than a window may wait here to be written. One that counts
    /// what it has room for from what it has taken never meets this bound.
    pub(super) fn cap(&self, asked: Credit, at: Place) -> Credit {
        let written = at.index.saturating_add(self.written_items.load(Ordering::Relaxed));
        let written_bytes = at.byte.saturating_add(self.written_bytes.load(Ordering::Relaxed));
        Credit {
            acked: if self.auto_ack { written } else { asked.acked },
            limit_index: asked.limit_index.min(written.saturating_add(self.window_items())),
            limit_bytes: asked
                .limit_bytes
                .min(written_bytes.saturating_add(STREAM_BACKLOG_BYTES)),
        }
    }

    fn window_items(&self) -> u64 {
        if self.auto_ack {
            AUTO_ACK_ITEMS
        } else {
            STREAM_BACKLOG_ITEMS
        }
    }
}

/// A consumer for as long as somebody listens: dropped, its task is stopped, or
/// left to wait for it if the connection was lost.
#[derive(Debug)]
pub(crate) struct ConsumerGuard {
    task: TaskId,
    consumer: Arc<Consumer>,
    broker: Broker,
    /// Tells a lost connection from a call that was ended.
    line: Option<Line>,
    /// Items and bytes written that the loop has not been told of.
    untold: (u64, u64),
}

impl ConsumerGuard {
    pub(super) fn new(broker: Broker, task: TaskId, consumer: Arc<Consumer>, line: Option<Line>) -> Self {
        Self {
            task,
            consumer,
            broker,
            line,
            untold: (0, 0),
        }
    }

    /// These items are being written.
    pub(crate) fn wrote(&mut self, batch: &ItemBatch) {
        let (items, bytes) = (batch.lengths.len() as u64, batch.data.len() as u64);
        self.consumer.written_items.fetch_add(items, Ordering::Relaxed);
        self.consumer.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.untold.0 += items;
        self.untold.1 += bytes;
    }

    /// Tells the loop what was written, where it would hold credit back else:
    /// half of a window early enough that the other half goes on meanwhile.
    pub(crate) async fn tell(&mut self) {
        let (items, bytes) = self.untold;
        if items < self.consumer.window_items() / 2 && bytes < STREAM_BACKLOG_BYTES / 2 {
            return;
        }
        self.untold = (0, 0);
        let written = Command::Written {
            task: self.task,
            consumer: self.consumer.clone(),
        };
        // If the broker has ended, `take` says so.
        let _ = self.broker.send(written).await;
    }

    /// Waits for frames and takes what is there; or says why there will be no
    /// more.
    pub(crate) async fn take(&self, batch: &mut Vec<Frame>) -> Option<Error> {
        tokio::select! {
            biased;
            end = self.consumer.outbox.take(batch, MAX_BATCH_OPS, MAX_BATCH_BYTES) => end,
            end = self.broker.ended() => Some(end.into()),
        }
    }
}

impl Drop for ConsumerGuard {
    fn drop(&mut self) {
        // Over already: the task has ended.
        if !self.consumer.outbox.is_over() {
            self.consumer.outbox.abandon();
            self.tell_left();
        }
    }
}

impl ConsumerGuard {
    fn tell_left(&mut self) {
        let (broker, task, consumer) = (self.broker.clone(), self.task, self.consumer.clone());
        if consumer.auto_ack {
            return broker.consumer_left(task, consumer, Left::Stopped);
        }
        if consumer.detaches {
            return broker.consumer_left(task, consumer, Left::Cut);
        }
        match (self.line.take(), Handle::try_current()) {
            (Some(line), Ok(runtime)) => {
                // Which of the two it is shows a moment later.
                runtime.spawn(async move {
                    let how = if line.is_over().await { Left::Cut } else { Left::Stopped };
                    broker.consumer_left(task, consumer, how);
                });
            }
            _ => broker.consumer_left(task, consumer, Left::Cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConsumerId = ConsumerId([1; 16]);

    fn credit(acked: u64, limit_index: u64, limit_bytes: u64) -> Credit {
        Credit {
            acked,
            limit_index,
            limit_bytes,
        }
    }

    fn write(consumer: &Consumer, items: u64, bytes: u64) {
        consumer.written_items.fetch_add(items, Ordering::Relaxed);
        consumer.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    #[test]
    fn a_window_counted_from_what_was_taken_is_given_whole() {
        let consumer = Consumer::new((ID, 1), credit(0, 0, 0), false);
        let first = credit(0, STREAM_BACKLOG_ITEMS, STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(first, Place::START), first);
        write(&consumer, 10, 1_000);
        let next = credit(9, STREAM_BACKLOG_ITEMS + 9, STREAM_BACKLOG_BYTES + 900);
        assert_eq!(consumer.cap(next, Place::START), next);
    }

    #[test]
    fn credit_without_bounds_does_not_fill_the_memory() {
        let consumer = Consumer::new((ID, 1), credit(0, 0, 0), false);
        let endless = credit(3, u64::MAX, u64::MAX);
        write(&consumer, 5, 500);
        let given = credit(3, 5 + STREAM_BACKLOG_ITEMS, 500 + STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(endless, Place::START), given);
        let place = Place {
            byte: 50,
            ..Place::at_index(7)
        };
        let later = credit(3, 12 + STREAM_BACKLOG_ITEMS, 550 + STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(endless, place), later);
    }

    #[test]
    fn what_is_written_counts_as_taken_where_the_broker_keeps_the_window() {
        let consumer = Consumer::auto_ack(ID, 1);
        assert_eq!(
            consumer.cap(consumer.asked(), Place::START),
            credit(0, AUTO_ACK_ITEMS, STREAM_BACKLOG_BYTES)
        );
        write(&consumer, 7, 70);
        let given = credit(7, 7 + AUTO_ACK_ITEMS, 70 + STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(consumer.asked(), Place::START), given);
    }
}
