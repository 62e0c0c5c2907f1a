//! Enqueues: a task whose result is awaited later, elsewhere, or never.

use std::{future::IntoFuture, time::Duration};

use crate::{
    BoxFuture, Cancellation, Error, TaskId,
    call::Decode,
    session::Session,
    spec::{Spec, task_id, task_key, task_options},
};

/// A task to be put in its queue. Made by [`crate::Client::enqueue`].
///
/// Nothing happens before it is awaited. It resolves once the task is durable.
#[derive(Debug)]
#[must_use = "an enqueue does nothing unless it is awaited"]
pub struct Enqueue<R> {
    session: Session,
    spec: Spec,
    decode: Decode<R>,
}

impl<R: Send + 'static> Enqueue<R> {
    pub(crate) const fn new(session: Session, spec: Spec, decode: Decode<R>) -> Self {
        Self { session, spec, decode }
    }

    task_options!();
    task_id!();
    task_key!();

    /// Waits no longer than this for the broker's word. An error after that is
    /// [indefinite](Error::is_indefinite).
    pub fn wait_at_most(mut self, patience: Duration) -> Self {
        self.spec.patience = Some(patience);
        self
    }
}

impl<R: Send + 'static> IntoFuture for Enqueue<R> {
    type Output = Result<Handle<R>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { session, spec, decode } = self;
            let ack = session.enqueue(spec).await?;
            // With a key it may be another than was sent.
            let id = TaskId::from_wire(&ack.id)?;
            Ok(Handle {
                worker_known: ack.worker_known,
                existed: ack.existed,
                ..Handle::new(session, id, decode)
            })
        })
    }
}

/// A task the broker has, or may have. Cheap to clone; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Handle<R> {
    session: Session,
    id: TaskId,
    worker_known: bool,
    existed: bool,
    decode: Decode<R>,
}

impl<R> Handle<R> {
    pub(crate) const fn new(session: Session, id: TaskId, decode: Decode<R>) -> Self {
        Self {
            session,
            id,
            worker_known: true,
            existed: true,
            decode,
        }
    }

    /// The task's id.
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// Whether the broker knew the task before: its id was sent again, or another
    /// enqueue had brought its key.
    pub const fn existed(&self) -> bool {
        self.existed
    }

    /// Whether some connected worker had registered the task's name when it was enqueued.
    pub const fn worker_known(&self) -> bool {
        self.worker_known
    }

    /// Waits until the task has ended. May be called any number of times, by
    /// anybody, for as long as the broker keeps the result.
    pub async fn result(&self) -> Result<R, Error> {
        (self.decode)(&self.session.wait(self.id, None).await?.result)
    }

    /// The same, but no longer than `patience`: then [`Error::Timeout`], and the task goes on.
    pub async fn result_within(&self, patience: Duration) -> Result<R, Error> {
        (self.decode)(&self.session.wait(self.id, Some(patience)).await?.result)
    }

    /// Cancels the task and says what came of it.
    pub async fn cancel(&self) -> Result<Cancellation, Error> {
        self.session.cancel(self.id).await
    }
}
