//! Items gathered into batches, each within the credit. Plain data, no wire.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{self, Poll};

use asynq_proto::limits::{MAX_BATCH_OPS, MAX_CHECKPOINT_BYTES};
use asynq_proto::v1::{Checkpoint, Credit, ItemBatch};
use asynq_proto::{Place, TaskError};
use bytes::Bytes;

use crate::context::Context;
use crate::handler::panicked;
use crate::items::{Items, MediaType, Piece};
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
    /// The media type of the item behind it, and the checkpoint behind that.
    held: Option<(MediaType, Option<Bytes>)>,
    /// The last checkpoint among the items of the batch, or of the one before it, to be
    /// sent when the items before it have been.
    mark: Option<Checkpoint>,
}

/// Why filling came to a halt.
pub(crate) enum Filled {
    /// No more is ready, or fits: send this.
    Batch(ItemBatch),
    /// The generator can begin again behind the items of the batches before.
    Mark(Checkpoint),
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
            mark: None,
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
                let filled = match self.take() {
                    Some(batch) => Filled::Batch(batch),
                    None => self.take_mark().map_or(Filled::NoCredit, Filled::Mark),
                };
                return Poll::Ready(filled);
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
        if self.lengths.is_empty() && self.mark.is_some() {
            return Poll::Ready(None); // it was behind the items that have just gone out
        }
        self.admit(credit);
        let mut marks = 0;
        while self.may_pull(credit) && marks < MAX_BATCH_OPS {
            // A run that is told to stop gets no further item, even amid a batch.
            if run.is_stopped() {
                return Poll::Pending;
            }
            match items.poll_next(cx, &mut self.data) {
                Poll::Ready(Some(Ok(Piece { item, token }))) => {
                    if let Err(error) = self.check(run, item.is_some(), token.as_ref()) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    match (item, token) {
                        (Some(media_type), token) => self.held = Some((media_type, token)),
                        (None, Some(token)) => {
                            self.mark(token);
                            marks += 1;
                        }
                        (None, None) => {}
                    }
                    self.admit(credit);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(Some(run.start().begun())),
                Poll::Pending if self.lengths.is_empty() && self.mark.is_none() => return Poll::Pending,
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
        let fits = |(media_type, _): &(MediaType, Option<Bytes>)| {
            let alone = self.lengths.is_empty();
            self.first.byte + end as u64 <= credit.limit_bytes
                && (alone || (end <= MAX_ITEM_BATCH_BYTES && *media_type == self.content_type))
        };
        if let Some((media_type, token)) = self.held.take_if(|held| fits(held)) {
            self.content_type = media_type;
            // At most MAX_PAYLOAD_BYTES, far below 2³².
            self.lengths.push((end - self.used) as u32);
            self.end.pass(&self.data[self.used..end]);
            self.used = end;
            token.into_iter().for_each(|token| self.mark(token));
        }
    }

    fn mark(&mut self, token: Bytes) {
        let index = self.end.index;
        self.mark = Some(Checkpoint { index, token });
    }

    /// Whether a piece may be taken in: a generator that is to go on from a checkpoint
    /// has asked for it, and its own are what they may be.
    fn check(&self, run: &Context, is_item: bool, token: Option<&Bytes>) -> Result<(), TaskError> {
        run.start().begun()?;
        let Some(token) = token else { return Ok(()) };
        let index = self.end.index + u64::from(is_item);
        let problem = match token.len() {
            _ if !run.start().has_checkpoints() => {
                "of an iterator that is not declared with OnLoss::Checkpoint, or on_loss = \"checkpoint\"".into()
            }
            _ if index == 0 => "before the first item: one stands behind the items before it".into(),
            ..=MAX_CHECKPOINT_BYTES => return Ok(()),
            bytes => format!(
                "of {bytes} bytes at item {index}: at most {MAX_CHECKPOINT_BYTES} (MAX_CHECKPOINT_BYTES) are allowed"
            ),
        };
        Err(TaskError::terminal(format!("it yielded a checkpoint {problem}")))
    }

    /// A checkpoint of items that have been taken, if there is one.
    pub(crate) fn take_mark(&mut self) -> Option<Checkpoint> {
        self.mark.take()
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
