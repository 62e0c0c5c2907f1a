//! The gRPC face of the broker: thin services that turn messages into the
//! broker's words and back.

mod admin;
mod convert;
mod deadline;
mod emit;
mod items;
mod iterate;
mod listing;
mod render;
mod session;
mod status;
mod tasks;
mod workers;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::reasons;
use asynq_proto::v1::admin_server::AdminServer;
use asynq_proto::v1::tasks_server::TasksServer;
use asynq_proto::v1::workers_server::WorkersServer;
use futures_util::Stream;
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, StdError};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;

use crate::broker::Broker;

/// A stream of replies.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services behind one address.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    tasks: TasksServer<tasks::TasksApi>,
    workers: WorkersServer<workers::WorkersApi>,
    admin: AdminServer<admin::AdminApi>,
}

impl Api {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self {
            tasks: TasksServer::new(tasks::TasksApi::new(broker.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            workers: WorkersServer::new(workers::WorkersApi::new(broker.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            admin: AdminServer::new(admin::AdminApi::new(broker.clone())).max_encoding_message_size(MAX_MESSAGE_BYTES),
        }
    }
}

impl<B> Service<Request<B>> for Api
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // `/asynq.v1.Tasks/Session`
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            <TasksServer<tasks::TasksApi> as NamedService>::NAME => self.tasks.call(request),
            <WorkersServer<workers::WorkersApi> as NamedService>::NAME => self.workers.call(request),
            <AdminServer<admin::AdminApi> as NamedService>::NAME => self.admin.call(request),
            _ => {
                let message = format!("this broker has no service {service:?}");
                let details = ErrorDetails::with_error_info(reasons::UNKNOWN_SERVICE, reasons::DOMAIN, []);
                let status = Status::with_error_details(Code::Unimplemented, message, details);
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}
