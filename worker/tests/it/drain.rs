//! The end of a worker: asked for, timed out, or for want of work.

use std::time::Duration;

use asynq_proto::v1::{Assignment, WorkReply};
use asynq_worker::{Context, Task, TaskError, Worker};
use tokio::sync::mpsc;

use crate::broker::{Broker, assignment, run, token, within};

const ONCE: Task<(), ()> = Task::new("once");

#[tokio::test]
async fn a_drain_finishes_what_runs_and_gives_back_what_comes() {
    let mut broker = Broker::start().await;
    let (open, gate) = mpsc::channel::<()>(1);
    let gate = std::sync::Arc::new(tokio::sync::Mutex::new(gate));
    let worker = Worker::builder(&broker.url())
        .slots(4)
        .task(ONCE, move |_: Context, ()| {
            let gate = gate.clone();
            async move {
                gate.lock()
                    .await
                    .recv()
                    .await
                    .ok_or_else(|| TaskError::terminal("the test is over"))
            }
        });
    let mut running = run(worker);
    let mut link = broker.accept().await;
    link.assign(assignment(1, "once", "null")).await;
    link.beats(2).await;
    running.shut_down();
    assert!(link.next().await.draining);
    link.assign(assignment(2, "once", "null")).await;
    assert_eq!(link.next().await.released, [token(2)]);
    open.send(()).await.unwrap();
    assert_eq!(link.next().await.completions[0].token, Some(token(1)));
    link.ack(2).await;
    link.beats(2).await; // it waits for the acknowledgement of its run
    link.ack(1).await;
    link.closed().await;
    drop(link);
    running.ended().await.unwrap();
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_dropped_and_given_back() {
    let mut broker = Broker::start().await;
    let (let_go, go) = std::sync::mpsc::sync_channel::<()>(1);
    let go = std::sync::Mutex::new(go);
    let worker = Worker::builder(&broker.url())
        .slots(2)
        .builtins()
        .drain_timeout(Duration::from_secs(2))
        .blocking(ONCE, move |_, ()| go.lock().unwrap().recv().map_err(TaskError::from));
    let mut running = run(worker);
    let mut link = broker.accept().await;
    let both = vec![
        assignment(1, "sleep", r#"{"ms":3600000}"#),
        assignment(2, "once", "null"),
    ];
    link.reply(WorkReply {
        assignments: both,
        ..WorkReply::default()
    })
    .await;
    link.beats(2).await;
    running.shut_down();
    assert!(link.next().await.draining);
    // The one that can be stopped goes first.
    let mut released = link.next().await.released;
    released.extend(link.next().await.released);
    released.sort_by(|a, b| a.task_id.cmp(&b.task_id));
    assert_eq!(released, [token(1), token(2)]);
    link.ack(1).await;
    link.ack(2).await;
    link.closed().await;
    drop(link);
    running.ended().await.unwrap();
    drop(let_go); // it blocked to the end
}

#[tokio::test]
async fn a_silent_broker_does_not_hold_up_the_end() {
    let mut broker = Broker::start().await;
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .builtins()
        .drain_timeout(Duration::from_millis(300));
    let mut running = run(worker);
    let link = broker.accept().await;
    link.fall_silent();
    link.assign(assignment(1, "sleep", r#"{"ms":3600000}"#)).await;
    link.beats(2).await;
    running.shut_down();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn without_a_broker_there_is_nobody_to_wait_for() {
    let broker = Broker::start().await;
    let url = broker.url();
    drop(broker);
    let mut running = run(Worker::builder(&url).builtins());
    running.shut_down();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn what_waits_for_its_arguments_is_given_back() {
    let mut broker = Broker::start().await;
    // It never gets them: every call fails, and is made again.
    broker
        .bulk
        .failures
        .lock()
        .unwrap()
        .extend(vec![tonic::Status::unavailable("later"); 100_000]);
    let mut running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    link.assign(Assignment {
        payload: None,
        fetch_payload: true,
        ..assignment(1, "echo", "")
    })
    .await;
    link.beats(2).await;
    running.shut_down();
    let said = link.next().await;
    assert!(said.draining);
    assert_eq!(said.released, [token(1)]);
    link.ack(1).await;
    link.closed().await;
    drop(link);
    running.ended().await.unwrap();
}

#[tokio::test]
async fn exit_when_idle_waits_for_work_first_and_leaves_in_order() {
    let mut broker = Broker::start().await;
    let running = run(Worker::builder(&broker.url()).slots(1).builtins().exit_when_idle(true));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "sleep", r#"{"ms":1200}"#)).await;
    assert_eq!(link.next().await.completions.len(), 1); // longer than the idle time
    link.ack(1).await;
    assert!(link.next().await.draining);
    link.closed().await;
    drop(link);
    within(running.ended()).await.unwrap();
}
