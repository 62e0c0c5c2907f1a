//! `grpc.health.v1` as load balancers see it: over a connection that stays.

use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::{Broker, reason, soon, task};
use crate::streaming::Gate;

async fn said(replies: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    soon(replies.message()).await.unwrap().unwrap().status()
}

#[tokio::test]
async fn the_broker_serves_until_the_first_moment_of_the_drain() {
    let gate = Gate::default();
    let broker = Broker::on(gate.backing()).await;
    let mut health = HealthClient::new(broker.channel().await);
    for service in ["", "asynq.v1.Tasks", "asynq.v1.Workers", "asynq.v1.Admin"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let answer = soon(health.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut watching = soon(health.watch(HealthCheckRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(said(&mut watching).await, ServingStatus::Serving);

    // A commit that does not end: the drain has begun and cannot get on.
    gate.shut();
    let mut tasks = broker.tasks().await;
    let enqueuing = tokio::spawn(async move { tasks.enqueue(task("later")).await });
    gate.holds().await;
    broker.ask_to_stop();
    assert_eq!(said(&mut watching).await, ServingStatus::NotServing);
    assert!(!enqueuing.is_finished(), "the drain goes on");
    let end = soon(watching.message()).await.unwrap_err();
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    gate.open();
    soon(enqueuing).await.unwrap().unwrap();
    broker.stop().await.unwrap();
}
