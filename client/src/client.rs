//! The client: where everything starts.

use std::time::{SystemTime, UNIX_EPOCH};

use asynq_proto::{Connector, Iter, Payload, Task};
use serde::{Serialize, de::DeserializeOwned};
use tokio_stream::{Stream, StreamExt};

use crate::{
    Call, Cancellation, ClientBuilder, Enqueue, Error, Explanation, Handle, Iterate, ListTasks, Map, QueueInfo,
    QueueUpdate, Resume, Retry, Tally, TaskId, TaskInfo, Transition, WorkerInfo, many, session::Session, spec::Spec,
};

/// A connection to a broker that is kept up. Cheap to clone; clones share it.
///
/// What is asked while the broker is away waits up to [60 s](crate::PATIENCE)
/// for its return and is sent again, under the same id if it is a task.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    /// Connects to the broker at `url`, such as `http://127.0.0.1:7740`.
    ///
    /// Tries for [5 s](crate::FIRST_CONNECT), then fails with [`Error::NoBroker`].
    /// An `https://` address is checked against the CAs this system trusts; see
    /// [`Client::builder`] for your own, and for tokens.
    /// Must be called within a tokio runtime, which the client lives in.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), asynq_client::Error> {
    /// use asynq_client::{Client, Task};
    ///
    /// const DOUBLE: Task<u32, u64> = Task::new("double");
    ///
    /// let client = Client::connect("http://127.0.0.1:7740").await?;
    /// let doubled = client.call(DOUBLE, &21).await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder(url).connect().await
    }

    /// Begins to connect to a broker that wants certificates or a token.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), asynq_client::Error> {
    /// use asynq_client::Client;
    ///
    /// let client = Client::builder("https://broker:7740")
    ///     .ca("/etc/asynq/ca.pem")
    ///     .token("@/etc/asynq/token")
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    /// Connects over a transport of the caller's.
    pub async fn with_connector(connector: Connector) -> Result<Self, Error> {
        Ok(Self {
            session: Session::open(connector).await?,
        })
    }

    /// Runs a task and waits for its result.
    pub fn call<A, R>(&self, task: Task<A, R>, args: &A) -> Call<R>
    where
        A: Serialize,
        R: DeserializeOwned + Send + 'static,
    {
        Call::new(
            self.session.clone(),
            Spec::new(&self.session, task.name(), encode(args)),
            decode,
        )
    }

    /// Puts a task in its queue; resolves to a [`Handle`] once it is durable.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), asynq_client::Error> {
    /// # use asynq_client::Task;
    /// # use std::time::Duration;
    /// const RESIZE: Task<String, String> = Task::new("resize");
    ///
    /// let handle = client
    ///     .enqueue(RESIZE, &"cat.png".to_owned())
    ///     .series("photos")
    ///     .retries(3)
    ///     .delay(Duration::from_secs(60))
    ///     .await?;
    /// println!("{} will be at {}", handle.id(), handle.result().await?);
    /// # Ok(()) }
    /// ```
    pub fn enqueue<A, R>(&self, task: Task<A, R>, args: &A) -> Enqueue<R>
    where
        A: Serialize,
        R: DeserializeOwned + Send + 'static,
    {
        Enqueue::new(
            self.session.clone(),
            Spec::new(&self.session, task.name(), encode(args)),
            decode,
        )
    }

    /// Runs a task that yields items; resolves to the stream of them.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), asynq_client::Error> {
    /// # use asynq_client::{Iter, OnLoss};
    /// const PRIMES: Iter<u64, u64> = Iter::new("primes", OnLoss::Replay);
    ///
    /// let mut primes = client.iterate(PRIMES, &1_000_000).await?;
    /// while let Some(prime) = primes.try_next().await? {
    ///     if prime > 100 {
    ///         primes.stop().await?; // as dropping it does, but waits
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn iterate<A, T>(&self, task: Iter<A, T>, args: &A) -> Iterate<T>
    where
        A: Serialize,
        T: DeserializeOwned + Send + 'static,
    {
        Iterate::new(
            self.session.clone(),
            Spec::new(&self.session, task.name(), encode(args)),
            decode_item,
        )
    }

    /// Goes on with a stream that is there: one that another program has begun, or
    /// this one before it was started again. Only one reader reads a stream; see
    /// [`Resume::take_over`].
    ///
    /// Fails with [`Error::Refused`]: the reason is `BEING_READ` if another reads it,
    /// `BELOW_FLOOR` if items are asked for that were taken before, `NOT_A_STREAM` if
    /// the task yields none, and `TASK_NOT_FOUND`.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// # use asynq_client::{Iter, OnLoss};
    /// const ROWS: Iter<String, String> = Iter::new("rows", OnLoss::Replay);
    ///
    /// // What the program before this one has left behind.
    /// let id = std::fs::read_to_string("task.id")?.trim().parse()?;
    /// let lines = std::fs::read_to_string("rows.txt")?.lines().count();
    /// let mut rows = client.resume(ROWS, id).from_index(lines as u64).take_over().await?;
    /// while let Some(row) = rows.try_next().await? {
    ///     println!("{}: {row}", rows.position());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn resume<A, T>(&self, _task: Iter<A, T>, id: TaskId) -> Resume<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        Resume::new(self.session.clone(), id, decode_item)
    }

    /// [`Client::resume`] that gives the items as they are.
    pub fn resume_raw(&self, id: TaskId) -> Resume<Payload> {
        Resume::new(self.session.clone(), id, keep)
    }

    /// [`Client::call`] for a name and a payload that are known at run time only.
    pub fn call_raw(&self, name: &str, payload: Payload) -> Call<Payload> {
        Call::new(
            self.session.clone(),
            Spec::new(&self.session, name, checked(payload)),
            keep,
        )
    }

    /// [`Client::enqueue`] for a name and a payload that are known at run time only.
    pub fn enqueue_raw(&self, name: &str, payload: Payload) -> Enqueue<Payload> {
        Enqueue::new(
            self.session.clone(),
            Spec::new(&self.session, name, checked(payload)),
            keep,
        )
    }

    /// [`Client::iterate`] for a name and a payload that are known at run time only.
    pub fn iterate_raw(&self, name: &str, payload: Payload) -> Iterate<Payload> {
        Iterate::new(
            self.session.clone(),
            Spec::new(&self.session, name, checked(payload)),
            keep,
        )
    }

    /// Runs a task for each of many inputs, which are pulled as they are needed,
    /// and gives the results in their order.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), asynq_client::Error> {
    /// # use asynq_client::Task;
    /// const DOUBLE: Task<u32, u64> = Task::new("double");
    ///
    /// let mut doubled = client.map(DOUBLE, 0..1_000_000).look_ahead(64);
    /// while let Some(double) = doubled.try_next().await? {
    ///     println!("{double}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn map<A, R, I>(&self, task: Task<A, R>, inputs: I) -> Map<R>
    where
        A: Serialize + 'static,
        R: DeserializeOwned + Send + 'static,
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
    {
        let inputs = tokio_stream::iter(inputs.into_iter().map(|args| encode(&args)));
        let common = Spec::new(&self.session, task.name(), Ok(Payload::null()));
        Map::new(self.session.clone(), common, decode, Box::pin(inputs))
    }

    /// [`Client::map`] for a name and payloads that are known at run time only,
    /// and perhaps not yet.
    pub fn map_raw(&self, name: &str, inputs: impl Stream<Item = Payload> + Send + 'static) -> Map<Payload> {
        let common = Spec::new(&self.session, name, Ok(Payload::null()));
        Map::new(self.session.clone(), common, keep, Box::pin(inputs.map(checked)))
    }

    /// A handle on a task that was enqueued before, perhaps by somebody else.
    pub fn handle<R: DeserializeOwned>(&self, id: TaskId) -> Handle<R> {
        Handle::new(self.session.clone(), id, decode)
    }

    /// [`Client::handle`] that gives the result as it is.
    pub fn handle_raw(&self, id: TaskId) -> Handle<Payload> {
        Handle::new(self.session.clone(), id, keep)
    }

    /// Cancels a task and says what came of it.
    pub async fn cancel(&self, id: TaskId) -> Result<Cancellation, Error> {
        self.session.cancel(id).await
    }

    /// Cancels all tasks of a listing that have not ended, page by page, newest
    /// first; `told` hears how far it is. Those enqueued after it began are left
    /// alone. If it fails on the way, those told of are cancelled all the same.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), asynq_client::Error> {
    /// let photos = client.tasks().queue("default").series("photos");
    /// let tally = client.cancel_where(photos, |_| ()).await?;
    /// println!("{} cancelled, {} are being stopped", tally.done, tally.stopping);
    /// # Ok(()) }
    /// ```
    pub async fn cancel_where(&self, tasks: ListTasks, told: impl FnMut(&Tally)) -> Result<Tally, Error> {
        many::cancel(&self.session, tasks, told).await
    }

    /// Has a dead task run again: ready, at its place in the order, with all its
    /// counters at zero. Does nothing to a task that has not ended, so it may be
    /// sent twice; one that ended otherwise is refused. Takes the role admin.
    pub async fn retry(&self, id: TaskId) -> Result<Retry, Error> {
        many::retry_one(&self.session, id).await
    }

    /// [`Client::retry`] for all dead tasks of a listing, as
    /// [`Client::cancel_where`] goes through them: one that dies again meanwhile is
    /// not retried twice.
    pub async fn retry_where(&self, tasks: ListTasks, told: impl FnMut(&Tally)) -> Result<Tally, Error> {
        many::retry(&self.session, tasks, told).await
    }

    /// Forgets all tasks of a listing, with their results: they are gone when it
    /// returns. The listing must name states, and only such in which a task has
    /// ended. Goes through them as [`Client::cancel_where`]. Takes the role admin.
    pub async fn purge_where(&self, tasks: ListTasks, told: impl FnMut(&Tally)) -> Result<Tally, Error> {
        many::purge(&self.session, tasks, told).await
    }

    /// Everything about a task but its values.
    pub async fn show(&self, id: TaskId) -> Result<TaskInfo, Error> {
        self.session.show(id).await
    }

    /// Why a task is where it is.
    pub async fn explain(&self, id: TaskId) -> Result<Explanation, Error> {
        self.session.explain(id).await
    }

    /// What a task went through, first to last: each step with its time, its
    /// attempt, its worker and its cause.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client, id: asynq_client::TaskId) -> Result<(), asynq_client::Error> {
    /// for step in client.history(id).await? {
    ///     println!("{}: {} {}", step.to, step.cause, step.message.unwrap_or_default());
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn history(&self, id: TaskId) -> Result<Vec<Transition>, Error> {
        self.session.history(id).await
    }

    /// Lists tasks, newest first.
    ///
    /// ```no_run
    /// # async fn example(client: asynq_client::Client) -> Result<(), asynq_client::Error> {
    /// use asynq_client::State;
    ///
    /// let mut dead = client.tasks().state(State::Dead).queue("photos").limit(1_000);
    /// loop {
    ///     let page = dead.clone().await?;
    ///     for task in page.tasks {
    ///         println!("{} died: {}", task.id, task.error.unwrap_or_default());
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     dead = dead.page(next);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn tasks(&self) -> ListTasks {
        ListTasks::new(self.session.clone())
    }

    /// The broker's clock now, as known since the connection began: exact but for
    /// the time its first answer took, and for drift.
    pub fn broker_clock(&self) -> SystemTime {
        UNIX_EPOCH + self.session.broker_now()
    }

    /// Whether the broker does not believe its own clock: then no task expires and none
    /// is forgotten, until it is started with `--trust-clock` or with its clock set right.
    pub fn broker_doubts_clock(&self) -> bool {
        self.session.clock_doubted()
    }

    /// The broker's version; empty if it is too old to tell.
    pub fn broker_version(&self) -> String {
        self.session.broker_version()
    }

    /// All queues that hold a task, or have settings of their own.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.session.data().queues("").await
    }

    /// One of them; `None` if it is none.
    pub async fn queue(&self, name: &str) -> Result<Option<QueueInfo>, Error> {
        let queues = self.session.data().queues(name).await?;
        Ok(queues.into_iter().find(|queue| queue.name == name))
    }

    /// Has a queue serve otherwise from now on, with no need of a restart; says how it
    /// is then. Takes the role admin.
    ///
    /// ```no_run
    /// # async fn doc(client: asynq_client::Client) -> Result<(), asynq_client::Error> {
    /// use asynq_client::QueueUpdate;
    /// client.set_queue("photos", QueueUpdate::new().fast_requeue(true)).await?;
    /// # Ok(()) }
    /// ```
    pub async fn set_queue(&self, name: &str, update: QueueUpdate) -> Result<QueueInfo, Error> {
        self.session.data().set_queue(update.into_request(name)).await
    }

    /// All workers' sessions.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        self.session.data().workers().await
    }
}

fn encode<A: Serialize>(args: &A) -> Result<Payload, Error> {
    Payload::json(args).map_err(Error::from)
}

fn checked(payload: Payload) -> Result<Payload, Error> {
    payload.checked().map_err(Error::from)
}

fn decode<R: DeserializeOwned>(payload: &Payload) -> Result<R, Error> {
    payload.decode().map_err(Error::from)
}

fn decode_item<T: DeserializeOwned>(item: &Payload) -> Result<T, Error> {
    item.decode().map_err(|error| Error::Codec {
        doing: "read an item",
        cause: error.to_string(),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "has the shape of a decoder")]
fn keep(payload: &Payload) -> Result<Payload, Error> {
    Ok(payload.clone())
}
