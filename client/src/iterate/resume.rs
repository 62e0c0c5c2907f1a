//! Going on with a stream that is there, in the same program or another.

use std::{future::IntoFuture, time::Duration};

use asynq_proto::v1;

use super::{
    Begin, Items, open,
    options::{Options, reading_options},
};
use crate::{BoxFuture, Error, TaskId, call::Decode, session::Session};

/// A task that runs already, or has ended, and whose items are to be read. Made by
/// [`crate::Client::resume`].
///
/// Nothing happens before it is awaited.
#[derive(Debug)]
#[must_use = "a resume does nothing unless it is awaited"]
pub struct Resume<T> {
    session: Session,
    id: TaskId,
    from: u64,
    take_over: bool,
    options: Options,
    patience: Option<Duration>,
    decode: Decode<T>,
}

impl<T: Send + 'static> Resume<T> {
    pub(crate) fn new(session: Session, id: TaskId, decode: Decode<T>) -> Self {
        Self {
            session,
            id,
            from: 0,
            take_over: false,
            options: Options::default(),
            patience: None,
            decode,
        }
    }

    /// The first item wanted; all before it are taken, and dropped for good. Default:
    /// 0, the first there is. Whoever read the stream before knows it by
    /// [`Items::position`], or has counted.
    pub const fn from_index(mut self, index: u64) -> Self {
        self.from = index;
        self
    }

    /// Reads the stream even if another reader does; that one ends in an error with
    /// the reason `STALE_READER`. Without it, this is refused with `BEING_READ` while
    /// there is another reader.
    pub const fn take_over(mut self) -> Self {
        self.take_over = true;
        self
    }

    reading_options!();

    /// Waits no longer than this for the broker to open the stream.
    pub const fn wait_at_most(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }
}

impl<T: Send + 'static> IntoFuture for Resume<T> {
    type Output = Result<Items<T>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let begin = Begin {
                id: self.id,
                task: v1::EnqueueRequest {
                    id: self.id.to_wire(),
                    ..v1::EnqueueRequest::default()
                },
                attach: true,
                take_over: self.take_over,
                from: self.from,
            };
            open(self.session, begin, self.options, self.patience, self.decode).await
        })
    }
}
