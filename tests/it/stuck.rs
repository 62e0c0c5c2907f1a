//! Handlers that block: what they cost, and what they do not.
//! `ASYNQ_TORTURE=1` (`make torture`) has one block for 40 s.

use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use asynq_client::{Client, DeadReason, Error, State};
use asynq_core::limits::{HEARTBEAT, LEASE};
use asynq_tests::{Cluster, PATIENCE, eventually, within};
use asynq_worker::{RunError, Task, TaskError, Worker, WorkerBuilder};
use tokio::sync::oneshot;

const SPIN: Task<(), u8> = Task::new("spin");

/// What a blocking handler waits for, heedless of all else.
struct Gate(SyncSender<()>);

fn gated() -> (Gate, impl Fn() + Send + Sync + 'static) {
    let (open, gate) = sync_channel(8);
    let gate = Mutex::new(gate);
    // A gate that is gone is open.
    let wait = move || gate.lock().expect("nobody panics").recv().unwrap_or_default();
    (Gate(open), wait)
}

async fn leaked(client: &Client) -> Vec<(u32, u32)> {
    let workers = client.workers().await.expect("the broker is there");
    workers.iter().map(|worker| (worker.busy, worker.leaked)).collect()
}

#[tokio::test]
async fn a_blocking_endless_loop_ends_its_task_and_is_counted_as_leaked() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let (gate, wait) = gated();
    let worker = Worker::builder(&cluster.broker.url())
        .name("here")
        .slots(1)
        .builtins()
        .blocking(SPIN, move |_, ()| {
            wait();
            Ok(1)
        });
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    cluster.worker_becomes(&client, "active").await;

    let handle = client
        .enqueue(SPIN, &())
        .timeout(Duration::from_millis(500))
        .await
        .expect("it is taken");
    let ended = within("its end", PATIENCE, handle.result()).await;
    assert!(
        matches!(&ended, Err(Error::Dead { reason, .. }) if *reason == DeadReason::Timeout),
        "{ended:?}"
    );
    assert_eq!(leaked(&client).await, [(0, 1)]);
    let listed = cluster.json(&["worker", "ls"]).await;
    assert_eq!(listed[0]["leaked"], 1);
    assert!(cluster.ok(&["worker", "ls"]).await.contains("0/1 (1 leaked)"));
    // The worker's only slot is gone, and that is what is said.
    let waits = cluster.ok(&["enqueue", "echo", "1"]).await;
    let why = client.explain(waits.parse().expect("an id")).await.expect("it waits");
    assert_eq!(
        (why.reason.as_str(), why.details["leaked_slots"].as_str()),
        ("no_free_slot", "1")
    );

    // Its thread comes back after all: what it returns counts for nothing, and the
    // slot is free.
    gate.0.send(()).expect("it waits");
    assert_eq!(cluster.ok(&["task", "wait", &waits]).await, "1");
    assert_eq!(leaked(&client).await, [(0, 0)]);
    let shown = client.show(handle.id()).await.expect("it is known");
    assert_eq!((shown.state, shown.timeouts, shown.attempt), (State::Dead, 1, 1));
    running.abort();
}

/// A worker with a runtime of one thread, which its handlers can bring to a stop.
fn on_one_thread(worker: WorkerBuilder) -> (JoinHandle<Result<(), RunError>>, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        // Asked to stop, or forgotten: either way it is over.
        runtime.block_on(worker.run_until(async { drop(stopped.await) }))
    });
    (thread, stop)
}

#[tokio::test]
async fn an_async_handler_that_blocks_its_thread_loses_no_lease() {
    // Two heartbeats, or more than a lease.
    let blocked = match std::env::var_os("ASYNQ_TORTURE") {
        Some(yes) if yes == "1" => Duration::from_secs(40),
        _ => 2 * HEARTBEAT + Duration::from_secs(1),
    };
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let (gate, wait) = gated();
    let worker = Worker::builder(&cluster.broker.url())
        .name("here")
        .slots(2)
        .task(SPIN, move |_, ()| {
            wait(); // before its first await: the whole runtime stands still
            async { Ok::<u8, TaskError>(1) }
        });
    let (thread, stop) = on_one_thread(worker);
    cluster.worker_becomes(&client, "active").await;
    let handle = client.enqueue(SPIN, &()).await.expect("it is taken");
    cluster.reaches(&client, handle.id(), State::Running).await;
    let begun = Instant::now();
    eventually("the time to pass", blocked + PATIENCE, || async {
        (begun.elapsed() > blocked).then_some(())
    })
    .await;
    let why = client.explain(handle.id()).await.expect("it runs");
    let lease: u64 = why.details["lease_ms"].parse().expect("a number");
    let lease = Duration::from_millis(lease);
    assert!(lease > LEASE - 2 * HEARTBEAT, "its heartbeats have stopped: {why:?}");
    gate.0.send(()).expect("it waits");
    assert_eq!(
        within("its result", PATIENCE, handle.result())
            .await
            .expect("it is well"),
        1
    );
    let shown = client.show(handle.id()).await.expect("it is known");
    assert_eq!((shown.attempt, shown.losses), (1, 0));
    stop.send(()).expect("it serves");
    let ended = tokio::task::spawn_blocking(move || thread.join());
    let ended = within("the worker to drain", PATIENCE, ended)
        .await
        .expect("it is waited for");
    ended.expect("it does not panic").expect("it drains");
}
