//! The data connection: values too large for the session, and what is asked too seldom to ride on it.

use std::error::Error as _;

use asynq_proto::{
    Backoff, Wire,
    limits::MAX_MESSAGE_BYTES,
    v1::{self, admin_client::AdminClient, stream_frame::Frame, tasks_client::TasksClient},
};
use bytes::Bytes;
use tokio::time::Instant;
use tonic::{Code, Response, Status, Streaming};
use tonic_types::StatusExt;

use crate::{Error, PATIENCE, QueueInfo, TaskId, WorkerInfo};

/// A stream that the broker has opened.
#[derive(Debug)]
pub(crate) struct OpenStream {
    pub(crate) enqueued: v1::Enqueued,
    /// Where its items begin.
    pub(crate) at: Option<v1::StreamPosition>,
    pub(crate) frames: Streaming<v1::StreamFrame>,
}

/// Unary calls, each tried again while there is no broker.
#[derive(Debug)]
pub(crate) struct Data {
    channel: Wire,
    broker: String,
}

impl Data {
    pub(crate) const fn new(channel: Wire, broker: String) -> Self {
        Self { channel, broker }
    }

    /// Puts a task with large arguments in its queue.
    pub(crate) async fn enqueue(&self, id: TaskId, mut request: v1::EnqueueRequest) -> Result<v1::Enqueued, Error> {
        let unsure = |message| Error::NoBroker {
            message,
            id: Some(id),
            indefinite: true,
        };
        self.persist(unsure, || {
            let (mut tasks, now) = (self.caller(), request.clone());
            request.first_send = false;
            async move { tasks.enqueue(now).await }
        })
        .await
    }

    /// Asks for a stream until it is open, for [`PATIENCE`] at most. `request` makes
    /// each request anew, because a broker takes no opening twice.
    pub(crate) async fn open(
        &self,
        id: TaskId,
        mut request: impl FnMut() -> v1::IterateRequest,
    ) -> Result<OpenStream, Error> {
        let unsure = |message| Error::NoBroker {
            message,
            id: Some(id),
            indefinite: true,
        };
        self.persist(unsure, || {
            let request = request();
            async move { self.try_open(request).await.map(Response::new) }
        })
        .await
    }

    /// Asks for a stream, once.
    pub(crate) async fn try_open(&self, request: v1::IterateRequest) -> Result<OpenStream, Status> {
        let mut frames = self.caller().iterate(request).await?.into_inner();
        match frames.message().await? {
            Some(v1::StreamFrame {
                frame: Some(Frame::Opened(enqueued)),
                at,
            }) => Ok(OpenStream { enqueued, at, frames }),
            Some(_) => Err(Status::internal(
                "the broker sent items of a stream before it was opened",
            )),
            None => Err(Status::unavailable("the broker hung up")),
        }
    }

    /// Fetches how a task has ended, whatever the size of its result.
    pub(crate) async fn finished(&self, id: TaskId) -> Result<v1::Finished, Error> {
        let nothing = |message| Error::NoBroker {
            message,
            id: Some(id),
            indefinite: false,
        };
        self.persist(nothing, || {
            let mut tasks = self.caller();
            async move { tasks.wait(v1::WaitRequest { id: id.to_wire() }).await }
        })
        .await
    }

    /// All queues, or the one of that name.
    pub(crate) async fn queues(&self, name: &str) -> Result<Vec<QueueInfo>, Error> {
        let request = v1::ListQueuesRequest { name: name.to_owned() };
        let reply = self.persist(unreached, || {
            let (mut admin, request) = (self.admin(), request.clone());
            async move { admin.list_queues(request).await }
        });
        Ok(reply.await?.queues.into_iter().map(QueueInfo::from).collect())
    }

    pub(crate) async fn set_queue(&self, request: v1::SetQueueRequest) -> Result<QueueInfo, Error> {
        let reply = self.persist(unsure, || {
            let (mut admin, request) = (self.admin(), request.clone());
            async move { admin.set_queue(request).await }
        });
        let queue = reply.await?.queue;
        queue.map(QueueInfo::from).ok_or_else(|| Error::unexpected("no queue"))
    }

    pub(crate) async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        let reply = self.persist(unreached, || {
            let mut admin = self.admin();
            async move { admin.list_workers(v1::ListWorkersRequest {}).await }
        });
        Ok(reply.await?.workers.into_iter().map(WorkerInfo::from).collect())
    }

    /// A part of a listing.
    pub(crate) async fn tasks(&self, request: v1::ListTasksRequest) -> Result<v1::ListTasksReply, Error> {
        self.persist(unreached, || {
            let (mut admin, request) = (self.admin(), request.clone());
            async move { admin.list_tasks(request).await }
        })
        .await
    }

    /// Has dead tasks run again: an outcome for each, in their order, and whether they
    /// were asked for before, to no answer.
    pub(crate) async fn retry(&self, ids: &[TaskId]) -> Result<(Vec<v1::Retried>, bool), Error> {
        let request = v1::RetryTasksRequest { ids: to_wire(ids) };
        let mut attempts = 0;
        let reply = self.persist(unsure, || {
            attempts += 1;
            let (mut admin, request) = (self.admin(), request.clone());
            async move { admin.retry_tasks(request).await }
        });
        let tasks = reply.await?.tasks;
        Ok((tasks, attempts > 1))
    }

    /// Has tasks forgotten that are in one of the states: as [`Data::retry`].
    pub(crate) async fn purge(&self, ids: &[TaskId], states: &[i32]) -> Result<(Vec<v1::Purged>, bool), Error> {
        let request = v1::PurgeTasksRequest {
            ids: to_wire(ids),
            states: states.to_vec(),
        };
        let mut attempts = 0;
        let reply = self.persist(unsure, || {
            attempts += 1;
            let (mut admin, request) = (self.admin(), request.clone());
            async move { admin.purge_tasks(request).await }
        });
        let tasks = reply.await?.tasks;
        Ok((tasks, attempts > 1))
    }

    fn caller(&self) -> TasksClient<Wire> {
        TasksClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn admin(&self) -> AdminClient<Wire> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Asks until there is an answer, for [`PATIENCE`] at most.
    async fn persist<T, F>(&self, give_up: impl Fn(String) -> Error, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (begun, mut backoff) = (Instant::now(), Backoff::reconnect());
        loop {
            let status = match attempt().await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if !is_transient(&status) => return Err(status.into()),
                Err(status) if begun.elapsed() >= PATIENCE => {
                    return Err(give_up(no_broker(&self.broker, status.message())));
                }
                Err(status) => status,
            };
            tracing::debug!(%status, "no answer; asking again");
            let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
            // Not all callers at the same moment.
            let pause = told.unwrap_or_default().min(PATIENCE) + backoff.pause();
            tokio::time::sleep(pause).await;
        }
    }
}

fn to_wire(ids: &[TaskId]) -> Vec<Bytes> {
    ids.iter().map(|id| id.to_wire()).collect()
}

/// It may have been done.
fn unsure(message: String) -> Error {
    Error::NoBroker {
        message,
        id: None,
        indefinite: true,
    }
}

fn unreached(message: String) -> Error {
    Error::NoBroker {
        message,
        id: None,
        indefinite: false,
    }
}

/// What a caller reads who has waited for a broker in vain.
pub(crate) fn no_broker(broker: &str, cause: &str) -> String {
    format!("no broker at {broker} for {} s: {cause}", PATIENCE.as_secs())
}

/// The broker asks to come again, or it was not the broker who said this but
/// the connection: only then a status has a source.
pub(crate) fn is_transient(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}
