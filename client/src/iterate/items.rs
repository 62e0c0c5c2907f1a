//! What an iterator task yields, as the caller reads it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::Stream;

use super::{
    batch::Batch,
    pump::{Arrival, Limits},
    window::Window,
};
use crate::{
    CancelOutcome, Cancellation, Error, State, TaskId,
    call::Decode,
    session::{ConsumerId, Session},
};

/// The items of a running task, in order, as a [`Stream`] or by [`Items::try_next`].
///
/// The worker runs ahead of the reader by no more than the window: a reader who
/// stops asking stops the generator, and holds up nothing else of this client.
/// Asking for an item tells that the one before it is done with.
///
/// A task that fails after some items gives those items first, then its error,
/// which is the last. So is [`Error::StreamBroken`], after which nothing is
/// known of the rest. Without an error the items are all there are.
///
/// Dropping it before its end stops the task; [`Items::stop`] waits for that, too.
#[must_use = "a stream that is dropped stops its task"]
pub struct Items<T> {
    session: Session,
    id: TaskId,
    consumer: ConsumerId,
    worker_known: bool,
    decode: Decode<T>,
    arrivals: mpsc::Receiver<Arrival>,
    pump: AbortHandle,
    limits: Arc<Limits>,
    window: Window,
    batch: Batch,
    taken: u64,
    /// The size of the item the caller has and may not be done with.
    in_hand: Option<usize>,
    /// How the task has ended, once the caller has seen that.
    ended: Option<State>,
}

/// What an open stream consists of.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) id: TaskId,
    pub(super) consumer: ConsumerId,
    pub(super) worker_known: bool,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) pump: AbortHandle,
    pub(super) limits: Arc<Limits>,
    pub(super) window: Window,
}

impl<T> Items<T> {
    pub(super) fn new(opened: Opened, decode: Decode<T>) -> Self {
        let Opened {
            session,
            id,
            consumer,
            worker_known,
            arrivals,
            pump,
            limits,
            window,
        } = opened;
        Self {
            session,
            id,
            consumer,
            worker_known,
            decode,
            arrivals,
            pump,
            limits,
            window,
            batch: Batch::default(),
            taken: 0,
            in_hand: None,
            ended: None,
        }
    }

    /// The task's id.
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// Whether some connected worker had registered the task's name when it was enqueued.
    pub const fn worker_known(&self) -> bool {
        self.worker_known
    }

    /// How many items have been taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// The next item; `None` when there are no more. May be dropped and asked
    /// again without losing one.
    pub async fn try_next(&mut self) -> Result<Option<T>, Error> {
        poll_fn(|cx| self.poll_item(cx)).await.transpose()
    }

    /// Ends the task early and waits until it has ended. What it had yielded
    /// and nobody has read is dropped. A task that had ended before stays as it is.
    pub async fn stop(mut self) -> Result<Cancellation, Error> {
        let cancellation = |outcome, state| Cancellation {
            id: self.id,
            outcome,
            state,
        };
        if let Some(state) = self.ended {
            return Ok(cancellation(CancelOutcome::Finished, state));
        }
        let outcome = self.session.stop(self.id, self.consumer).await?.outcome;
        let end = loop {
            match self.arrivals.recv().await {
                Some(Arrival::Items(_)) => {}
                Some(Arrival::End(end)) => break end,
                None => break Err(Error::closed()),
            }
        };
        let end = match end {
            // The stream cannot tell any more; the broker can.
            Err(Error::StreamBroken { .. }) => self.session.wait(self.id, None).await.map(drop),
            end => end,
        };
        Ok(cancellation(
            outcome,
            state_of(&end).ok_or_else(|| end.err().unwrap_or_else(Error::closed))?,
        ))
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        if let Some(bytes) = self.in_hand.take()
            && let Some(credit) = self.window.take(bytes)
        {
            self.give(credit);
        }
        loop {
            if let Some(item) = self.batch.next() {
                self.in_hand = Some(item.len());
                self.taken += 1;
                return Poll::Ready(Some((self.decode)(&item)));
            }
            if self.ended.is_some() {
                return Poll::Ready(None);
            }
            match self.arrivals.poll_recv(cx) {
                Poll::Ready(Some(Arrival::Items(batch))) => self.batch = batch,
                Poll::Ready(Some(Arrival::End(end))) => {
                    self.ended = Some(state_of(&end).unwrap_or(State::Unknown));
                    return Poll::Ready(end.err().map(Err));
                }
                Poll::Ready(None) => {
                    self.ended = Some(State::Unknown);
                    return Poll::Ready(Some(Err(Error::closed())));
                }
                Poll::Pending => {
                    if let Some(credit) = self.window.starve() {
                        self.give(credit);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn give(&self, credit: asynq_proto::v1::Credit) {
        self.limits.raise(credit);
        self.session.flow(self.id, self.consumer, credit);
    }
}

/// The final state that the end of a stream tells of, if it tells of one.
fn state_of(end: &Result<(), Error>) -> Option<State> {
    match end {
        Ok(()) => Some(State::Succeeded),
        Err(Error::Dead { .. }) => Some(State::Dead),
        Err(Error::Cancelled { .. }) => Some(State::Cancelled),
        Err(Error::Expired { .. }) => Some(State::Expired),
        Err(_) => None,
    }
}

impl<T> Stream for Items<T> {
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl<T> Drop for Items<T> {
    fn drop(&mut self) {
        self.pump.abort();
        self.session.no_more_flow(self.consumer);
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("id", &self.id)
            .field("taken", &self.taken)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
