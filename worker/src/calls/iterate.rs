//! Runs that read the items of a task they have called, as they come.

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::task::{self, Poll};

use asynq_client::{Client, Error, Items, Resume, TaskId};
use asynq_proto::{Connector, Iter, OnLoss, Payload, v1};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, oneshot};
use tracing::debug;
use uuid::Uuid;

use super::{Answered, CallError, Withdrawal, call_options, runtime_for};
use crate::context::{Context, StopCause};
use crate::data::Line;

/// How all runs of a worker read items: as a caller does, over connections of their own,
/// which are opened when the first one reads.
pub(crate) struct Reading {
    connector: Connector,
    line: Line,
    client: OnceCell<Client>,
}

impl Reading {
    pub(crate) fn new(connector: Connector, line: Line) -> Self {
        Self {
            connector,
            line,
            client: OnceCell::new(),
        }
    }

    /// Connects if need be, for as long as that takes: the worker's session is without
    /// a broker then, too, and ends its runs if there is none for the length of a lease.
    async fn client(&self) -> Result<&Client, NoClient> {
        loop {
            let connected = async {
                let connecting = self.line.spawn(Client::with_connector(self.connector.clone()));
                let connected = connecting.await.map_err(|_| NoClient::Ended)?;
                connected.map_err(NoClient::Refused)
            };
            match self.client.get_or_try_init(|| connected).await {
                Err(NoClient::Refused(Error::NoBroker { message, .. })) => {
                    debug!(message, "no broker to read items from yet");
                }
                connected => return connected,
            }
        }
    }
}

enum NoClient {
    Refused(Error),
    /// The worker has ended.
    Ended,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Another task that a handler has run, and whose items it reads as they come. Made by
/// [`Context::iterate`]. Nothing happens before it is awaited.
#[must_use = "nothing is iterated before it is awaited"]
pub struct Iterate<T> {
    context: Context,
    name: String,
    payload: Result<Payload, CallError>,
    options: v1::TaskOptions,
    window: Option<u32>,
    read: fn(&Client, TaskId) -> Resume<T>,
}

impl Context {
    /// Has another task run and reads what it yields, item by item. To be awaited; in a
    /// blocking handler, use [`Iterate::wait`].
    ///
    /// The task is this attempt's, as with [`Context::call`]: it is cancelled when the
    /// attempt ends, and as soon as the items are dropped. From the first moment until
    /// that task ends this run lends its slot to others, so a task may iterate itself on a worker
    /// with one slot; while it works on an item, more runs go on than there are slots.
    ///
    /// The called task runs ahead of this one by no more than a window. It outlives lost
    /// connections, the broker's restart and, as its
    /// [`OnLoss`] has it, its own worker. Where the broker wants
    /// tokens, the worker's must have the role `caller`, too.
    ///
    /// ```
    /// use asynq_worker::{Context, Iter, OnLoss, Task, TaskError};
    ///
    /// const PRIMES: Iter<u64, u64> = Iter::new("primes", OnLoss::Replay);
    ///
    /// async fn sum_of_primes(context: Context, below: u64) -> Result<u64, TaskError> {
    ///     let mut primes = context.iterate(PRIMES, &below).await?;
    ///     let mut sum = 0;
    ///     while let Some(prime) = primes.try_next().await? {
    ///         sum += prime;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    pub fn iterate<A, T>(&self, task: Iter<A, T>, args: &A) -> Iterate<T>
    where
        A: Serialize,
        T: DeserializeOwned + Send + 'static,
    {
        let payload = Payload::json(args).map_err(CallError::arguments);
        self.iterating(task.name(), payload, |client, id| {
            // The task is there: what it is called does not count.
            client.resume(Iter::<(), T>::new("called", OnLoss::Replay), id)
        })
    }

    /// [`Context::iterate`] for a name and a payload that are known at run time only.
    pub fn iterate_raw(&self, name: &str, payload: Payload) -> Iterate<Payload> {
        let payload = payload.checked().map_err(CallError::arguments);
        self.iterating(name, payload, Client::resume_raw)
    }

    fn iterating<T>(
        &self,
        name: &str,
        payload: Result<Payload, CallError>,
        read: fn(&Client, TaskId) -> Resume<T>,
    ) -> Iterate<T> {
        Iterate {
            context: self.clone(),
            name: name.to_owned(),
            payload,
            options: v1::TaskOptions::default(),
            window: None,
            read,
        }
    }
}

impl<T: Send + 'static> Iterate<T> {
    call_options!();

    /// How many items the called task may run ahead: 1 to 65,536. Default: 256, and
    /// more, up to 4,096, for a reader who is that fast. Apart from that, unread items
    /// are held to 8 MiB.
    pub const fn window(mut self, items: u32) -> Self {
        self.window = Some(items);
        self
    }

