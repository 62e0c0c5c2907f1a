//! The client: where everything starts.

use asynq_proto::{Connector, Payload, Task};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Call, Cancellation, Enqueue, Error, Explanation, Handle, QueueInfo, TaskId, TaskInfo, WorkerInfo, session::Session,
    spec::Spec,
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
        Self::with_connector(Connector::tcp(url.parse()?)).await
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

    /// Everything about a task but its values.
    pub async fn show(&self, id: TaskId) -> Result<TaskInfo, Error> {
        self.session.show(id).await
    }

    /// Why a task is where it is.
    pub async fn explain(&self, id: TaskId) -> Result<Explanation, Error> {
        self.session.explain(id).await
    }

    /// All queues that hold a task.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.session.data().queues().await
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

#[expect(clippy::unnecessary_wraps, reason = "has the shape of a decoder")]
fn keep(payload: &Payload) -> Result<Payload, Error> {
    Ok(payload.clone())
}
