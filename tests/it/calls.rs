//! Handlers that call and spawn, on a real broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use asynq_client::{Client, Error, State, TaskId};
use asynq_core::limits::MAX_CALL_DEPTH;
use asynq_tests::{Cluster, PATIENCE, Proxy, eventually, within};
use asynq_worker::{CallError, Context, DeadReason, Payload, RunError, Task, TaskError, Worker, WorkerBuilder};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Calls itself so often, and says how often that was.
const DOWN: Task<u32, u32> = Task::new("down");
/// The same, blocking its thread.
const DOWN_BLOCKING: Task<u32, u32> = Task::new("down.blocking");
/// Waits until the gate is open, and says so.
const GATE: Task<(), String> = Task::new("gate");
/// Calls `gate`.
const ASK: Task<(), String> = Task::new("ask");
/// Calls `fail` as it is told, and says what came of it.
const CATCH: Task<String, String> = Task::new("catch");
const FAIL: Task<String, ()> = Task::new("fail.so");
/// Calls `turn` with so many bytes and gives back what comes.
const LARGE: Task<usize, usize> = Task::new("large");
const TURN: Task<String, String> = Task::new("turn");
/// Calls `gate` and gives it up after so many ms.
const IMPATIENT: Task<u64, String> = Task::new("impatient");
/// Leaves a `child` behind, or fails after that.
const PARENT: Task<(u32, bool), ()> = Task::new("parent");
const CHILD: Task<u32, ()> = Task::new("child");

/// A worker of this process with all these.
struct Here {
    /// Gates passed, children run.
    passed: Arc<AtomicUsize>,
    children: Arc<std::sync::Mutex<BTreeMap<u32, usize>>>,
    gate: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), RunError>>,
}

async fn down(context: Context, left: u32) -> Result<u32, TaskError> {
    match left.checked_sub(1) {
        None => Ok(0),
        Some(left) => Ok(context.call(DOWN, &left).await? + 1),
    }
}

fn down_blocking(context: Context, left: u32) -> Result<u32, TaskError> {
    match left.checked_sub(1) {
        None => Ok(0),
        Some(left) => Ok(context.call(DOWN_BLOCKING, &left).wait()? + 1),
    }
}

async fn catch(context: Context, how: String) -> Result<String, TaskError> {
    let called = match how.as_str() {
        "too late" => {
            // Nobody has registered it.
            let nobody: Task<String, ()> = Task::new("nobody");
            context.call(nobody, &how).deadline(Duration::from_millis(50)).await
        }
        "nonsense" => context.call(FAIL, &how).niceness(99).await,
        _ => context.call(FAIL, &how).await,
    };
    Ok(match called {
        Err(CallError::Dead {
            name, reason, failure, ..
        }) => {
            assert_eq!(name, "fail.so");
            let word = match reason {
                DeadReason::Rejected => "rejected",
                DeadReason::Error => "error",
                _ => "other",
            };
            format!("{word}: {}", failure.message)
        }
        Err(CallError::Expired { .. }) => "expired".into(),
        Err(CallError::Refused { reason, message, .. }) => format!("{reason}: {message}"),
        other => format!("{other:?}"),
    })
}

async fn large(context: Context, bytes: usize) -> Result<usize, TaskError> {
    let text = "x".repeat(bytes);
    let turned = context.call(TURN, &text).await?;
    if turned != text {
        return Err(TaskError::terminal("it is another text"));
    }
    Ok(turned.len())
}

async fn impatient(context: Context, ms: u64) -> Result<String, TaskError> {
    let patience = Duration::from_millis(ms);
    match tokio::time::timeout(patience, context.call(GATE, &())).await {
        Ok(passed) => Ok(passed?),
        Err(_) => Ok("gave up".into()),
    }
}

async fn parent(context: Context, (n, fails): (u32, bool)) -> Result<(), TaskError> {
    context.spawn(CHILD, &n).on_success()?;
    if fails {
        return Err(TaskError::terminal("as asked"));
    }
    Ok(())
}

