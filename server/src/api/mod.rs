//! The gRPC face of the broker: thin services that turn messages into the
//! broker's words and back.

mod admin;
mod calls;
mod complete;
mod conventions;
mod convert;
mod cut;
mod deadline;
pub(crate) mod descriptors;
mod emit;
mod health;
mod items;
mod iterate;
mod listing;
mod operators;
mod reflection;
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
use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, StdError};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

pub(crate) use conventions::Conventions;
pub(crate) use cut::cut;

use crate::broker::{Broker, End};

/// A stream of replies.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services behind one address.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    tasks: TasksServer<tasks::TasksApi>,
    workers: WorkersServer<workers::WorkersApi>,
    admin: AdminServer<admin::AdminApi>,
    health: HealthServer<health::HealthApi>,
    reflection: reflection::Reflection,
    stop: CancellationToken,
}

impl Api {
    /// `stop` is the wish to stop.
    pub(crate) fn new(broker: &Broker, stop: &CancellationToken) -> Self {
        Self {
            tasks: TasksServer::new(tasks::TasksApi::new(broker.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            workers: WorkersServer::new(workers::WorkersApi::new(broker.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            admin: AdminServer::new(admin::AdminApi::new(broker.clone())).max_encoding_message_size(MAX_MESSAGE_BYTES),
            health: HealthServer::new(health::HealthApi::new(broker.clone(), stop.clone())),
            reflection: reflection::Reflection::new(),
            stop: stop.clone(),
        }
    }

    /// Reflection, whose streams know of no drain, and go on reading when nobody
    /// hears their answers any more.
    fn reflect(
        &self,
        mut reflection: reflection::Service,
        request: Request<Body>,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let (stop, over) = (self.stop.clone(), CancellationToken::new());
        let heard = over.clone().drop_guard();
        let unheard = async move {
            over.cancelled_owned().await;
            End::Gone.into()
        };
        let end = async move {
            let _heard = heard;
            stop.cancelled_owned().await;
            End::ShuttingDown.into()
        };
        Box::pin(async move {
            let answer = reflection.call(request.map(|body| cut(body, unheard))).await?;
            Ok(answer.map(|body| cut(body, end)))
        })
    }
}

impl<B> Service<Request<B>> for Api
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if descriptors::shape(path).is_none() {
            return Box::pin(std::future::ready(Ok(unknown(path).into_http())));
        }
        match service_of(path) {
            <TasksServer<tasks::TasksApi> as NamedService>::NAME => self.tasks.call(request),
            <WorkersServer<workers::WorkersApi> as NamedService>::NAME => self.workers.call(request),
            <AdminServer<admin::AdminApi> as NamedService>::NAME => self.admin.call(request),
            <HealthServer<health::HealthApi> as NamedService>::NAME => self.health.call(request),
            reflection::V1 => self.reflect(self.reflection.v1.clone(), request.map(Body::new)),
            reflection::V1ALPHA => self.reflect(self.reflection.v1alpha.clone(), request.map(Body::new)),
            _ => Box::pin(std::future::ready(Ok(unknown(path).into_http()))),
        }
    }
}

/// `asynq.v1.Tasks` of `/asynq.v1.Tasks/Session`.
fn service_of(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

fn unknown(path: &str) -> Status {
    let service = service_of(path);
    if descriptors::has_service(service) {
        let message = format!("the service {service} has no such method: {path:?}");
        return status::status(Code::Unimplemented, reasons::UNKNOWN_METHOD, message);
    }
    let message = format!("this broker has no service {service:?}");
    status::status(Code::Unimplemented, reasons::UNKNOWN_SERVICE, message)
}
