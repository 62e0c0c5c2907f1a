//! Calls: a task and the wait for its result in one.

use std::{future::IntoFuture, pin::Pin, time::Duration};

use asynq_proto::Payload;
use futures_util::FutureExt;

use crate::{
    CallStats, Error,
    session::Session,
    spec::{Spec, task_id, task_key, task_options},
};

pub(crate) type Decode<R> = fn(&Payload) -> Result<R, Error>;

/// A future that can be spawned.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A task to be run and its result to be awaited. Made by [`crate::Client::call`].
///
/// Nothing happens before it is awaited. Its arguments are encoded when it is
/// made, and it owns all it needs, so it can be spawned.
///
/// Dropping the awaited future withdraws the wait, **not the task**: it goes
/// on, if the broker has it already. Keep [`Call::id`] and use
/// [`crate::Client::cancel`] to end it.
#[derive(Debug)]
#[must_use = "a call does nothing unless it is awaited"]
pub struct Call<R> {
    session: Session,
    spec: Spec,
    decode: Decode<R>,
}

impl<R: Send + 'static> Call<R> {
    pub(crate) const fn new(session: Session, spec: Spec, decode: Decode<R>) -> Self {
        Self { session, spec, decode }
    }

    task_options!();
    task_id!();
    task_key!();

    /// Waits no longer than this, and ends in [`Error::Timeout`]; the task goes
    /// on. If there is no broker by then, it ends in [`Error::NoBroker`].
    pub fn wait_at_most(mut self, patience: Duration) -> Self {
        self.spec.patience = Some(patience);
        self
    }

    /// Awaits the result together with where the time went.
    pub fn with_stats(self) -> BoxFuture<Result<(R, CallStats), Error>> {
        let Self { session, spec, decode } = self;
        Box::pin(session.call(spec).map(move |outcome| {
            let outcome = outcome?;
            Ok((decode(&outcome.result)?, outcome.stats))
        }))
    }
}

impl<R: Send + 'static> IntoFuture for Call<R> {
    type Output = Result<R, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { session, spec, decode } = self;
        Box::pin(session.call(spec).map(move |outcome| decode(&outcome?.result)))
    }
}
