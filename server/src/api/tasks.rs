//! `asynq.v1.Tasks`: what callers use. The unary calls are sessions of one
//! operation.

use asynq_core::TaskId;
use asynq_proto::v1;
use asynq_proto::v1::tasks_server::Tasks;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::error;

use super::{Replies, convert, deadline, render, session};
use crate::broker::{Answer, Broker, End, Error, Op};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct TasksApi {
    broker: Broker,
}

impl TasksApi {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker }
    }

    async fn call(&self, metadata: &MetadataMap, op: Op) -> Result<Answer, Error> {
        deadline::within(metadata, self.broker.call(op)).await
    }

    async fn on_task(&self, metadata: &MetadataMap, id: &[u8], op: fn(TaskId) -> Op) -> Result<Answer, Error> {
        self.call(metadata, op(convert::task_id("id", id)?)).await
    }
}

/// An answer to another question than the one asked: a bug of the broker.
fn mismatch(answer: &Answer) -> Status {
    error!(?answer, "the broker answered another question");
    End::StoreFailed.into()
}

#[tonic::async_trait]
impl Tasks for TasksApi {
    type SessionStream = Replies<v1::SessionReply>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(Box::pin(session::open(
            &self.broker,
            request.into_inner(),
        ))))
    }

    async fn enqueue(&self, request: Request<v1::EnqueueRequest>) -> Result<Response<v1::Enqueued>, Status> {
        let (metadata, _, request) = request.into_parts();
        let mut enqueue = convert::enqueue(request, self.broker.clock().now())?;
        // It has one answer: the acceptance.
        enqueue.wait = false;
        match self.call(&metadata, Op::Enqueue(enqueue)).await? {
            Answer::Enqueued {
                task,
                existed,
                worker_known,
            } => Ok(Response::new(render::enqueued(task, existed, worker_known))),
            other => Err(mismatch(&other)),
        }
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Result<Response<v1::Finished>, Status> {
        match self
            .on_task(request.metadata(), &request.get_ref().id, Op::Wait)
            .await?
        {
            Answer::Finished { end, deferred } => Ok(Response::new(render::finished(&end, deferred))),
            other => Err(mismatch(&other)),
        }
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::Cancelled>, Status> {
        match self
            .on_task(request.metadata(), &request.get_ref().id, Op::Cancel)
            .await?
        {
            Answer::Cancelled { task, outcome, state } => Ok(Response::new(render::cancelled(task, outcome, state))),
            other => Err(mismatch(&other)),
        }
    }

    async fn show(&self, request: Request<v1::ShowRequest>) -> Result<Response<v1::TaskInfo>, Status> {
        match self
            .on_task(request.metadata(), &request.get_ref().id, Op::Show)
            .await?
        {
            Answer::Shown(view) => Ok(Response::new(render::task_info(*view))),
            other => Err(mismatch(&other)),
        }
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::Explanation>, Status> {
        match self
            .on_task(request.metadata(), &request.get_ref().id, Op::Explain)
            .await?
        {
            Answer::Explained(why) => Ok(Response::new(render::explanation(*why))),
            other => Err(mismatch(&other)),
        }
    }
}
