//! Runs that take too long and may, that should not and do, as the wire tells of them.

use std::sync::Arc;
use std::time::Duration;

use asynq_proto::v1::{self, DeadReason, TaskState};
use asynqd::Backing;
use asynqd::clock::{Clock, ManualClock, SystemClock};
use asynqd::limits::DRAIN_TIMEOUT;

use crate::harness::{Broker, Worker, hello, json, task};

const SECOND: Duration = Duration::from_secs(1);

fn timed(ms: u64) -> v1::EnqueueRequest {
    let mut request = task("spin");
    request.options = Some(v1::TaskOptions {
        timeout_ms: ms,
        ..request.options.unwrap_or_default()
    });
    request
}

async fn leaked(broker: &Broker) -> (u32, u32) {
    let listed = broker.admin().await.list_workers(v1::ListWorkersRequest {}).await;
    let worker = &listed.unwrap().into_inner().workers[0];
    (worker.busy, worker.leaked)
}

async fn ended(broker: &Broker, id: bytes::Bytes) -> v1::Finished {
    let request = v1::WaitRequest { id };
    broker.tasks().await.wait(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn an_abandoned_runs_task_ends_and_its_slot_stays_taken() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let id = tasks.enqueue(timed(50)).await.unwrap().into_inner().id;
    let mut worker = Worker::connect(&broker, 1, &["spin"]).await;
    let token = worker.assignment().await.token;
    assert_eq!(worker.stop_run().await.cause(), v1::StopCause::Timeout);
    tasks.enqueue(task("spin")).await.unwrap();
    worker
        .send(v1::WorkRequest {
            abandoned: token.clone().into_iter().collect(),
            leaked: Some(1),
            number: 1,
            ..Default::default()
        })
        .await;
    worker.acked(1).await;
    let end = ended(&broker, id).await;
    assert_eq!((end.state(), end.dead_reason()), (TaskState::Dead, DeadReason::Timeout));
    assert_eq!(leaked(&broker).await, (0, 1), "and the next waits");
    worker.complete(token, json("1")).await;
    assert!(worker.ack().await.stale, "what it returns after all counts for nothing");
    worker
        .send(v1::WorkRequest {
            leaked: Some(0),
            ..Default::default()
        })
        .await;
    worker.assignment().await;
    assert_eq!(leaked(&broker).await, (1, 0));

    // A worker that comes anew says what its threads hold.
    let taken = v1::WorkHello {
        leaked: 1,
        ..hello(1, &["other"])
    };
    let _other = Worker::say_hello(&broker, taken).await.unwrap();
    let listed = broker.admin().await.list_workers(v1::ListWorkersRequest {}).await;
    let leaks = listed
        .unwrap()
        .into_inner()
        .workers
        .iter()
        .map(|w| w.leaked)
        .sum::<u32>();
    assert_eq!(leaks, 1);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_may_ask_for_more_time() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let mut tasks = broker.tasks().await;
    let id = tasks.enqueue(timed(10_000)).await.unwrap().into_inner().id;
    let mut worker = Worker::connect(&broker, 1, &["spin"]).await;
    let run = worker.assignment().await;
    let ask = |left_ms| v1::WorkRequest {
        extensions: vec![v1::Extension {
            token: run.token.clone(),
            left_ms,
        }],
        ..Default::default()
    };
    worker.send(ask(60_000)).await;
    worker.send(ask(1)).await; // less than it has: nothing follows
    worker.heartbeat(1).await;
    for beat in 2..5 {
        clock.advance(20 * SECOND);
        worker.heartbeat(beat).await;
        let shown = tasks.show(v1::ShowRequest { id: id.clone() }).await.unwrap();
        let (state, over) = (shown.into_inner().state(), beat == 4);
        assert_eq!(
            state == TaskState::Stopping,
            over,
            "after {} s: {state:?}",
            20 * (beat - 1)
        );
    }
    assert_eq!(worker.stop_run().await.cause(), v1::StopCause::Timeout);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_failure_says_that_it_took_too_long_or_how_often_to_try_at_least() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["spin"]).await;
    let mut fail = async |failure: v1::Failure| {
        let id = tasks.enqueue(task("spin")).await.unwrap().into_inner().id;
        let failure = v1::Failure {
            token: worker.assignment().await.token,
            failure: Some(v1::TaskFailure {
                retryable: true,
                ..Default::default()
            }),
            ..failure
        };
        worker
            .send(v1::WorkRequest {
                failures: vec![failure],
                ..Default::default()
            })
            .await;
        (id, worker.ack().await.state())
    };
    let (id, state) = fail(v1::Failure {
        timed_out: true,
        ..Default::default()
    })
    .await;
    assert_eq!(state, TaskState::Dead);
    assert_eq!(ended(&broker, id).await.dead_reason(), DeadReason::Timeout);
    let (_, state) = fail(v1::Failure {
        min_attempts: 2,
        ..Default::default()
    })
    .await;
    assert_eq!(state, TaskState::Scheduled);
    broker.stop().await.unwrap();
}
