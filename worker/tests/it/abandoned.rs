//! Handlers that do not stop when they are told to: their runs are given up, their
//! slots are told of as leaked, and what they return counts for nothing.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use asynq_proto::v1::{StopCause, WorkRequest, WorkWelcome};
use asynq_worker::{Context, Task, TaskError, Worker, WorkerBuilder};
use tokio::sync::{mpsc, oneshot};

use crate::broker::{Broker, Link, assignment, run, token, welcome, within};

const SPIN: Task<(), ()> = Task::new("spin");
const GRACE: Duration = Duration::from_millis(50);

/// A worker whose blocking task `spin` says that it has begun and returns when it is
/// let go, whatever it is told.
fn spinning(broker: &Broker, slots: u32) -> (WorkerBuilder, mpsc::Receiver<()>, SyncSender<()>) {
    let (started, starts) = mpsc::channel(4);
    let (let_go, go) = sync_channel(4);
    let worker = Worker::builder(&broker.url())
        .slots(slots)
        .kill_grace(GRACE)
        .builtins()
        .blocking(SPIN, blind(started, go));
    (worker, starts, let_go)
}

fn blind(started: mpsc::Sender<()>, go: Receiver<()>) -> impl Fn(Context, ()) -> Result<(), TaskError> {
    let go = Mutex::new(go);
    move |_, ()| {
        started.blocking_send(()).unwrap();
        go.lock().unwrap().recv().unwrap();
        Ok(())
    }
}

async fn echoes(link: &mut Link, n: u8) {
    link.assign(assignment(n, "echo", "1")).await;
    assert_eq!(link.next().await.completions[0].token, Some(token(n)));
    link.ack(n).await;
}

#[tokio::test]
async fn a_thread_that_nobody_can_end_is_given_up_and_its_slot_counted() {
    let mut broker = Broker::start().await;
    let (worker, mut starts, let_go) = spinning(&broker, 2);
    let _running = run(worker);
    let mut link = broker.accept().await;
    assert_eq!(link.hello.leaked, 0);
    link.assign(assignment(1, "spin", "null")).await;
    within(starts.recv()).await.unwrap();
    link.stop(1, StopCause::Timeout).await;
    let said = link.next().await;
    assert_eq!((said.abandoned, said.leaked), (vec![token(1)], Some(1)));
    link.ack(1).await;
    echoes(&mut link, 2).await; // in the slot that is left
    drop(link);

    // A broker that has forgotten it hears of it again.
    let mut link = broker.accept().await;
    assert_eq!((link.hello.leaked, &link.hello.held[..]), (1, &[][..]));
    let_go.send(()).unwrap();
    let said = link.next().await;
    assert_eq!(
        said,
        WorkRequest {
            heartbeat: said.heartbeat,
            leaked: Some(0),
            ..WorkRequest::default()
        }
    );
    echoes(&mut link, 3).await;
}

#[tokio::test]
async fn an_async_handler_that_blocks_its_thread_is_given_up_too() {
    let mut broker = Broker::start().await;
    let (started, mut starts) = mpsc::channel(1);
    let (let_go, go) = sync_channel(1);
    let go = Mutex::new(go);
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .kill_grace(GRACE)
        .task(SPIN, move |_, ()| {
            started.try_send(()).unwrap();
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
    link.assign(assignment(1, "spin", "null")).await;
    within(starts.recv()).await.unwrap();
    link.stop(1, StopCause::Cancelled).await;
    let said = link.next().await;
    assert_eq!((said.abandoned, said.leaked), (vec![token(1)], Some(1)));
    link.ack(1).await;
    let_go.send(()).unwrap();
    assert_eq!(link.next().await.leaked, Some(0));
    stop.send(()).unwrap();
    assert!(link.next().await.draining);
    link.closed().await;
    within(tokio::task::spawn_blocking(move || thread.join().unwrap()))
        .await
        .unwrap()
        .unwrap();
}

/// The lease is lost, and with it the runs; their threads stay, and their slots taken.
#[tokio::test]
async fn what_waits_for_a_leaked_slot_is_given_back() {
    let mut broker = Broker::start().await;
    let (worker, mut starts, let_go) = spinning(&broker, 1);
    let _running = run(worker.kill_grace(Duration::from_millis(500)));
    let link = broker
        .accept_with(WorkWelcome {
            lease_ms: 400,
            margin_ms: 100,
            ..welcome()
        })
        .await;
    link.assign(assignment(1, "spin", "null")).await;
    within(starts.recv()).await.unwrap();
    link.fall_silent();

    let mut link = broker.accept().await;
    assert!(link.hello.resume.is_empty() && link.hello.held.is_empty());
    assert_eq!(link.hello.leaked, 0, "it may end yet");
    link.assign(assignment(2, "echo", "1")).await;
    assert_eq!(link.next().await.leaked, Some(1), "it has not");
    let said = link.next().await;
    assert_eq!(said.released, [token(2)]);
    link.ack(2).await;
    // From here on it does not even wait.
    link.assign(assignment(3, "echo", "1")).await;
    assert_eq!(link.next().await.released, [token(3)]);
    link.ack(3).await;
    let_go.send(()).unwrap();
    assert_eq!(link.next().await.leaked, Some(0));
    echoes(&mut link, 4).await;
}
