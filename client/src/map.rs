//! Maps: one task for each of many inputs, a bounded number of them at a time.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use asynq_proto::Payload;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio_stream::Stream;

use crate::{
    BoxFuture, Error, Refusal, TaskId,
    call::Decode,
    limits::{LOOK_AHEAD, MAX_LOOK_AHEAD},
    session::Session,
    spec::{Spec, task_options},
};

type Inputs = Pin<Box<dyn Stream<Item = Result<Payload, Error>> + Send>>;

/// The results of one task for each of many inputs, as a [`Stream`] or by
/// [`Map::try_next`]. Made by [`crate::Client::map`].
///
/// The results come in the order of the inputs, an error in the place of the
/// result it stands for; the others go on. Inputs are pulled only while fewer
/// tasks than [`Map::look_ahead`] are under way or done and not read, so there
/// may be any number of them.
///
/// Nothing happens before it is read. Dropping it withdraws the waits; the tasks
/// that are under way go on. [`Map::cancel`] ends them.
#[must_use = "a map does nothing unless it is read"]
pub struct Map<R> {
    session: Session,
    /// What all tasks have in common.
    spec: Spec,
    decode: Decode<R>,
    /// `None` once there are no more.
    inputs: Option<Inputs>,
    look_ahead: usize,
    ordered: bool,
    /// How many inputs have been pulled, and how many results given out.
    pulled: u64,
    given: u64,
    running: FuturesUnordered<BoxFuture<(u64, Result<R, Error>)>>,
    ids: BTreeMap<u64, TaskId>,
    /// What has ended before its turn.
    done: BTreeMap<u64, Result<R, Error>>,
}

impl<R: Send + 'static> Map<R> {
    pub(crate) fn new(session: Session, spec: Spec, decode: Decode<R>, inputs: Inputs) -> Self {
        Self {
            session,
            spec,
            decode,
            inputs: Some(inputs),
            look_ahead: LOOK_AHEAD,
            ordered: true,
            pulled: 0,
            given: 0,
            running: FuturesUnordered::new(),
            ids: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    task_options!();

    /// How many tasks may be under way, or done and not read: at least 1, at
    /// most 65,536. Default: 256.
    pub fn look_ahead(mut self, tasks: usize) -> Self {
        self.look_ahead = tasks.clamp(1, MAX_LOOK_AHEAD);
        self
    }

    /// Gives out results as they come, not in the order of the inputs.
    pub fn unordered(mut self) -> Self {
        self.ordered = false;
        self
    }

    /// Waits no longer than this for each single task; see [`crate::Call::wait_at_most`].
    pub fn wait_at_most(mut self, patience: Duration) -> Self {
        self.spec.patience = Some(patience);
        self
    }

    /// The next result; `None` when there are no more. May be dropped and asked
    /// again without losing one.
    pub async fn try_next(&mut self) -> Result<Option<R>, Error> {
        poll_fn(|cx| self.poll_result(cx)).await.transpose()
    }

    /// The tasks that are under way, in the order of the inputs.
    pub fn running(&self) -> impl Iterator<Item = TaskId> {
        self.ids.values().copied()
    }

    /// Cancels the tasks that are under way, and tells how many that were.
    pub async fn cancel(self) -> Result<usize, Error> {
        let Self {
            session, running, ids, ..
        } = self;
        drop(running);
        let cancels: FuturesUnordered<_> = ids.values().map(|id| session.cancel(*id)).collect();
        let cancelled: Vec<_> = cancels.collect().await;
        let mut count = 0;
        for cancelled in cancelled {
            match cancelled {
                Ok(_) => count += 1,
                // It had not been sent.
                Err(Error::Refused {
                    kind: Refusal::NotFound,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<R, Error>>> {
        self.start(cx);
        // All of them, although one would do: only who is polled is sent.
        while let Poll::Ready(Some((number, result))) = self.running.poll_next_unpin(cx) {
            self.ids.remove(&number);
            self.done.insert(number, result);
        }
        let next = match self.ordered {
            true => self.done.remove(&self.given),
            false => self.done.pop_first().map(|(_, result)| result),
        };
        if let Some(result) = next {
            self.given += 1;
            return Poll::Ready(Some(result));
        }
        match self.running.is_empty() && self.inputs.is_none() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }

    /// Pulls as many inputs as there is room for.
    fn start(&mut self, cx: &mut Context<'_>) {
        while self.running.len() + self.done.len() < self.look_ahead {
            let Some(inputs) = &mut self.inputs else { return };
            match inputs.as_mut().poll_next(cx) {
                Poll::Ready(Some(payload)) => self.run(payload),
                Poll::Ready(None) => self.inputs = None,
                Poll::Pending => return,
            }
        }
    }

    fn run(&mut self, payload: Result<Payload, Error>) {
        let spec = Spec {
            id: self.session.new_id(),
            payload,
            ..self.spec.clone()
        };
        let (number, session, decode) = (self.pulled, self.session.clone(), self.decode);
        self.pulled += 1;
        self.ids.insert(number, spec.id);
        self.running.push(Box::pin(
            session
                .call(spec)
                .map(move |outcome| (number, outcome.and_then(|outcome| decode(&outcome.result)))),
        ));
    }
}

impl<R: Send + 'static> Stream for Map<R> {
    type Item = Result<R, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_result(cx)
    }
}

impl<R> Unpin for Map<R> {}

impl<R> fmt::Debug for Map<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("name", &self.spec.name)
            .field("pulled", &self.pulled)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}
