//! One consumer of a stream: what it is to be sent, how far it has got.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use asynq_core::{ConsumerId, Credit, Finished, ItemBatch, TaskId, TaskSpec};
use asynq_proto::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPS};

use super::error::Error;
use super::handle::{Broker, Command};
use super::outbox::{Outbox, Weigh};
use crate::limits::{AUTO_ACK_ITEMS, STREAM_BACKLOG_BYTES, STREAM_BACKLOG_ITEMS};

/// A task whose items are to be sent as they come.
#[derive(Debug)]
pub(crate) struct Iterate {
    pub(crate) spec: Box<TaskSpec>,
    /// The id was made here, so it cannot have been used before.
    pub(crate) is_new: bool,
    /// The caller has not sent the id before, so its age says nothing.
    pub(crate) is_fresh: bool,
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
    /// What it said when it opened the stream.
    asked: Credit,
    /// What is written counts as taken.
    auto_ack: bool,
    /// Filled as far as credit goes, and [`Consumer::cap`] bounds that.
    outbox: Outbox<Frame>,
    written_items: AtomicU64,
    written_bytes: AtomicU64,
}

impl Consumer {
    /// One that says itself what it has taken and has room for.
    pub(crate) fn new(id: ConsumerId, asked: Credit) -> Arc<Self> {
        Self::with(id, asked, false)
    }

    /// One for which the broker keeps a window of its own open past what is
    /// written.
    pub(crate) fn auto_ack(id: ConsumerId) -> Arc<Self> {
        let asked = Credit {
            acked: 0,
            limit_index: u64::MAX,
            limit_bytes: u64::MAX,
        };
        Self::with(id, asked, true)
    }

    fn with(id: ConsumerId, asked: Credit, auto_ack: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            asked,
            auto_ack,
            outbox: Outbox::new(),
            written_items: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
        })
    }

    pub(super) fn id(&self) -> ConsumerId {
        self.id
    }

    pub(super) fn asked(&self) -> Credit {
        self.asked
    }

    pub(super) fn outbox(&self) -> &Outbox<Frame> {
        &self.outbox
    }

    /// Credit as far as it can be given: whatever a consumer says, no more than
    /// a window may wait here to be written. One that counts what it has room
    /// for from what it has taken never meets this bound.
    pub(super) fn cap(&self, asked: Credit) -> Credit {
        let written = self.written_items.load(Ordering::Relaxed);
        let written_bytes = self.written_bytes.load(Ordering::Relaxed);
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

/// A consumer for as long as somebody listens: dropped, its task is stopped.
#[derive(Debug)]
pub(crate) struct ConsumerGuard {
    task: TaskId,
    consumer: Arc<Consumer>,
    broker: Broker,
    /// Items and bytes written that the loop has not been told of.
    untold: (u64, u64),
}

impl ConsumerGuard {
    pub(super) fn new(broker: Broker, task: TaskId, consumer: Arc<Consumer>) -> Self {
        Self {
            task,
            consumer,
            broker,
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
            self.broker.consumer_left(self.task, self.consumer.clone());
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
        let consumer = Consumer::new(ID, credit(0, 0, 0));
        let first = credit(0, STREAM_BACKLOG_ITEMS, STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(first), first);
        write(&consumer, 10, 1_000);
        let next = credit(9, STREAM_BACKLOG_ITEMS + 9, STREAM_BACKLOG_BYTES + 900);
        assert_eq!(consumer.cap(next), next);
    }

    #[test]
    fn credit_without_bounds_does_not_fill_the_memory() {
        let consumer = Consumer::new(ID, credit(0, 0, 0));
        let endless = credit(3, u64::MAX, u64::MAX);
        write(&consumer, 5, 500);
        let given = credit(3, 5 + STREAM_BACKLOG_ITEMS, 500 + STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(endless), given);
    }

    #[test]
    fn what_is_written_counts_as_taken_where_the_broker_keeps_the_window() {
        let consumer = Consumer::auto_ack(ID);
        assert_eq!(
            consumer.cap(consumer.asked()),
            credit(0, AUTO_ACK_ITEMS, STREAM_BACKLOG_BYTES)
        );
        write(&consumer, 7, 70);
        let given = credit(7, 7 + AUTO_ACK_ITEMS, 70 + STREAM_BACKLOG_BYTES);
        assert_eq!(consumer.cap(consumer.asked()), given);
    }
}
