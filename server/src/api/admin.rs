//! `asynq.v1.Admin`: what operators look at, and what they do to tasks that have
//! ended.

use asynq_proto::v1;
use asynq_proto::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::{listing, operators, render};
use crate::broker::{Answer, Broker, End, Error, Op};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct AdminApi {
    broker: Broker,
}

impl AdminApi {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker }
    }
}

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn list_queues(
        &self,
        request: Request<v1::ListQueuesRequest>,
    ) -> Result<Response<v1::ListQueuesReply>, Status> {
        let wanted = request.into_inner().name;
        let queues = self.broker.queues().await?;
        let durability = self.broker.durability();
        let queues = queues
            .into_iter()
            .filter(|queue| wanted.is_empty() || queue.name.as_str() == wanted)
            .map(|queue| render::queue(queue, durability))
            .collect();
        Ok(Response::new(v1::ListQueuesReply { queues }))
    }

    async fn set_queue(&self, request: Request<v1::SetQueueRequest>) -> Result<Response<v1::SetQueueReply>, Status> {
        let (queue, update) = operators::queue_update(request.into_inner())?;
        let Answer::QueueSet(queue) = self.broker.call(Op::SetQueue(queue, update)).await? else {
            return Err(Error::Ended(End::StoreFailed).into());
        };
        let queue = render::queue(*queue, self.broker.durability());
        Ok(Response::new(v1::SetQueueReply { queue: Some(queue) }))
    }

    async fn list_workers(&self, _: Request<v1::ListWorkersRequest>) -> Result<Response<v1::ListWorkersReply>, Status> {
        let workers = self.broker.workers().await?;
        Ok(Response::new(v1::ListWorkersReply {
            workers: workers.into_iter().map(render::worker).collect(),
        }))
    }

    async fn list_tasks(&self, request: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksReply>, Status> {
        let asked = listing::asked(request.into_inner())?;
        let page = self.broker.tasks(asked).await?;
        Ok(Response::new(listing::reply(page)))
    }

    async fn retry_tasks(
        &self,
        request: Request<v1::RetryTasksRequest>,
    ) -> Result<Response<v1::RetryTasksReply>, Status> {
        let asked = operators::retries(request.get_ref())?;
        let answers = self.broker.call_all(operators::each(&asked, Op::Retry)).await?;
        let tasks = asked.into_iter().zip(answers);
        let tasks: Option<Vec<_>> = tasks.map(|(task, answer)| operators::retried(task, answer)).collect();
        let tasks = tasks.ok_or(Error::Ended(End::StoreFailed))?;
        Ok(Response::new(v1::RetryTasksReply { tasks }))
    }

    async fn purge_tasks(
        &self,
        request: Request<v1::PurgeTasksRequest>,
    ) -> Result<Response<v1::PurgeTasksReply>, Status> {
        let (asked, states) = operators::purges(request.get_ref())?;
        let ops = operators::each(&asked, |task| Op::Purge(task, states));
        let answers = self.broker.call_all(ops).await?;
        let tasks = asked.into_iter().zip(answers);
        let tasks: Option<Vec<_>> = tasks.map(|(task, answer)| operators::purged(task, answer)).collect();
        let tasks = tasks.ok_or(Error::Ended(End::StoreFailed))?;
        Ok(Response::new(v1::PurgeTasksReply { tasks }))
    }
}
