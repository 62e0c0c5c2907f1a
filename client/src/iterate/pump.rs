//! One background task per stream: reads it as fast as it comes, so that what a
//! caller leaves unread never fills the connection that others use too.
//!
//! What it holds is bounded by the credit the caller has given, and it holds the
//! broker to that.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use asynq_proto::v1::{self, Credit, stream_frame::Frame};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::batch::Batch;
use crate::{Error, TaskId, data::is_transient, limits::MAX_WINDOW, session::Outcome};

/// What a reader finds, in this order: batches, then one end.
pub(super) enum Arrival {
    Items(Batch),
    End(Result<(), Error>),
}

/// How far the caller lets a stream go. The caller raises it before it tells the broker.
#[derive(Debug)]
pub(super) struct Limits {
    items: AtomicU64,
    bytes: AtomicU64,
}

impl Limits {
    pub(super) fn new(credit: Credit) -> Self {
        Self {
            items: credit.limit_index.into(),
            bytes: credit.limit_bytes.into(),
        }
    }

    pub(super) fn raise(&self, credit: Credit) {
        self.items.store(credit.limit_index, Ordering::Release);
        self.bytes.store(credit.limit_bytes, Ordering::Release);
    }

    fn allow(&self, items: u64, bytes: u64) -> bool {
        items <= self.items.load(Ordering::Acquire) && bytes <= self.bytes.load(Ordering::Acquire)
    }
}

pub(super) struct Pump {
    id: TaskId,
    broker: String,
    frames: Streaming<v1::StreamFrame>,
    limits: Arc<Limits>,
    arrivals: mpsc::Sender<Arrival>,
    head: u64,
    head_bytes: u64,
}

impl Pump {
    /// What it reads comes out of the receiver.
    pub(super) fn new(
        id: TaskId,
        broker: String,
        frames: Streaming<v1::StreamFrame>,
        limits: Arc<Limits>,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        // Each batch has an item, and there is credit for no more of them; one is the end.
        let (arrivals, receiver) = mpsc::channel(MAX_WINDOW as usize + 1);
        let pump = Self {
            id,
            broker,
            frames,
            limits,
            arrivals,
            head: 0,
            head_bytes: 0,
        };
        (pump, receiver)
    }

    /// Reads to the end of the stream. Dropping the future stops the task.
    pub(super) async fn run(mut self) {
        let end = self.read().await;
        // The reader may have gone this moment.
        let _gone = self.arrivals.try_send(Arrival::End(end));
    }

    async fn read(&mut self) -> Result<(), Error> {
        loop {
            let frame = match self.frames.message().await {
                Ok(Some(frame)) => frame.frame,
                Ok(None) => return Err(self.broken("it ended before it was whole")),
                Err(status) if is_transient(&status) => return Err(self.broken(status.message())),
                Err(status) => return Err(status.into()),
            };
            match frame {
                Some(Frame::Items(items)) => {
                    let batch = Arrival::Items(self.take(items)?);
                    // There is room, so it is the reader who has gone.
                    self.arrivals.try_send(batch).map_err(|_| Error::closed())?;
                }
                Some(Frame::End(end)) => return self.end(end),
                Some(Frame::Opened(_)) | None => return Err(Error::unexpected("an unknown frame in a stream")),
            }
        }
    }

    fn take(&mut self, items: v1::ItemBatch) -> Result<Batch, Error> {
        if (items.first_index, items.first_byte) != (self.head, self.head_bytes) {
            return Err(Error::unexpected("items of a stream that do not follow on"));
        }
        let batch = Batch::new(items)?;
        self.head += batch.items();
        self.head_bytes += batch.bytes();
        match self.limits.allow(self.head, self.head_bytes) {
            true => Ok(batch),
            false => Err(Error::unexpected("more items of a stream than there was room for")),
        }
    }

    fn end(&self, end: v1::StreamEnd) -> Result<(), Error> {
        let finished = end
            .finished
            .ok_or_else(|| Error::unexpected("the end of a stream without its outcome"))?;
        Outcome::of(finished)?;
        match end.count == self.head {
            true => Ok(()),
            false => Err(Error::unexpected("the end of a stream before all its items")),
        }
    }

    fn broken(&self, cause: &str) -> Error {
        Error::StreamBroken {
            id: self.id,
            taken: self.head,
            message: format!("the stream from the broker at {} broke: {cause}", self.broker),
        }
    }
}
