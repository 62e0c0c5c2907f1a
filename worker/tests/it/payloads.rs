//! Values: small ones in the session, large ones beside it, larger ones refused.

use asynq_proto::limits::{INLINE_BYTES, MAX_PAYLOAD_BYTES};
use asynq_proto::v1::{Assignment, Payload as WirePayload};
use asynq_worker::{Task, TaskError, Worker};
use tonic::Status;

use crate::broker::{Broker, assignment, run, token, until};

const FILL: Task<usize, String> = Task::new("fill");

fn fill(_: asynq_worker::Context, bytes: usize) -> Result<String, TaskError> {
    Ok("x".repeat(bytes - 2))
}

fn large(n: u8, broker: &Broker) -> (Assignment, WirePayload) {
    let data = vec![b'7'; 3_000_000];
    let payload = WirePayload {
        content_type: "text/plain".into(),
        data: data.into(),
    };
    broker
        .bulk
        .arguments
        .lock()
        .unwrap()
        .insert(token(n).task_id, payload.clone());
    (
        Assignment {
            payload: None,
            fetch_payload: true,
            ..assignment(n, "echo", "")
        },
        payload,
    )
}

#[tokio::test]
async fn large_values_go_round_equal_even_if_the_way_fails_at_times() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    for n in 1..=2 {
        broker
            .bulk
            .failures
            .lock()
            .unwrap()
            .extend([Status::unavailable("later"), Status::resource_exhausted("full")]);
        let (assignment, payload) = large(n, &broker);
        link.assign(assignment).await;
        until(|| broker.bulk.results.lock().unwrap().len() == usize::from(n)).await;
        let completion = broker.bulk.results.lock().unwrap().last().unwrap().clone();
        assert_eq!(completion.token, Some(token(n)));
        assert_eq!(completion.result, Some(payload));
    }
    // Acknowledged there, so nothing of it is said here.
    link.assign(assignment(3, "echo", "1")).await;
    let said = link.next().await;
    assert_eq!(said.completions.len(), 1);
    assert_eq!(said.completions[0].token, Some(token(3)));
}

#[tokio::test]
async fn the_limits_are_exact() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).blocking(FILL, fill));
    let mut link = broker.accept().await;

    link.assign(assignment(1, "fill", &INLINE_BYTES.to_string())).await;
    assert_eq!(
        link.next().await.completions[0].result.as_ref().unwrap().data.len(),
        INLINE_BYTES
    );
    link.ack(1).await;

    for (n, bytes) in [(2, INLINE_BYTES + 1), (3, MAX_PAYLOAD_BYTES)] {
        link.assign(assignment(n, "fill", &bytes.to_string())).await;
        until(|| !broker.bulk.results.lock().unwrap().is_empty()).await;
        let completion = broker.bulk.results.lock().unwrap().remove(0);
        assert_eq!(completion.result.unwrap().data.len(), bytes);
    }

    link.assign(assignment(4, "fill", &(MAX_PAYLOAD_BYTES + 1).to_string()))
        .await;
    let failure = link.next().await.failures.remove(0).failure.unwrap();
    assert_eq!(
        failure.message,
        "the result is 4194305 bytes long, at most 4194304 are allowed"
    );
    assert!(!failure.retryable);
}

#[tokio::test]
async fn arguments_the_broker_does_not_have_are_a_failure() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    link.assign(Assignment {
        payload: None,
        fetch_payload: true,
        ..assignment(1, "echo", "")
    })
    .await;
    let failure = link.next().await.failures.remove(0).failure.unwrap();
    assert_eq!(failure.message, "failed to fetch the arguments: no such arguments");
}

#[tokio::test]
async fn a_result_the_broker_refuses_for_good_is_a_failure() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).blocking(FILL, fill));
    let mut link = broker.accept().await;
    broker
        .bulk
        .failures
        .lock()
        .unwrap()
        .push(Status::invalid_argument("too much"));
    link.assign(assignment(1, "fill", &(INLINE_BYTES + 1).to_string()))
        .await;
    let failure = link.next().await.failures.remove(0).failure.unwrap();
    assert_eq!(
        (failure.message.as_str(), failure.retryable),
        ("the broker refused the result: too much", false)
    );
}
