//! What an iterator task yields, as the caller reads it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use asynq_proto::Place;
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::Stream;

use super::{batch::Batch, pump::Arrival, reader::Reader, window::Window};
use crate::{CancelOutcome, Cancellation, Error, State, TaskId, call::Decode};

/// The items of a running task, in order, as a [`Stream`] or by [`Items::try_next`].
///
/// The worker runs ahead of the reader by no more than the window: a reader who
/// stops asking stops the generator, and holds up nothing else of this client.
/// Asking for an item tells that the one before it is done with, unless
/// [`manual_ack`](crate::Iterate::manual_ack) was asked for.
///
/// It outlives its connection, and the broker: where either is lost, the stream is
/// opened again and goes on with the very next item, for up to
/// [60 s](crate::PATIENCE) without a broker. The task meanwhile waits for its reader
/// for its [`detach_grace`](crate::Iterate::detach_grace).
///
/// A task that fails after some items gives those items first, then its error,
/// which is the last. So is [`Error::StreamBroken`], which names the item from which
/// [`crate::Client::resume`] can go on. Without an error the items are all there are.
///
/// Dropping it before its end stops the task, unless
/// [`detach_on_drop`](crate::Iterate::detach_on_drop) was asked for; without a
/// connection at that moment the task ends with its grace. [`Items::stop`] waits for
/// the end, too.
#[must_use = "a stream that is dropped stops its task"]
pub struct Items<T> {
    reader: Arc<Reader>,
    worker_known: bool,
    decode: Decode<T>,
    arrivals: mpsc::Receiver<Arrival>,
    pump: AbortHandle,
    window: Window,
    batch: Batch,
    /// The first item asked for.
    from: u64,
    /// Behind the last item the caller has been given.
    place: Place,
    /// Behind the last item the caller is done with.
    done: Place,
    manual_ack: bool,
    /// How the task has ended, once the caller has seen that.
    ended: Option<State>,
}

/// What an open stream consists of.
pub(super) struct Opened {
    pub(super) reader: Arc<Reader>,
    pub(super) worker_known: bool,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) pump: AbortHandle,
    pub(super) window: Window,
    /// Where it begins.
    pub(super) at: Place,
    pub(super) manual_ack: bool,
}

impl<T> Items<T> {
    pub(super) fn new(opened: Opened, decode: Decode<T>) -> Self {
        let Opened {
            reader,
            worker_known,
            arrivals,
            pump,
            window,
            at,
            manual_ack,
        } = opened;
        Self {
            reader,
            worker_known,
            decode,
            arrivals,
            pump,
            window,
            batch: Batch::none(at),
            from: at.index,
            place: at,
            done: at,
            manual_ack,
            ended: None,
        }
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.reader.id
    }

    /// Whether some connected worker had registered the task's name when it was enqueued.
    pub const fn worker_known(&self) -> bool {
        self.worker_known
    }

    /// How many items have been taken from this stream.
    pub const fn taken(&self) -> u64 {
        self.place.index - self.from
    }

    /// The index of the next item, counted from the task's first one, which is 0:
    /// from there [`crate::Client::resume`] goes on, once all items taken are
    /// dealt with.
    pub const fn position(&self) -> u64 {
        self.place.index
    }

    /// The next item; `None` when there are no more. May be dropped and asked
    /// again without losing one.
    pub async fn try_next(&mut self) -> Result<Option<T>, Error> {
        poll_fn(|cx| self.poll_item(cx)).await.transpose()
    }

    /// Says that all items taken so far are done with: the broker need not keep
    /// them, and more may come. What is not acknowledged can be read again with
    /// [`crate::Client::resume`]. Needed with
    /// [`manual_ack`](crate::Iterate::manual_ack), at least once for each window of
    /// items, and allowed without. The broker hears of it once that is worth a word.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// # use asynq_client::{Iter, OnLoss};
    /// # use std::io::Write;
    /// const ROWS: Iter<String, String> = Iter::new("rows", OnLoss::Replay);
    ///
    /// let mut file = std::fs::File::create("rows.txt")?;
    /// let mut rows = client.iterate(ROWS, &"orders".to_owned()).manual_ack().await?;
    /// while let Some(row) = rows.try_next().await? {
    ///     writeln!(file, "{row}")?;
    ///     if rows.position() % 100 == 0 {
    ///         file.sync_data()?;
    ///         rows.ack();
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn ack(&mut self) {
        let (items, bytes) = (self.place.index - self.done.index, self.place.byte - self.done.byte);
        self.done = self.place;
        if items > 0
            && let Some(credit) = self.window.take(items, bytes)
        {
            self.reader.tell(credit, self.done);
        }
    }

    /// Ends the task early and waits until it has ended. What it had yielded
    /// and nobody has read is dropped. A task that had ended before stays as it is.
    pub async fn stop(mut self) -> Result<Cancellation, Error> {
        let (reader, id) = (Arc::clone(&self.reader), self.id());
        let cancellation = |outcome, state| Cancellation { id, outcome, state };
        if let Some(state) = self.ended {
            return Ok(cancellation(CancelOutcome::Finished, state));
        }
        let outcome = reader.session.stop(id, reader.consumer()).await?.outcome;
        let end = loop {
            match self.arrivals.recv().await {
                Some(Arrival::Items(_)) => {}
                Some(Arrival::End(end)) => break end,
                None => break Err(Error::closed()),
            }
        };
        let end = match end {
            // The stream cannot tell any more; the broker can.
            Err(Error::StreamBroken { .. } | Error::Refused { .. }) => reader.session.wait(id, None).await.map(drop),
            end => end,
        };
        Ok(cancellation(
            outcome,
            state_of(&end).ok_or_else(|| end.err().unwrap_or_else(Error::closed))?,
        ))
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        if !self.manual_ack {
            self.ack();
        }
        loop {
            if let Some(item) = self.batch.next() {
                self.place = self.batch.place();
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
                        self.reader.tell(credit, self.done);
                    }
                    return Poll::Pending;
                }
            }
        }
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
        self.reader.close();
        self.pump.abort();
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("id", &self.id())
            .field("position", &self.position())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
