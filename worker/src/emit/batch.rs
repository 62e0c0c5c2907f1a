//! Items gathered into batches, each within the credit. Plain data, no wire.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{self, Poll};

use asynq_proto::limits::MAX_BATCH_OPS;
use asynq_proto::v1::{Credit, ItemBatch};
use asynq_proto::{Place, TaskError};

use crate::context::Context;
use crate::handler::panicked;
use crate::items::{Items, MediaType};
use crate::limits::MAX_ITEM_BATCH_BYTES;

/// The batch under way. Its items lie at the beginning of `data`; behind them
/// may lie one that has been pulled and does not fit yet.
pub(crate) struct Batcher {
    first: Place,
    /// Behind its last item.
    end: Place,
    lengths: Vec<u32>,
    content_type: MediaType,
    data: Vec<u8>,
    /// Bytes of `data` that belong to the batch.
    used: usize,
    /// The media type of the item behind it.
    held: Option<MediaType>,
}

/// Why filling came to a halt.
pub(crate) enum Filled {
    /// No more is ready, or fits: send this.
    Batch(ItemBatch),
    /// Not one more item may be sent.
    NoCredit,
    /// The generator ended after these items, well or not.
    Over(Option<ItemBatch>, Result<(), TaskError>),
}

impl Batcher {
    /// One whose first item is the one at `start`.
    pub(crate) fn new(start: Place) -> Self {
        Self {
            first: start,
            end: start,
            lengths: Vec::new(),
            content_type: MediaType::new(),
            data: Vec::new(),
            used: 0,
            held: None,
        }
    }

    /// Behind the items of the last batch that was filled.
    pub(crate) fn place(&self) -> Place {
        self.first
    }

    /// Waits for one item, then takes what is ready. A panic is a failure of
    /// the generator like any other, after the items before it.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut task::Context<'_>,
        items: &mut dyn Items,
        credit: Credit,
        run: &Context,
    ) -> Poll<Filled> {
        let filled = catch_unwind(AssertUnwindSafe(|| self.fill(cx, items, credit, run)));
        let over = match filled {
            Ok(Poll::Ready(None)) => {
                return Poll::Ready(self.take().map_or(Filled::NoCredit, Filled::Batch));
            }
            Ok(Poll::Ready(Some(over))) => over,
            Ok(Poll::Pending) => return Poll::Pending,
            Err(panic) => Err(panicked(&*panic)),
        };
        self.data.truncate(self.used); // a failed item may have left something
        let rest = self.take();
        Poll::Ready(Filled::Over(rest, over))
    }

    /// Ready with how the generator ended, or `None` if it goes on.
    fn fill(
        &mut self,
        cx: &mut task::Context<'_>,
        items: &mut dyn Items,
        credit: Credit,
        run: &Context,
    ) -> Poll<Option<Result<(), TaskError>>> {
        self.admit(credit);
        while self.may_pull(credit) {
            // A run that is told to stop gets no further item, even amid a batch.
            if run.is_stopped() {
                return Poll::Pending;
            }
            match items.poll_next(cx, &mut self.data) {
                Poll::Ready(Some(Ok(media_type))) => {
                    self.held = Some(media_type);
                    self.admit(credit);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(Some(Ok(()))),
                Poll::Pending if self.lengths.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(None)
    }

    fn may_pull(&self, credit: Credit) -> bool {
        self.held.is_none()
            && self.lengths.len() < MAX_BATCH_OPS
            && self.used < MAX_ITEM_BATCH_BYTES
            && self.end.index < credit.limit_index
    }

    /// Takes the item behind the batch in, if it fits. Any one item fits an empty batch.
    fn admit(&mut self, credit: Credit) {
        let end = self.data.len();
        let fits = |media_type: &MediaType| {
            let alone = self.lengths.is_empty();
            self.first.byte + end as u64 <= credit.limit_bytes
                && (alone || (end <= MAX_ITEM_BATCH_BYTES && *media_type == self.content_type))
        };
        if let Some(media_type) = self.held.take_if(|media_type| fits(media_type)) {
            self.content_type = media_type;
            // At most MAX_PAYLOAD_BYTES, far below 2³².
            self.lengths.push((end - self.used) as u32);
            self.end.pass(&self.data[self.used..end]);
            self.used = end;
        }
    }

    /// The batch, if there is anything in it; the next begins behind it.
    fn take(&mut self) -> Option<ItemBatch> {
        if self.lengths.is_empty() {
            return None;
        }
        // The next is likely to be about as large.
        let rest = match self.held {
            Some(_) => self.data.split_off(self.used),
            None => Vec::with_capacity(self.used.min(MAX_ITEM_BATCH_BYTES)),
        };
        let room = Vec::with_capacity(self.lengths.len());
        let batch = ItemBatch {
            first_index: self.first.index,
            first_byte: self.first.byte,
            lengths: trimmed(std::mem::replace(&mut self.lengths, room)),
            data: trimmed(std::mem::replace(&mut self.data, rest)).into(),
            content_type: std::mem::take(&mut self.content_type),
        };
        self.first = self.end;
        self.used = 0;
        Some(batch)
    }
}

/// It may be kept for long, and the one before may have been much larger.
fn trimmed<T>(mut part: Vec<T>) -> Vec<T> {
    if part.capacity() > 2 * part.len() {
        part.shrink_to_fit();
    }
    part
}
