//! Iterates: a task that yields items, and the stream of them.

mod batch;
mod items;
mod pump;
mod window;

use std::{future::IntoFuture, sync::Arc, time::Duration};

use asynq_proto::{reasons::INVALID_FIELD, v1};

pub use self::items::Items;
use self::{
    items::Opened,
    pump::{Limits, Pump},
    window::Window,
};
use crate::{
    BoxFuture, Error, Refusal,
    call::Decode,
    limits::MAX_WINDOW,
    session::{ConsumerId, Session},
    spec::{Spec, task_id, task_options},
};

/// A task to be run and its items to be read. Made by [`crate::Client::iterate`].
///
/// Nothing happens before it is awaited. It resolves once the task is durable,
/// before there is an item. Dropping the awaited future stops the task.
#[derive(Debug)]
#[must_use = "an iterate does nothing unless it is awaited"]
pub struct Iterate<T> {
    session: Session,
    spec: Spec,
    window: Option<u32>,
    decode: Decode<T>,
}

impl<T: Send + 'static> Iterate<T> {
    pub(crate) const fn new(session: Session, spec: Spec, decode: Decode<T>) -> Self {
        Self {
            session,
            spec,
            window: None,
            decode,
        }
    }

    task_options!();
    task_id!();

    /// How many items the worker may run ahead of the reader: 1 to 65,536.
    /// Default: 256, and more, up to 4,096, for a reader who is that fast.
    /// Apart from that, unread items are held to 8 MiB.
    pub fn window(mut self, items: u32) -> Self {
        self.window = Some(items);
        self
    }

    /// Waits no longer than this for the broker to take the task. An error after
    /// that is [indefinite](Error::is_indefinite), but without its reader the
    /// task will not go on.
    pub fn wait_at_most(mut self, patience: Duration) -> Self {
        self.spec.patience = Some(patience);
        self
    }

    async fn open(self) -> Result<Items<T>, Error> {
        let Self {
            session,
            spec,
            window,
            decode,
        } = self;
        let window = match window {
            None => Window::auto(),
            Some(items) => Window::fixed(items).ok_or_else(|| bad_window(items))?,
        };
        let (id, patience, consumer) = (spec.id, spec.patience, ConsumerId::random());
        let request = v1::IterateRequest {
            task: Some(spec.into_request(session.broker_now(), false)?),
            consumer_id: consumer.to_wire(),
            credit: Some(window.credit()),
            auto_ack: false,
        };
        let opening = session.data().iterate(id, request);
        let (enqueued, frames) = session.within(id, patience, opening).await?;
        let limits = Arc::new(Limits::new(window.credit()));
        let (pump, arrivals) = Pump::new(id, session.broker().to_owned(), frames, Arc::clone(&limits));
        let opened = Opened {
            id,
            consumer,
            worker_known: enqueued.worker_known,
            arrivals,
            pump: tokio::spawn(pump.run()).abort_handle(),
            limits,
            window,
            session,
        };
        Ok(Items::new(opened, decode))
    }
}

impl<T: Send + 'static> IntoFuture for Iterate<T> {
    type Output = Result<Items<T>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

fn bad_window(items: u32) -> Error {
    Error::Refused {
        kind: Refusal::InvalidArgument,
        reason: INVALID_FIELD.to_owned(),
        message: format!("a window of {items} items; it must have 1 to {MAX_WINDOW}"),
        retry_after: None,
    }
}
