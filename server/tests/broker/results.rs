//! Results: large ones, and those that are not to be kept.

use asynq_proto::v1::operation::Op;
use asynq_proto::v1::{self, TaskState, answer::Of};
use tonic::Code;

use crate::harness::{Broker, Session, Worker, json, reason, task};

#[tokio::test]
async fn large_results_are_deferred_in_a_session_and_whole_in_a_call() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let large = json(&format!("\"{}\"", "x".repeat(3_000_000)));
    let request = v1::EnqueueRequest {
        payload: Some(large.clone()),
        ..task("echo")
    };
    let id = tasks.enqueue(request).await.unwrap().into_inner().id;
    let mut session = Session::open(&broker).await;
    session.ask([Op::Wait(v1::WaitRequest { id: id.clone() })]).await;

    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    assert_eq!((run.fetch_payload, &run.payload), (true, &None));
    let mut bulk = broker.workers().await;
    let fetched = bulk
        .fetch_payload(v1::FetchPayloadRequest {
            token: run.token.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    assert!(fetched == large, "the arguments come back equal");
    let done = v1::Completion {
        token: run.token.clone(),
        result: Some(fetched),
        spawned: Vec::new(),
    };
    let ack = bulk.complete_large(done.clone()).await.unwrap().into_inner();
    assert_eq!((ack.stale, ack.state()), (false, TaskState::Succeeded));
    // Sent again, because the answer was lost: it is the one that was taken.
    assert_eq!(bulk.complete_large(done.clone()).await.unwrap().into_inner(), ack);
    let other_result = v1::Completion {
        result: Some(json("1")),
        ..done.clone()
    };
    let other_run = v1::Completion {
        token: run.token.clone().map(|token| v1::LeaseToken { attempt: 9, ..token }),
        ..done.clone()
    };
    for other in [other_result, other_run] {
        let ack = bulk.complete_large(other).await.unwrap().into_inner();
        assert_eq!(
            (ack.stale, ack.state()),
            (true, TaskState::Succeeded),
            "and the task as it is"
        );
    }
    let mut unknown = done;
    unknown.token.as_mut().unwrap().task_id = task("echo").id;
    let ack = bulk.complete_large(unknown).await.unwrap().into_inner();
    assert_eq!((ack.stale, ack.state()), (true, TaskState::Unspecified));
    let status = bulk
        .fetch_payload(v1::FetchPayloadRequest { token: run.token })
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "STALE_LEASE")
    );

    let (_, Of::Finished(finished)) = session.answer().await else {
        panic!("not finished")
    };
    assert_eq!((finished.result, finished.result_deferred), (None, true));
    let finished = tasks.wait(v1::WaitRequest { id }).await.unwrap().into_inner();
    assert!(finished.result == Some(large), "the result comes back equal");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn results_that_are_not_kept_are_told_once() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut session = Session::open(&broker).await;
    let options = v1::TaskOptions {
        result_ttl_ms: Some(0),
        ..Default::default()
    };
    let request = v1::EnqueueRequest {
        options: Some(options),
        wait: true,
        ..task("echo")
    };
    let id = request.id.clone();
    session.ask([Op::Enqueue(request)]).await;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    worker.complete(run.token, json("7")).await;
    session.answer().await;
    let (_, Of::Finished(finished)) = session.answer().await else {
        panic!("not finished")
    };
    assert_eq!(finished.result, Some(json("7")));
    let status = tasks.wait(v1::WaitRequest { id }).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "RESULT_EXPIRED")
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_deferred_result_that_is_not_to_be_kept_can_still_be_fetched() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let options = v1::TaskOptions {
        result_ttl_ms: Some(0),
        ..Default::default()
    };
    let request = v1::EnqueueRequest {
        options: Some(options),
        wait: true,
        ..task("echo")
    };
    let id = request.id.clone();
    session.ask([Op::Enqueue(request)]).await;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let token = worker.assignment().await.token;
    let large = json(&format!("\"{}\"", "x".repeat(100_000)));
    let done = v1::Completion {
        token,
        result: Some(large.clone()),
        spawned: Vec::new(),
    };
    broker.workers().await.complete_large(done).await.unwrap();
    session.answer().await;
    let (_, Of::Finished(finished)) = session.answer().await else {
        panic!("not finished")
    };
    assert_eq!((finished.result, finished.result_deferred), (None, true));
    let fetched = broker.tasks().await.wait(v1::WaitRequest { id }).await.unwrap();
    assert!(fetched.into_inner().result == Some(large), "it comes back equal");
    broker.stop().await.unwrap();
}

/// Of a task that has ended only the store knows how.
#[tokio::test]
async fn who_reports_late_is_told_how_the_task_is() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let mut ended = Vec::new();
    for state in [TaskState::Succeeded, TaskState::Dead, TaskState::Cancelled] {
        let id = tasks.enqueue(task("echo")).await.unwrap().into_inner().id;
        let token = worker.assignment().await.token;
        match state {
            TaskState::Succeeded => worker.complete(token.clone(), json("7")).await,
            TaskState::Dead => worker.fail(token.clone(), "no luck", false).await,
            _ => {
                tasks.cancel(v1::CancelRequest { id }).await.unwrap();
                worker.complete(token.clone(), json("7")).await;
            }
        }
        let ack = worker.ack().await;
        assert_eq!((ack.stale, ack.state()), (false, state));
        ended.push((token, state));
    }
    let unknown = v1::LeaseToken {
        task_id: task("echo").id,
        epoch: 1,
        attempt: 1,
    };
    ended.push((Some(unknown), TaskState::Unspecified));
    for (token, state) in ended {
        worker.complete(token.clone(), json("8")).await;
        let ack = worker.ack().await;
        assert_eq!((ack.stale, ack.state(), ack.token), (true, state, token));
    }
    broker.stop().await.unwrap();
}