    /// Waits on this thread, then and for each item. For blocking handlers; an async one
    /// that does so would block its runtime, and panics instead.
    ///
    /// # Errors
    /// As awaiting it.
    ///
    /// # Panics
    /// In an async handler.
    pub fn wait(self) -> Result<CalledIter<T>, CallError> {
        let runtime = runtime_for(&self.name)?;
        let items = runtime.block_on(self.run())?;
        Ok(CalledIter { items, runtime })
    }

    async fn run(self) -> Result<CalledItems<T>, CallError> {
        let context = self.context.clone();
        tokio::select! {
            biased;
            cause = context.stopped() => Err(CallError::Stopped(cause)),
            items = self.open() => items,
        }
    }

    async fn open(self) -> Result<CalledItems<T>, CallError> {
        let Self {
            context,
            name,
            payload,
            options,
            window,
            read,
        } = self;
        let lost = || CallError::Stopped(context.stop_cause().unwrap_or(StopCause::LeaseLost));
        let shared = context.calls().shared.clone().ok_or_else(lost)?;
        let request = v1::RunCall {
            stream: true,
            ..context.makes(name.clone(), payload?, options)
        };
        let (mut asked, withdrawal, mut answer) = shared.ask(&context, request);
        let (enqueued, there) = oneshot::channel();
        asked.enqueued = Some(enqueued);
        shared.calls.send(asked).await.map_err(|_| lost())?;
        let task = tokio::select! {
            biased;
            Ok(task) = there => task,
            // Before it is there, this is a refusal.
            refused = &mut answer => return Err(refused.map_err(|_| lost())?.err().unwrap_or_else(lost)),
        };
        let failed = |error| CallError::reading(&name, task, error);
        let client = shared.reading.client().await.map_err(|none| match none {
            NoClient::Refused(error) => failed(error),
            NoClient::Ended => lost(),
        })?;
        let resume = read(client, task.into());
        let resume = match window {
            Some(items) => resume.window(items),
            None => resume,
        };
        let items = resume.await.map_err(failed)?;
        let stopped = context.clone();
        Ok(CalledItems {
            items,
            name,
            context,
            stopped: async move { stopped.stopped().await }.boxed(),
            over: false,
            _answer: answer,
            _withdrawal: withdrawal,
        })
    }
}

impl<T: Send + 'static> IntoFuture for Iterate<T> {
    type Output = Result<CalledItems<T>, CallError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// The items of a called task, in order, as a [`Stream`] or by
/// [`try_next`](CalledItems::try_next). Asking for one tells that the one before it is
/// done with. An error is the last of them; without one they are all there are. Dropping
/// it cancels the task.
#[must_use = "a task whose items are dropped is cancelled"]
pub struct CalledItems<T> {
    items: Items<T>,
    name: String,
    context: Context,
    stopped: BoxFuture<'static, StopCause>,
    /// Its last word is said.
    over: bool,
    /// Dropped before the withdrawal, for the same reason as in [`Shared::ask`].
    _answer: oneshot::Receiver<Answered>,
    _withdrawal: Withdrawal,
}

impl<T> CalledItems<T> {
    /// The called task's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.items.id().into()
    }

    /// The next item; `None` when there are no more. May be dropped and asked again
    /// without losing one.
    ///
    /// # Errors
    /// How the task ended, if not well, or that this run is to stop.
    pub async fn try_next(&mut self) -> Result<Option<T>, CallError> {
        poll_fn(|cx| self.poll_item(cx)).await.transpose()
    }

    fn poll_item(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let item = self.poll_more(cx);
        self.over = matches!(item, Poll::Ready(None | Some(Err(_))));
        item
    }

    fn poll_more(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        if let Some(cause) = self.context.stop_cause() {
            return Poll::Ready(Some(Err(CallError::Stopped(cause))));
        }
        match Pin::new(&mut self.items).poll_next(cx) {
            Poll::Ready(item) => {
                Poll::Ready(item.map(|item| item.map_err(|error| CallError::reading(&self.name, self.id(), error))))
            }
            Poll::Pending => self
                .stopped
                .poll_unpin(cx)
                .map(|cause| Some(Err(CallError::Stopped(cause)))),
        }
    }
}

impl<T> Stream for CalledItems<T> {
    type Item = Result<T, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl<T> fmt::Debug for CalledItems<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CalledItems")
            .field("name", &self.name)
            .field("items", &self.items)
            .finish_non_exhaustive()
    }
}

/// [`CalledItems`] for blocking handlers: an iterator that waits on its thread.
#[derive(Debug)]
#[must_use = "a task whose items are dropped is cancelled"]
pub struct CalledIter<T> {
    items: CalledItems<T>,
    runtime: Runtime,
}

impl<T> CalledIter<T> {
    /// The called task's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.items.id()
    }
}

impl<T> Iterator for CalledIter<T> {
    type Item = Result<T, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.items.try_next()).transpose()
    }
}
