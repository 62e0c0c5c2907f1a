//! The session: resumed after a cut, fenced without heartbeats, never stalled.

use asynq_proto::v1::{RunAck, WorkReply, WorkWelcome};
use asynq_worker::{Context, RunError, StopCause as Cause, Task, TaskError, Worker};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::broker::{Broker, assignment, run, token, welcome, within};

const GATED: Task<(), u8> = Task::new("gated");
const HANG: Task<(), ()> = Task::new("hang");

#[tokio::test]
async fn a_cut_session_is_resumed_and_unacknowledged_outcomes_are_sent_again() {
    let mut broker = Broker::start().await;
    let (open, gate) = async_gate();
    let _running = run(Worker::builder(&broker.url()).slots(2).task(GATED, gate));
    let link = broker.accept().await;
    link.assign(assignment(1, "gated", "null")).await;
    link.beats(1).await;
    drop(link); // the run goes on

    let mut link = broker.hello().await;
    assert_eq!(link.hello.resume, welcome().session);
    assert_eq!(link.hello.held, [token(1)]);
    link.reply(WorkReply {
        welcome: Some(WorkWelcome {
            resumed: true,
            ..welcome()
        }),
        ..WorkReply::default()
    })
    .await;
    open.send(()).await.unwrap();
    assert_eq!(link.next().await.completions[0].token, Some(token(1)));
    drop(link); // before the acknowledgement

    let mut link = broker.accept().await;
    assert_eq!(link.hello.held, [token(1)]);
    assert_eq!(link.next().await.completions[0].token, Some(token(1)));
    let stale = RunAck {
        token: Some(token(1)),
        stale: true,
        ..RunAck::default()
    };
    link.reply(WorkReply {
        acks: vec![stale],
        ..WorkReply::default()
    })
    .await;
    link.beats(2).await; // the acknowledgement was read by then
    drop(link);

    let link = broker.accept().await;
    assert!(link.hello.held.is_empty());
}

#[tokio::test]
async fn without_acknowledged_heartbeats_runs_are_dropped_and_a_new_session_begins() {
    let mut broker = Broker::start().await;
    let (tell, mut told) = mpsc::channel(1);
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .task(HANG, move |context: Context, ()| {
            let tell = tell.clone();
            async move {
                tell.send(context).await.unwrap();
                std::future::pending().await
            }
        });
    let _running = run(worker);
    let link = broker
        .accept_with(WorkWelcome {
            lease_ms: 1_100,
            margin_ms: 100,
            heartbeat_ms: 50,
            ..welcome()
        })
        .await;
    link.assign(assignment(1, "hang", "null")).await;
    let context = within(told.recv()).await.unwrap();
    link.beats(40).await; // twice as long as the lease: acknowledged ones prolong it
    assert!(!context.is_stopped());
    link.fall_silent();
    assert_eq!(within(context.stopped()).await, Cause::LeaseLost);

    let next = broker.accept().await;
    assert!(next.hello.resume.is_empty() && next.hello.held.is_empty());
    drop(link);
}

#[tokio::test]
async fn a_handler_that_blocks_its_runtime_stalls_no_heartbeat() {
    let mut broker = Broker::start().await;
    let url = broker.url();
    let (let_go, go) = std::sync::mpsc::sync_channel::<()>(1);
    let go = std::sync::Mutex::new(go);
    let (blocking, blocked) = oneshot::channel();
    let blocking = std::sync::Mutex::new(Some(blocking));
    let worker = Worker::builder(&url).slots(1).task(HANG, move |_, ()| {
        blocking.lock().unwrap().take().unwrap().send(()).unwrap();
        go.lock().unwrap().recv().unwrap(); // the whole runtime stands still
        async { Ok(()) }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(worker.run_until(async { drop(stopped.await) }))
    });
    let mut link = broker.accept().await;
    link.assign(assignment(1, "hang", "null")).await;
    within(blocked).await.unwrap();
    link.beats(10).await;
    let_go.send(()).unwrap();
    assert_eq!(link.next().await.completions.len(), 1);
    link.ack(1).await;
    stop.send(()).unwrap();
    assert!(link.next().await.draining);
    link.closed().await;
    within(tokio::task::spawn_blocking(move || thread.join().unwrap()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_worker_the_broker_does_not_take_says_why_and_ends() {
    let mut broker = Broker::start().await;
    let running = run(Worker::builder(&broker.url()).builtins());
    broker
        .hello()
        .await
        .refuse(Status::invalid_argument("worker: must not be empty"))
        .await;
    let error = running.ended().await.unwrap_err();
    assert!(matches!(error, RunError::Refused { .. }));
    assert_eq!(
        error.to_string(),
        "the broker refused this worker: worker: must not be empty"
    );
}

#[tokio::test]
async fn a_broker_in_trouble_is_tried_again() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).builtins());
    broker.hello().await.refuse(Status::unavailable("going down")).await;
    let link = broker.accept().await;
    link.beats(1).await;
    // Once it was welcome, no refusal is final.
    drop(link);
    broker.hello().await.refuse(Status::invalid_argument("confused")).await;
    broker.accept().await.beats(1).await;
}

#[tokio::test]
async fn dropping_the_worker_ends_its_session() {
    let mut broker = Broker::start().await;
    let running = run(Worker::builder(&broker.url()).builtins());
    let mut link = broker.accept().await;
    running.worker.abort();
    link.closed().await;
}

type Gate = Box<dyn Fn(Context, ()) -> futures_util::future::BoxFuture<'static, Result<u8, TaskError>> + Send + Sync>;

/// A handler that returns once the sender was sent something.
fn async_gate() -> (mpsc::Sender<()>, Gate) {
    let (open, gate) = mpsc::channel(1);
    let gate = std::sync::Arc::new(tokio::sync::Mutex::new(gate));
    let handler = move |_, ()| -> futures_util::future::BoxFuture<'static, Result<u8, TaskError>> {
        let gate = gate.clone();
        Box::pin(async move {
            gate.lock().await.recv().await.unwrap();
            Ok(1)
        })
    };
    (open, Box::new(handler))
}
