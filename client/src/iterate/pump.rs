//! One background task per stream: reads it as fast as it comes, so that what a
//! caller leaves unread never fills the connection that others use too. Where the
//! stream breaks, it opens it again.
//!
//! What it holds is bounded by the credit the caller has given, and it holds the
//! broker to that.

use std::sync::Arc;

use asynq_proto::{
    reasons::READ_OTHER_ITEMS,
    v1::{self, stream_frame::Frame},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::{
    batch::Batch,
    gap::Gap,
    head::Head,
    reader::{Opening, Reader},
};
use crate::{
    Error,
    data::{is_transient, no_broker},
    limits::MAX_WINDOW,
    session::Outcome,
};

/// What a reader finds, in this order: batches, then one end.
pub(super) enum Arrival {
    Items(Batch),
    End(Result<(), Error>),
}

pub(super) struct Pump {
    reader: Arc<Reader>,
    frames: Streaming<v1::StreamFrame>,
    arrivals: mpsc::Sender<Arrival>,
    head: Head,
    gap: Gap,
}

impl Pump {
    /// What it reads comes out of the receiver.
    pub(super) fn new(
        reader: Arc<Reader>,
        head: Head,
        frames: Streaming<v1::StreamFrame>,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        // Each batch has a new item, and there is credit for no more of them; one is the end.
        let (arrivals, receiver) = mpsc::channel(MAX_WINDOW as usize + 1);
        let pump = Self {
            reader,
            frames,
            arrivals,
            head,
            gap: Gap::none(Instant::now()),
        };
        (pump, receiver)
    }

    /// Reads to the end of the stream. Dropping the future ends the call.
    pub(super) async fn run(mut self) {
        let end = self.read().await;
        // The reader may have gone this moment.
        let _gone = self.arrivals.try_send(Arrival::End(end));
    }

    async fn read(&mut self) -> Result<(), Error> {
        loop {
            let cause = match self.frames.message().await {
                Ok(Some(frame)) => match frame.frame {
                    Some(Frame::Items(items)) => {
                        self.take(items)?;
                        continue;
                    }
                    Some(Frame::End(end)) => return self.end(end),
                    Some(Frame::Opened(_)) | None => return Err(Error::unexpected("an unknown frame in a stream")),
                },
                Ok(None) => "it ended before it was whole".to_owned(),
                Err(status) if is_transient(&status) => status.message().to_owned(),
                Err(status) => return Err(status.into()),
            };
            self.reopen(cause).await?;
        }
    }

    fn take(&mut self, items: v1::ItemBatch) -> Result<(), Error> {
        let Some(batch) = self.head.take(items)? else {
            return Ok(());
        };
        if !self.reader.allows(self.head.place()) {
            return Err(Error::unexpected("more items of a stream than there was room for"));
        }
        self.gap.over();
        // There is room, so it is the reader who has gone.
        let taken = self.arrivals.try_send(Arrival::Items(batch));
        taken.map_err(|_| Error::closed())
    }

    fn end(&self, end: v1::StreamEnd) -> Result<(), Error> {
        let finished = end
            .finished
            .ok_or_else(|| Error::unexpected("the end of a stream without its outcome"))?;
        Outcome::of(finished)?;
        self.head.end(end.count)
    }

    /// Opens the stream again, where the caller is done with it.
    async fn reopen(&mut self, mut cause: String) -> Result<(), Error> {
        self.reader.broke();
        self.gap.broke(Instant::now());
        let (id, at) = (self.reader.id, self.head.place().index);
        tracing::info!(task = %id, at, cause, "lost a stream; opening it again");
        loop {
            let pause = self.gap.pause();
            if self.gap.left(Instant::now()) <= pause {
                return Err(self.broken(&cause));
            }
            sleep(pause).await;
            let opening = self.reader.open_again();
            let opened = self.reader.session.data().try_open(opening.request.clone());
            let status = match timeout(self.gap.left(Instant::now()), opened).await {
                Ok(Ok(open)) => {
                    self.frames = open.frames;
                    return self.opened(&opening, open.at);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable("it does not answer"),
            };
            if !is_transient(&status) {
                return Err(self.refused(status, &opening));
            }
            tracing::debug!(task = %id, %status, "the stream is not open yet");
            status.message().clone_into(&mut cause);
            if let Some(told) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
                sleep(told.min(self.gap.left(Instant::now()))).await;
            }
        }
    }

    fn opened(&mut self, opening: &Opening, at: Option<v1::StreamPosition>) -> Result<(), Error> {
        let at = at.ok_or_else(|| Error::unexpected("a stream that does not say where it begins"))?;
        self.head.reopen(opening.from, at.into())?;
        self.reader.opened(opening);
        self.gap.opened(Instant::now());
        Ok(())
    }

    /// A refusal to open it again, which is final.
    fn refused(&self, status: Status, opening: &Opening) -> Error {
        match Error::from(status) {
            Error::Refused { reason, .. } if reason == READ_OTHER_ITEMS => Error::StreamChanged {
                id: self.reader.id,
                index: opening.from.index,
            },
            error => error,
        }
    }

    fn broken(&self, cause: &str) -> Error {
        Error::StreamBroken {
            id: self.reader.id,
            taken: self.head.place().index,
            message: no_broker(self.reader.session.broker(), cause),
        }
    }
}
