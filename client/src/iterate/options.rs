//! How a stream is to be read: what those have in common who begin one and who go
//! on with one.

use std::time::Duration;

use asynq_proto::{reasons::INVALID_FIELD, v1, v1::Credit};

use super::window::Window;
use crate::{
    Error, Refusal,
    limits::{MAX_DETACH_GRACE, MAX_WINDOW},
    session::ConsumerId,
    spec::ms,
};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) window: Option<u32>,
    pub(crate) grace: Option<Duration>,
    pub(crate) detach_on_drop: bool,
    pub(crate) manual_ack: bool,
}

impl Options {
    /// The room there is to begin with, from an item on.
    pub(super) fn window(&self, from: u64) -> Result<Window, Error> {
        match self.window {
            None => Ok(Window::auto(from)),
            Some(items) => Window::fixed(items, from)
                .ok_or_else(|| invalid(format!("a window of {items} items; it must have 1 to {MAX_WINDOW}"))),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match self.grace {
            Some(grace) if grace > MAX_DETACH_GRACE => Err(invalid(format!(
                "a detach_grace of {} s; it must be 24 h (86400 s) at most",
                grace.as_secs()
            ))),
            _ => Ok(()),
        }
    }

    /// Asks for the stream of a task, from its beginning.
    pub(super) fn request(
        &self,
        task: v1::EnqueueRequest,
        consumer: ConsumerId,
        open_seq: u64,
        credit: Credit,
    ) -> v1::IterateRequest {
        v1::IterateRequest {
            task: Some(task),
            consumer_id: consumer.to_wire(),
            credit: Some(credit),
            open_seq,
            detach_grace_ms: self.grace.map(ms),
            detach_on_reset: self.detach_on_drop,
            ..v1::IterateRequest::default()
        }
    }
}

fn invalid(message: String) -> Error {
    Error::Refused {
        kind: Refusal::InvalidArgument,
        reason: INVALID_FIELD.to_owned(),
        message,
        retry_after: None,
    }
}

/// The builder methods of those who read a stream.
macro_rules! reading_options {
    () => {
        /// How many items the worker may run ahead of the reader: 1 to 65,536.
        /// Default: 256, and more, up to 4,096, for a reader who is that fast.
        /// Apart from that, unread items are held to 8 MiB.
        pub const fn window(mut self, items: u32) -> Self {
            self.options.window = Some(items);
            self
        }

        /// How long the task lives on without a reader, once the connection is lost:
        /// up to 24 h. Meanwhile it is paused where its window ends, and this program
        /// or [another](crate::Client::resume) can go on with it; then it is
        /// cancelled. Default: 30 s. Zero cancels it at once.
        pub const fn detach_grace(mut self, grace: std::time::Duration) -> Self {
            self.options.grace = Some(grace);
            self
        }

        /// Dropping the stream does not stop the task, but leaves it as a lost
        /// connection does: for another reader, within
        /// [`detach_grace`](Self::detach_grace). [`Items::stop`](crate::Items::stop)
        /// still stops it.
        pub const fn detach_on_drop(mut self) -> Self {
            self.options.detach_on_drop = true;
            self
        }

        /// Items are done with when [`Items::ack`](crate::Items::ack) says so, not when
        /// the next one is asked for: for a reader who writes them somewhere first.
        /// No more than a window comes that is not acknowledged.
        pub const fn manual_ack(mut self) -> Self {
            self.options.manual_ack = true;
            self
        }
    };
}
pub(super) use reading_options;
