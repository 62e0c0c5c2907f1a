//! `asynq.v1.Admin`: what operators look at.

use asynq_proto::v1;
use asynq_proto::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::{listing, render};
use crate::broker::Broker;

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
    async fn list_queues(&self, _: Request<v1::ListQueuesRequest>) -> Result<Response<v1::ListQueuesReply>, Status> {
        let queues = self.broker.queues().await?;
        let durability = self.broker.durability();
        let queues = queues
            .into_iter()
            .map(|queue| render::queue(queue, durability))
            .collect();
        Ok(Response::new(v1::ListQueuesReply { queues }))
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
}