impl Here {
    fn all(url: &str, passed: &Arc<AtomicUsize>, open: &watch::Receiver<bool>) -> WorkerBuilder {
        let (passed, open) = (passed.clone(), open.clone());
        Worker::builder(url)
            .task(DOWN, down)
            .blocking(DOWN_BLOCKING, down_blocking)
            .task(ASK, async |context: Context, ()| Ok(context.call(GATE, &()).await?))
            .task(GATE, move |_, ()| {
                let (passed, mut open) = (passed.clone(), open.clone());
                async move {
                    passed.fetch_add(1, Ordering::Relaxed);
                    // A gate that is gone will not open: the run is dropped with its worker.
                    let _ = open.wait_for(|open| *open).await;
                    Ok("passed".to_owned())
                }
            })
            .task(CATCH, catch)
            .task(FAIL, async |_, how: String| match how.as_str() {
                "rejected" => Err(TaskError::rejected("not with me")),
                _ => Err(TaskError::terminal(how)),
            })
            .task(LARGE, large)
            .task(TURN, async |_, text: String| Ok(text))
            .task(IMPATIENT, impatient)
            .task(PARENT, parent)
    }

    async fn start(url: &str, slots: u32) -> Self {
        let (passed, children) = (Arc::default(), Arc::<std::sync::Mutex<BTreeMap<_, _>>>::default());
        let (gate, open) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let (registered, ready) = oneshot::channel();
        let ran = children.clone();
        let worker = Self::all(url, &passed, &open)
            .slots(slots)
            .task(CHILD, move |_, n| {
                *ran.lock().expect("no holder panics").entry(n).or_default() += 1;
                async { Ok(()) }
            })
            .on_ready(move |_| registered.send(()).expect("the test waits for it"));
        let running = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        within("the worker to be registered", PATIENCE, ready)
            .await
            .expect("it goes on");
        Self {
            passed,
            children,
            gate,
            stop: Some(stop),
            running,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let ended = within("the worker to drain", PATIENCE, &mut self.running).await;
        ended.expect("the worker does not panic").expect("the worker drains");
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn child_of(client: &Client, parent: TaskId) -> TaskId {
    eventually("the run to wait", PATIENCE, || async {
        let why = client.explain(parent).await.ok()?;
        why.details.get("waits_for")?.parse().ok()
    })
    .await
}

#[tokio::test]
async fn a_recursion_of_fifty_with_one_slot_comes_to_its_end() {
    let cluster = Cluster::start().await;
    let worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    for task in [DOWN, DOWN_BLOCKING] {
        let depth = within("the end of the recursion", PATIENCE, async {
            client.call(task, &50).await
        })
        .await;
        assert_eq!(depth.unwrap(), 50);
    }
    // Its slot is one again, and free.
    let workers = client.workers().await.unwrap();
    assert_eq!((workers[0].busy, workers[0].slots), (0, 1));
    worker.stop().await;
}

#[tokio::test]
async fn a_recursion_without_end_is_refused_at_its_limit() {
    let cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 2).await;
    let client = cluster.client().await;
    assert_eq!(client.call(DOWN, &MAX_CALL_DEPTH).await.unwrap(), MAX_CALL_DEPTH);
    let error = client.call(DOWN, &10_000).await.unwrap_err();
    let Error::Dead { failure, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        failure
            .message
            .contains("how deep calls may be within calls is at its limit of 100"),
        "{error}"
    );
    let queues = client.queues().await.unwrap();
    assert_eq!((queues[0].running, queues[0].ready), (0, 0));
}

#[tokio::test]
async fn how_a_called_task_ended_is_told() {
    let cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    for (how, said) in [
        ("rejected", "rejected: not with me"),
        ("it broke", "error: it broke"),
        ("too late", "expired"),
        (
            "nonsense",
            "INVALID_FIELD: options.niceness is 99, allowed are -20 to 20",
        ),
    ] {
        assert_eq!(client.call(CATCH, &how.to_owned()).await.unwrap(), said);
    }
}

#[tokio::test]
async fn large_values_go_both_ways() {
    let cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    for bytes in [0, 60_000, 70_000, 3_000_000] {
        assert_eq!(client.call(LARGE, &bytes).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_cancel_of_who_waits_cancels_what_it_waits_for() {
    let cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(ASK, &()).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    cluster.reaches(&client, child, State::Running).await;
    let why = client.explain(handle.id()).await.unwrap();
    assert!(
        why.message.contains("which it has called. Its slot is lent meanwhile."),
        "{why:?}"
    );
    assert_eq!(
        client.explain(child).await.unwrap().details["called_by"],
        handle.id().to_string()
    );
    handle.cancel().await.unwrap();
    cluster.reaches(&client, handle.id(), State::Cancelled).await;
    cluster.reaches(&client, child, State::Cancelled).await;
    // The attempt's own timeout does the same.
    let handle = client
        .enqueue(ASK, &())
        .timeout(Duration::from_millis(700))
        .await
        .unwrap();
    let child = child_of(&client, handle.id()).await;
    cluster.reaches(&client, handle.id(), State::Dead).await;
    cluster.reaches(&client, child, State::Cancelled).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_is_withdrawn() {
    let cluster = Cluster::start().await;
    let worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(IMPATIENT, &400).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    assert_eq!(handle.result().await.unwrap(), "gave up");
    cluster.reaches(&client, child, State::Cancelled).await;
    worker.gate.send_replace(true);
    assert_eq!(client.call(IMPATIENT, &30_000).await.unwrap(), "passed");
    let workers = client.workers().await.unwrap();
    assert_eq!(workers[0].busy, 0);
}

/// The answers find their way whatever becomes of the connection and the broker.
#[tokio::test]
async fn who_waits_outlives_cuts_and_a_kill_of_the_broker() {
    let mut cluster = Cluster::start().await;
    let proxy = Proxy::to(cluster.broker.address()).await;
    let worker = Here::start(&proxy.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(ASK, &()).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    cluster.reaches(&client, child, State::Running).await;
    proxy.cut();
    cluster.worker_becomes(&client, "lost").await;
    proxy.heal();
    cluster.worker_becomes(&client, "active").await;
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    cluster.worker_becomes(&client, "active").await;
    assert_eq!(child_of(&client, handle.id()).await, child);
    // It ends while nobody hears of it.
    proxy.cut();
    cluster.worker_becomes(&client, "lost").await;
    worker.gate.send_replace(true);
    proxy.heal();
    let said = within("the answer", PATIENCE, handle.result()).await.unwrap();
    assert_eq!(said, "passed");
    assert_eq!(worker.passed.load(Ordering::Relaxed), 1, "it ran once");
    for id in [handle.id(), child] {
        let shown = client.show(id).await.unwrap();
        assert_eq!((shown.attempt, shown.losses), (1, 0));
    }
}

#[tokio::test]
async fn a_broker_killed_in_the_middle_of_recursions_finishes_them() {
    let mut cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 2).await;
    let client = cluster.client().await;
    let mut handles = Vec::new();
    for _ in 0..20 {
        handles.push(client.enqueue(DOWN, &40).retries(5).await.unwrap());
    }
    for _ in 0..3 {
        let before = client.queues().await.map_or(0, |queues| queues[0].succeeded);
        eventually("some to be done", PATIENCE, || async {
            let queues = client.queues().await.ok()?;
            (queues[0].succeeded > before + 20).then_some(())
        })
        .await;
        cluster.broker.kill9().await;
        cluster.broker.restart().await;
    }
    for handle in &handles {
        assert_eq!(within("the end", 2 * PATIENCE, handle.result()).await.unwrap(), 40);
    }
    let queues = client.queues().await.unwrap();
    assert_eq!((queues[0].running, queues[0].ready, queues[0].scheduled), (0, 0, 0));
}

#[tokio::test]
async fn a_draining_worker_waits_for_what_its_runs_have_called() {
    let cluster = Cluster::start().await;
    let first = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(ASK, &()).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    cluster.reaches(&client, child, State::Running).await;
    first.gate.send_replace(true);
    first.stop().await;
    assert_eq!(handle.result().await.unwrap(), "passed");
    // What it calls while it drains runs elsewhere.
    let (gate, open) = watch::channel(false);
    let late: Task<(), String> = Task::new("late");
    let (stop, stopped) = oneshot::channel::<()>();
    let (registered, ready) = oneshot::channel();
    let draining = Worker::builder(&cluster.broker.url())
        .slots(1)
        .task(late, move |context: Context, ()| {
            let mut open = open.clone();
            async move {
                let _ = open.wait_for(|open| *open).await;
                Ok(context.call(TURN, &"around".to_owned()).await?)
            }
        })
        .on_ready(move |_| registered.send(()).expect("the test waits for it"));
    let running = tokio::spawn(draining.run_until(async { drop(stopped.await) }));
    ready.await.unwrap();
    let handle = client.enqueue(late, &()).await.unwrap();
    cluster.reaches(&client, handle.id(), State::Running).await;
    drop(stop);
    eventually("the worker to drain", PATIENCE, || async {
        let workers = client.workers().await.ok()?;
        workers.iter().any(|worker| worker.state == "draining").then_some(())
    })
    .await;
    gate.send_replace(true);
    let _other = Here::start(&cluster.broker.url(), 1).await;
    assert_eq!(within("the result", PATIENCE, handle.result()).await.unwrap(), "around");
    within("the end of the drain", PATIENCE, running)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_is_spawned_is_there_once_and_only_with_a_success() {
    let mut cluster = Cluster::start().await;
    let worker = Here::start(&cluster.broker.url(), 4).await;
    let client = cluster.client().await;
    let mut handles = Vec::new();
    for n in 0..300 {
        handles.push(client.enqueue(PARENT, &(n, n % 3 == 0)).await.unwrap());
        if n % 100 == 50 {
            cluster.broker.kill9().await;
            cluster.broker.restart().await;
        }
    }
    for (n, handle) in handles.iter().enumerate() {
        let ended = within("the end of a parent", PATIENCE, handle.result()).await;
        assert_eq!(ended.is_err(), n % 3 == 0, "{n}: {ended:?}");
    }
    let children = eventually("all to have ended", PATIENCE, || async {
        let queues = client.queues().await.ok()?;
        let queue = &queues[0];
        (queue.ready + queue.running + queue.scheduled == 0).then_some(queue.succeeded - 200)
    })
    .await;
    assert_eq!(children, 200, "one for each parent that succeeded");
    let ran = worker.children.lock().unwrap().clone();
    assert_eq!(ran.len(), 200);
    assert!(ran.keys().all(|n| n % 3 != 0), "of none that failed");
}

/// What is wrong with a spawned task fails its run, and no other.
#[tokio::test]
async fn a_spawned_task_that_cannot_be_fails_its_run() {
    let cluster = Cluster::start().await;
    let bad: Task<(), ()> = Task::new("bad");
    let (registered, ready) = oneshot::channel();
    let worker = Worker::builder(&cluster.broker.url())
        .slots(1)
        .task(bad, async |context: Context, ()| {
            let large = Payload::bytes("application/octet-stream", vec![7; 1_000_000]);
            context.spawn_raw("child", large.clone()).on_success()?;
            context.spawn_raw("child", large.clone()).on_success()?;
            let full = context.spawn_raw("child", large).on_success().unwrap_err();
            assert!(full.to_string().contains("at most 2097152 bytes"), "{full}");
            context.spawn(CHILD, &1).queue("no queue").on_success()?;
            Ok(())
        })
        .on_ready(move |_| registered.send(()).expect("the test waits for it"));
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    ready.await.unwrap();
    let client = cluster.client().await;
    for _ in 0..2 {
        let error = client.call(bad, &()).await.unwrap_err().to_string();
        assert!(
            error.contains("a task it spawns is refused: options.queue holds ' '"),
            "{error}"
        );
    }
    let tasks = cluster.json(&["task", "ls"]).await;
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 2);
    running.abort();
}
