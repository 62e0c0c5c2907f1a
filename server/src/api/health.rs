//! `grpc.health.v1`: whether this broker takes calls now, for load balancers and
//! supervisors. There is no half of it: all services answer as one.

use asynq_proto::reasons;
use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{Replies, descriptors, status};
use crate::broker::{Broker, End};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct HealthApi {
    broker: Broker,
    stop: CancellationToken,
}

impl HealthApi {
    /// `stop` is the wish to stop: from then on nothing is served.
    pub(super) const fn new(broker: Broker, stop: CancellationToken) -> Self {
        Self { broker, stop }
    }

    /// Calls come in only once the shard is open, so what is to be known is
    /// whether that is over: the loop has ended, soon will, or stands still.
    async fn now(&self) -> ServingStatus {
        let over = self.stop.is_cancelled() || self.broker.is_over().is_some();
        match over || !self.broker.goes_round().await {
            true => ServingStatus::NotServing,
            false => ServingStatus::Serving,
        }
    }

    /// Until it is over; says why.
    async fn over(&self) -> End {
        tokio::select! {
            biased;
            end = self.broker.ended() => end,
            () = self.stop.cancelled() => End::ShuttingDown,
        }
    }
}

/// The whole broker is `""`.
fn is_known(service: &str) -> bool {
    service.is_empty() || descriptors::has_service(service)
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthApi {
    type WatchStream = Replies<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if is_known(&service) {
            return Ok(Response::new(reply(self.now().await)));
        }
        let message = format!("this broker has no service {service:?}");
        Err(status::status(Code::NotFound, reasons::UNKNOWN_SERVICE, message))
    }

    /// Ends with the broker: what is asked next, another connection answers.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let state = Watch {
            health: self.clone(),
            known: is_known(&request.into_inner().service),
            told: None,
        };
        let replies = stream::unfold(Some(state), |state| async { state?.next().await });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// One who watches.
struct Watch {
    health: HealthApi,
    known: bool,
    told: Option<ServingStatus>,
}

impl Watch {
    /// What there is to tell next, and how it goes on.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Option<Self>)> {
        let now = match (self.told, self.known) {
            (None, true) => self.health.now().await,
            (None, false) => ServingStatus::ServiceUnknown,
            (Some(told), _) => {
                let why = self.health.over().await;
                if told != ServingStatus::Serving {
                    return Some((Err(why.into()), None));
                }
                ServingStatus::NotServing
            }
        };
        self.told = Some(now);
        Some((Ok(reply(now)), Some(self)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::{FutureExt, StreamExt};
    use tonic_types::StatusExt;

    use super::*;
    use crate::Backing;
    use crate::clock::SystemClock;

    async fn watch(health: &HealthApi, service: &str) -> Replies<HealthCheckResponse> {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        health.watch(Request::new(request)).await.unwrap().into_inner()
    }

    async fn said(replies: &mut Replies<HealthCheckResponse>) -> ServingStatus {
        replies.next().await.unwrap().unwrap().status()
    }

    async fn check(health: &HealthApi, service: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(Request::new(request)).await?;
        Ok(answer.into_inner().status())
    }

    fn open() -> (HealthApi, CancellationToken, impl Sized) {
        let (broker, broker_loop) = crate::broker::open(Backing::memory(), Arc::new(SystemClock::new())).unwrap();
        let stop = CancellationToken::new();
        (HealthApi::new(broker, stop.clone()), stop, broker_loop)
    }

    #[tokio::test]
    async fn who_watches_hears_of_the_drain_and_then_the_end() {
        let (health, stop, _loop) = open();
        let mut all = watch(&health, "").await;
        let mut unknown = watch(&health, "asynq.v1.Nothing").await;
        assert_eq!(said(&mut all).await, ServingStatus::Serving);
        assert_eq!(said(&mut unknown).await, ServingStatus::ServiceUnknown);
        assert!(all.next().now_or_never().is_none() && unknown.next().now_or_never().is_none());
        stop.cancel();
        assert_eq!(said(&mut all).await, ServingStatus::NotServing);
        for mut replies in [all, unknown] {
            let end = replies.next().await.unwrap().unwrap_err();
            assert_eq!(end.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
            assert!(replies.next().await.is_none());
        }
        let mut late = watch(&health, "").await;
        assert_eq!(said(&mut late).await, ServingStatus::NotServing);
        assert!(late.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn each_service_is_as_the_broker_is() {
        let (health, _stop, _loop) = open();
        let services = ["", "asynq.v1.Tasks", "asynq.v1.Workers", "asynq.v1.Admin"];
        for service in services {
            assert_eq!(check(&health, service).await.unwrap(), ServingStatus::Serving);
        }
        let unknown = check(&health, "asynq.v1.Nothing").await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        // The store fails, or the loop dies, and nobody wished to stop.
        health.broker.end(End::StoreFailed);
        for service in services {
            assert_eq!(check(&health, service).await.unwrap(), ServingStatus::NotServing);
        }
        let mut replies = watch(&health, "").await;
        assert_eq!(said(&mut replies).await, ServingStatus::NotServing);
        let end = replies.next().await.unwrap().unwrap_err();
        assert_eq!(end.get_details_error_info().unwrap().reason, "STORE_FAILED");
    }
}
