//! What one consumer of a stream is sent, and when: items wait here until it has
//! room for them, and the end of the stream waits for them.

use std::collections::VecDeque;
use std::sync::Arc;

use asynq_core::{Credit, Finished, ItemBatch, Place};

use super::consumer::{Consumer, Frame};
use super::error::{End, Error};

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    consumer: Arc<Consumer>,
    /// Where its items begin.
    at: Place,
    /// What the consumer has said so far.
    asked: Credit,
    /// Items it has no room for yet.
    waiting: VecDeque<ItemBatch>,
    /// One past the last item it was handed, or will be.
    head: u64,
    /// How its task has ended.
    end: Option<Arc<Finished>>,
}

impl Lane {
    pub(super) fn new(consumer: Arc<Consumer>, at: Place) -> Self {
        let asked = consumer.asked();
        Self {
            at,
            asked: Credit {
                limit_bytes: at.byte.saturating_add(asked.limit_bytes),
                ..asked
            },
            consumer,
            waiting: VecDeque::new(),
            head: at.index,
            end: None,
        }
    }

    pub(super) fn consumer(&self) -> &Arc<Consumer> {
        &self.consumer
    }

    pub(super) fn is_of(&self, consumer: &Arc<Consumer>) -> bool {
        Arc::ptr_eq(&self.consumer, consumer)
    }

    /// The consumer has said more of its room.
    pub(super) fn raise(&mut self, credit: Credit) {
        self.asked = Credit {
            acked: self.asked.acked.max(credit.acked),
            limit_index: self.asked.limit_index.max(credit.limit_index),
            limit_bytes: self.asked.limit_bytes.max(credit.limit_bytes),
        };
    }

    /// As far as a run may go for its sake.
    pub(super) fn credit(&self) -> Credit {
        self.consumer.cap(self.asked, self.at)
    }

    /// Items for the consumer.
    pub(super) fn push(&mut self, batch: ItemBatch) {
        self.head = batch.end();
        self.waiting.push_back(batch);
        self.release();
    }

    /// There is nothing to come behind what waits.
    pub(super) fn finish(&mut self, end: Arc<Finished>) {
        self.end = Some(end);
        self.release();
    }

    /// Hands on what there is room for. Items may be handed on before the task
    /// itself is durable: who opened the stream takes nothing before it has been
    /// told of that.
    pub(super) fn release(&mut self) {
        let outbox = self.consumer.outbox();
        let credit = self.credit();
        while let Some(batch) = self.waiting.pop_front() {
            let fits = batch.within(credit.limit_index, credit.limit_bytes);
            let (now, later) = batch.split(fits);
            now.into_iter().for_each(|items| outbox.push(Frame::Items(items)));
            if let Some(later) = later {
                return self.waiting.push_front(later);
            }
        }
        if let Some(end) = self.end.take() {
            let count = self.head;
            outbox.push(Frame::End { count, end });
            outbox.end(End::Done);
        }
    }

    /// Whether its consumer has been handed all there is.
    pub(super) fn is_over(&self) -> bool {
        self.consumer.outbox().is_over()
    }

    /// The consumer gets nothing more.
    pub(super) fn cut(self, why: impl Into<Error>) {
        self.consumer.outbox().end(why);
    }
}

#[cfg(test)]
mod tests {
    use asynq_core::{ConsumerId, Outcome, TaskId, Timestamp};
    use futures_util::FutureExt;

    use super::*;

    fn batch(first: u64, items: usize) -> ItemBatch {
        ItemBatch {
            first_index: first,
            first_byte: 10 * first,
            lengths: vec![10; items],
            data: vec![0; 10 * items].into(),
            content_type: "".into(),
        }
    }

    fn lane(limit_index: u64, limit_bytes: u64, at: u64) -> Lane {
        let asked = Credit {
            acked: 0,
            limit_index,
            limit_bytes,
        };
        let place = Place {
            byte: 10 * at,
            ..Place::at_index(at)
        };
        Lane::new(Consumer::new((ConsumerId([1; 16]), 1), asked, false), place)
    }

    /// The indices it has been handed, `None` for the end.
    fn handed(lane: &Lane) -> Vec<Option<u64>> {
        let mut frames = Vec::new();
        let taken = lane.consumer().outbox().take(&mut frames, 99, 9_999).now_or_never();
        drop(taken);
        let of = |frame: Frame| match frame {
            Frame::Items(batch) => (batch.first_index..batch.end()).map(Some).collect(),
            Frame::End { count, .. } => vec![None, Some(count)],
        };
        frames.into_iter().flat_map(of).collect()
    }

    #[test]
    fn items_wait_for_room_and_the_end_waits_for_them() {
        let mut lane = lane(7, 25, 4);
        lane.push(batch(4, 2));
        lane.push(batch(6, 2));
        assert_eq!(handed(&lane), [Some(4), Some(5)], "25 bytes from where it began");
        lane.finish(Arc::new(Finished {
            task: TaskId([1; 16]),
            outcome: Outcome::Succeeded,
            result: None,
            failure: None,
            enqueued_at: Timestamp::ZERO,
            started_at: None,
            at: Timestamp::ZERO,
            attempts: 1,
        }));
        assert_eq!(handed(&lane), []);
        for (limit_index, due) in [(7, vec![Some(6)]), (8, vec![Some(7), None, Some(8)])] {
            lane.raise(Credit {
                acked: 0,
                limit_index,
                limit_bytes: 999,
            });
            assert!(!lane.is_over());
            lane.release();
            assert_eq!(handed(&lane), due);
        }
        assert!(lane.is_over());
    }
}
