//! What one connection has still to be sent: the loop puts in, the
//! connection's stream takes out all that is there and sends it in one message.
//!
//! An outbox has no capacity of its own. Whoever feeds the loop bounds it: a
//! caller by its outstanding operations, a worker by its slots and by being
//! read from only while there is [`Outbox::room`], the consumer of a stream by
//! the credit there is for it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::error::{End, Error};

/// Something with a size on the wire, roughly.
pub(crate) trait Weigh {
    /// Bytes.
    fn weight(&self) -> usize;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    inner: Mutex<Inner<T>>,
    ready: Notify,
    room: Notify,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    bytes: usize,
    end: Option<Error>,
}

impl<T: Weigh> Outbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                items: VecDeque::new(),
                bytes: 0,
                end: None,
            }),
            ready: Notify::new(),
            room: Notify::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Puts something in. Nothing happens when the outbox has been ended.
    pub(crate) fn push(&self, item: T) {
        let mut inner = self.lock();
        if inner.end.is_some() {
            return;
        }
        inner.bytes += item.weight();
        inner.items.push_back(item);
        drop(inner);
        self.ready.notify_one();
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Nothing more is put in; what is there is still taken. The first end
    /// counts.
    pub(crate) fn end(&self, end: impl Into<Error>) {
        self.lock().end.get_or_insert_with(|| end.into());
        self.closed.cancel();
        self.ready.notify_one();
        self.room.notify_one();
    }

    /// Nobody takes anything any more.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        inner.end.get_or_insert(End::Gone.into());
        inner.items = VecDeque::new();
        inner.bytes = 0;
        drop(inner);
        self.closed.cancel();
        self.room.notify_one();
    }

    /// Whether it has been ended or abandoned.
    pub(crate) fn is_over(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Until the outbox has been ended or abandoned.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Waits until there is something, then moves what is there to `batch`, at
    /// most `max_items` and not much over `max_bytes`; or says that it is over.
    /// For one taker.
    pub(crate) async fn take(&self, batch: &mut Vec<T>, max_items: usize, max_bytes: usize) -> Option<Error> {
        loop {
            if let Some(taken) = self.try_take(batch, max_items, max_bytes) {
                return taken;
            }
            self.ready.notified().await;
        }
    }

    /// [`Outbox::take`] without waiting; `None` if there is nothing yet.
    fn try_take(&self, batch: &mut Vec<T>, max_items: usize, max_bytes: usize) -> Option<Option<Error>> {
        let mut inner = self.lock();
        let mut bytes = 0;
        batch.reserve(inner.items.len().min(max_items));
        while batch.len() < max_items && bytes < max_bytes {
            let Some(item) = inner.items.pop_front() else { break };
            bytes += item.weight();
            batch.push(item);
        }
        inner.bytes = inner.bytes.saturating_sub(bytes);
        match (batch.is_empty(), &inner.end) {
            (false, _) => {
                drop(inner);
                self.room.notify_one();
                Some(None)
            }
            (true, Some(end)) => Some(Some(end.clone())),
            (true, None) => None,
        }
    }

    /// Until fewer than `max` things wait, or it is over. For one waiter.
    pub(crate) async fn room(&self, max: usize) {
        loop {
            if self.has_room(max) {
                return;
            }
            self.room.notified().await;
        }
    }

    fn has_room(&self, max: usize) -> bool {
        let inner = self.lock();
        inner.items.len() < max || inner.end.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing panics while the lock is held, so the contents are sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    fn take(outbox: &Outbox<usize>, items: usize, bytes: usize) -> Option<Result<Vec<usize>, Error>> {
        let mut batch = Vec::new();
        let end = outbox.take(&mut batch, items, bytes).now_or_never()?;
        Some(end.map_or(Ok(batch), Err))
    }

    #[test]
    fn all_that_is_ready_goes_together_within_the_bounds() {
        let outbox = Outbox::new();
        assert_eq!(take(&outbox, 9, 99), None);
        (1..=5).for_each(|n| outbox.push(n));
        assert_eq!(outbox.bytes(), 15);
        assert_eq!(take(&outbox, 2, 99), Some(Ok(vec![1, 2])));
        assert_eq!(take(&outbox, 9, 5), Some(Ok(vec![3, 4])));
        assert_eq!(take(&outbox, 9, 99), Some(Ok(vec![5])));
        assert_eq!((outbox.bytes(), take(&outbox, 9, 99)), (0, None));
    }

    #[test]
    fn what_was_put_in_before_the_end_still_goes_out() {
        let outbox = Outbox::new();
        outbox.push(1);
        outbox.end(End::LeaseOver);
        outbox.end(End::ShuttingDown);
        outbox.push(2);
        assert_eq!(take(&outbox, 9, 99), Some(Ok(vec![1])));
        assert_eq!(take(&outbox, 9, 99), Some(Err(End::LeaseOver.into())));
        assert!(outbox.closed().now_or_never().is_some());
    }

    #[test]
    fn an_abandoned_outbox_keeps_nothing() {
        let outbox = Outbox::new();
        outbox.push(7);
        outbox.abandon();
        outbox.push(8);
        assert_eq!((outbox.bytes(), take(&outbox, 9, 99)), (0, Some(Err(End::Gone.into()))));
    }

    #[tokio::test]
    async fn a_taker_and_a_feeder_wake_each_other() {
        let outbox = std::sync::Arc::new(Outbox::new());
        let feeder = {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                for n in 1..=1000 {
                    outbox.room(3).await;
                    assert!(outbox.lock().items.len() < 3);
                    outbox.push(n);
                }
                outbox.end(End::Done);
            })
        };
        let mut all = Vec::new();
        loop {
            let mut batch = Vec::new();
            if let Some(end) = outbox.take(&mut batch, 2, usize::MAX).await {
                assert_eq!(end, End::Done.into());
                break;
            }
            all.append(&mut batch);
            tokio::task::yield_now().await;
        }
        feeder.await.unwrap();
        assert_eq!(all, (1..=1000).collect::<Vec<_>>());
    }
}
