//! Shutting down, and starting again.

use asynq_proto::v1::{self, TaskState, operation::Op};
use tonic::Code;

use crate::harness::{Broker, Session, Worker, hello, json, reason, task};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let mut tasks = broker.tasks().await;
    let (waiting, done) = (task("later"), task("echo"));
    tasks.enqueue(waiting.clone()).await.unwrap();
    tasks.enqueue(done.clone()).await.unwrap();
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    worker.complete(run.token, json("5")).await;
    worker.ack().await;
    // With a goodbye nothing is waited for after the restart.
    worker
        .send(v1::WorkRequest {
            draining: true,
            ..Default::default()
        })
        .await;
    worker.half_close().await;
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    let mut tasks = broker.tasks().await;
    let finished = tasks
        .wait(v1::WaitRequest { id: done.id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (finished.state(), finished.result),
        (TaskState::Succeeded, Some(json("5")))
    );
    let again = v1::EnqueueRequest {
        first_send: false,
        ..done
    };
    assert!(tasks.enqueue(again).await.unwrap().into_inner().existed);
    let shown = tasks
        .show(v1::ShowRequest { id: waiting.id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.name, "later");
    let mut worker = Worker::connect(&broker, 1, &["later"]).await;
    let run = worker.assignment().await;
    assert_eq!((run.token.unwrap().task_id, run.payload), (waiting.id, Some(json("1"))));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_run_goes_on_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let id = broker
        .tasks()
        .await
        .enqueue(task("echo"))
        .await
        .unwrap()
        .into_inner()
        .id;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let held = worker.assignment().await.token.unwrap();
    let session = worker.welcome.session.clone();
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    let resume = v1::WorkHello {
        resume: session.clone(),
        held: vec![held.clone()],
        ..hello(1, &["echo"])
    };
    let mut worker = Worker::say_hello(&broker, resume).await.unwrap();
    assert!(worker.welcome.resumed && worker.welcome.session == session);
    worker.complete(Some(held), json("6")).await;
    assert!(!worker.ack().await.stale);
    let finished = broker
        .tasks()
        .await
        .wait(v1::WaitRequest { id })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (finished.result, finished.stats.unwrap().attempts),
        (Some(json("6")), 1)
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn streams_and_calls_are_told_of_the_shutdown() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let id = broker
        .tasks()
        .await
        .enqueue(task("echo"))
        .await
        .unwrap()
        .into_inner()
        .id;
    session.ask([Op::Wait(v1::WaitRequest { id: id.clone() })]).await;
    let worker = Worker::connect(&broker, 1, &["other"]).await;
    let tasks = broker.tasks().await;
    let stop = async {
        // One connection keeps the order: when this is answered, the wait is known.
        let mut same = tasks.clone();
        same.show(v1::ShowRequest { id: id.clone() }).await.unwrap();
        broker.ask_to_stop();
    };
    let mut waiter = tasks.clone();
    let (call, ()) = tokio::join!(waiter.wait(v1::WaitRequest { id: id.clone() }), stop);
    for status in [call.unwrap_err(), session.next().await.unwrap_err(), worker.end().await] {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unavailable, "SHUTTING_DOWN")
        );
    }
    broker.stop().await.unwrap();
}
