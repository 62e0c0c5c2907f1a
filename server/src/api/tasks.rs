//! `asynq.v1.Tasks`: what callers use. The unary calls are sessions of one
//! operation.

use asynq_core::TaskId;
use asynq_proto::v1;
use asynq_proto::v1::tasks_server::Tasks;
use tonic::{Request, Response, Status, Streaming};
use tracing::error;

use super::{Replies, convert, items, iterate, render, session};
use crate::broker::{Answer, Broker, Command, End, Error, Op};
use crate::line::Line;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct TasksApi {
    broker: Broker,
}

impl TasksApi {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker }
    }

    async fn on_task(&self, id: &[u8], op: fn(TaskId) -> Op) -> Result<Answer, Error> {
        self.broker.call(op(convert::task_id("id", id)?)).await
    }
}

/// An answer to another question than the one asked: a bug of the broker.
pub(super) fn mismatch(answer: &Answer) -> Status {
    error!(?answer, "the broker answered another question");
    End::StoreFailed.into()
}

#[tonic::async_trait]
impl Tasks for TasksApi {
    type SessionStream = Replies<v1::SessionReply>;
    type IterateStream = Replies<v1::StreamFrame>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let calls = request.extensions().get().cloned().unwrap_or_default();
        let replies = session::open(&self.broker, calls, request.into_inner());
        Ok(Response::new(Box::pin(replies)))
    }

    async fn enqueue(&self, request: Request<v1::EnqueueRequest>) -> Result<Response<v1::Enqueued>, Status> {
        let mut enqueue = convert::enqueue(request.into_inner(), self.broker.clock().now())?;
        // It has one answer: the acceptance.
        enqueue.wait = false;
        match self.broker.call(Op::Enqueue(enqueue)).await? {
            Answer::Enqueued {
                task,
                existed,
                worker_known,
            } => Ok(Response::new(render::enqueued(task, existed, worker_known))),
            other => Err(mismatch(&other)),
        }
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Result<Response<v1::Finished>, Status> {
        match self.on_task(&request.get_ref().id, Op::Wait).await? {
            Answer::Finished { end, deferred } => Ok(Response::new(render::finished(&end, deferred))),
            other => Err(mismatch(&other)),
        }
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::Cancelled>, Status> {
        match self.on_task(&request.get_ref().id, Op::Cancel).await? {
            Answer::Cancelled { task, outcome, state } => Ok(Response::new(render::cancelled(task, outcome, state))),
            other => Err(mismatch(&other)),
        }
    }

    async fn iterate(&self, request: Request<v1::IterateRequest>) -> Result<Response<Self::IterateStream>, Status> {
        let line = request.extensions().get::<Line>().cloned();
        let iterate = items::iterate(request.into_inner(), self.broker.clock().now())?;
        match self.broker.iterate(iterate, line).await? {
            (
                Answer::Attached {
                    task,
                    existed,
                    worker_known,
                    at,
                },
                guard,
            ) => {
                let opened = items::render_opened(render::enqueued(task, existed, worker_known), at);
                Ok(Response::new(Box::pin(iterate::frames(guard, opened))))
            }
            (other, _) => Err(mismatch(&other)),
        }
    }

    async fn flow(&self, request: Request<v1::FlowRequest>) -> Result<Response<v1::FlowReply>, Status> {
        let (task, consumer, open_seq, credit) = items::flow(request.into_inner())?;
        let flow = Command::Flow {
            task,
            consumer,
            open_seq,
            credit,
        };
        let told = self.broker.send(flow).await;
        told.map_err(Status::from)?;
        Ok(Response::new(v1::FlowReply {}))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::Cancelled>, Status> {
        let (task, consumer) = items::stop(request.get_ref())?;
        match self.broker.call(Op::Stop(task, consumer)).await? {
            Answer::Cancelled { task, outcome, state } => Ok(Response::new(render::cancelled(task, outcome, state))),
            other => Err(mismatch(&other)),
        }
    }

    async fn show(&self, request: Request<v1::ShowRequest>) -> Result<Response<v1::TaskInfo>, Status> {
        match self.on_task(&request.get_ref().id, Op::Show).await? {
            Answer::Shown(view) => Ok(Response::new(render::task_info(*view))),
            other => Err(mismatch(&other)),
        }
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::Explanation>, Status> {
        match self.on_task(&request.get_ref().id, Op::Explain).await? {
            Answer::Explained(why) => Ok(Response::new(render::explanation(*why))),
            other => Err(mismatch(&other)),
        }
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Result<Response<v1::HistoryReply>, Status> {
        match self.on_task(&request.get_ref().id, Op::History).await? {
            Answer::History(task, steps) => Ok(Response::new(render::history(task, steps))),
            other => Err(mismatch(&other)),
        }
    }
}
