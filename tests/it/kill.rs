//! kill −9 of broker and workers: what was acknowledged ends, once.
//!
//! `ASYNQ_TORTURE=1` (`make torture`) runs the same with more tasks and kills.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use asynq_client::{Client, Handle, Payload, QueueInfo, State, TaskId};
use asynq_core::limits::{CLAIM_AFTER, LEASE, RESET_GRACE, RESUME_GRACE};
use asynq_tests::{Cluster, PATIENCE, WorkerHere, eventually, within};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Runs that go on through every kill.
const HELD: usize = 8;
const CALLERS: usize = 8;
/// Operations each caller has in flight.
const IN_FLIGHT: usize = 32;
/// The bound on the end of everything, from the last restart.
const ALL_DONE: Duration = LEASE.saturating_add(Duration::from_secs(5));

struct Size {
    tasks: usize,
    kills: usize,
    /// What each task takes, in ms.
    task_ms: u64,
    /// For what takes the longer the more tasks there are.
    patience: Duration,
}

fn size() -> Size {
    match std::env::var_os("ASYNQ_TORTURE") {
        Some(yes) if yes == "1" => Size {
            tasks: 100_000,
            kills: 5,
            task_ms: 0,
            patience: 10 * PATIENCE,
        },
        _ => Size {
            tasks: 2_000,
            kills: 3,
            task_ms: 2,
            patience: PATIENCE,
        },
    }
}

fn uuid(id: TaskId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// Enqueues from several connections at a time; the SDK resends what a kill
/// leaves unanswered. Counts what is acknowledged.
async fn callers(cluster: &Cluster, size: &Size, acknowledged: &Arc<AtomicUsize>) -> JoinSet<Vec<Handle<u64>>> {
    let mut callers = JoinSet::new();
    let &Size { tasks, task_ms, .. } = size;
    let streams = CALLERS * IN_FLIGHT;
    for caller in 0..CALLERS {
        let client = cluster.client().await;
        for stream in 0..IN_FLIGHT {
            let (client, acknowledged) = (client.clone(), acknowledged.clone());
            let share = (caller * IN_FLIGHT + stream..tasks).step_by(streams);
            callers.spawn(async move {
                let mut handles = Vec::with_capacity(share.len());
                for _ in share {
                    let enqueue = client
                        .enqueue(WorkerHere::QUICK, &task_ms)
                        .series(format!("caller-{caller}"));
                    handles.push(enqueue.await.expect("the SDK gets over a restart"));
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                handles
            });
        }
    }
    callers
}

/// Waits for the results of all, in the order of the handles.
async fn results(handles: &[Handle<u64>], deadline: Instant) -> Vec<u64> {
    let mut waiting = JoinSet::new();
    for share in handles.chunks(handles.len().div_ceil(CALLERS * IN_FLIGHT)) {
        let share = share.to_vec();
        waiting.spawn(async move {
            let mut results = Vec::with_capacity(share.len());
            for handle in &share {
                let result = timeout_at(deadline, handle.result()).await;
                let result = result.unwrap_or_else(|_| panic!("{} has not ended in time", handle.id()));
                results.push((handle.id(), result.expect("it succeeds")));
            }
            results
        });
    }
    let by_id: HashMap<_, _> = waiting.join_all().await.into_iter().flatten().collect();
    handles.iter().map(|handle| by_id[&handle.id()]).collect()
}

#[tokio::test]
async fn what_a_broker_acknowledged_survives_its_kills() {
    let size = size();
    let Size {
        tasks, kills, patience, ..
    } = size;
    let mut cluster = Cluster::start().await;
    let worker = WorkerHere::start(&cluster.broker.url(), HELD as u32).await;
    let client = cluster.client().await;
    let mut handles = Vec::new();
    for _ in 0..HELD {
        handles.push(client.enqueue(WorkerHere::HELD, &()).await.unwrap());
    }
    eventually("the held runs to begin", PATIENCE, || async {
        (worker.runs().len() == HELD).then_some(())
    })
    .await;

    // The first kill hits while enqueues are on their way …
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let callers = callers(&cluster, &size, &acknowledged).await;
    eventually("half of the enqueues", patience, || async {
        (acknowledged.load(Ordering::Relaxed) >= tasks / 2).then_some(())
    })
    .await;
    let mut restarts = vec![kill_and_restart(&mut cluster, &client).await];
    handles.extend(
        within("all enqueues", patience, callers.join_all())
            .await
            .into_iter()
            .flatten(),
    );
    assert_eq!(handles.len(), tasks + HELD);

    // … the next ones with a full queue and every slot taken …
    for _ in 1..kills - 1 {
        let queue = the_queue(&client).await;
        assert_eq!((queue.ready, queue.running), (tasks as u64, HELD as u64));
        restarts.push(kill_and_restart(&mut cluster, &client).await);
    }
    // … and the last one while it runs empty.
    worker.open_the_gate();
    worker.has_ended((HELD + tasks / 4) as u64, patience).await;
    let restarted = Instant::now();
    restarts.push(kill_and_restart(&mut cluster, &client).await);
    let left = handles.len() as u64 - the_queue(&client).await.succeeded;

    let first = results(&handles, restarted + ALL_DONE).await;
    let took = restarted.elapsed();
    let again = results(&handles, Instant::now() + patience).await;
    assert_eq!(first, again, "a result changed: a second completion was accepted");
    let runs = worker.runs();
    for (handle, run) in handles.iter().zip(&first) {
        assert!(
            runs[&uuid(handle.id())].contains(run),
            "{}: a result of no run",
            handle.id()
        );
    }
    assert_eq!(runs.len(), handles.len(), "a task was run that nobody enqueued");
    // They ran longer than 50 ms, so they were claimed.
    for handle in &handles[..HELD] {
        let runs = &runs[&uuid(handle.id())];
        assert_eq!(runs.len(), 1, "{} ran through the kills and was run again", handle.id());
    }
    // Nor are the short ones whose worker was back in time to name them.
    let twice = runs.values().filter(|runs| runs.len() > 1).count();
    if restarts.iter().all(|restart| restart.worker_back < RESUME_GRACE) {
        assert_eq!(
            twice, 0,
            "tasks were run again, though their worker was back: {restarts:?}"
        );
    }
    let queue = the_queue(&client).await;
    assert_eq!(
        [queue.scheduled, queue.ready, queue.running, queue.succeeded, queue.dead],
        [0, 0, 0, handles.len() as u64, 0]
    );
    println!(
        "{} tasks acknowledged, {kills} kills: {} ended as one completion each, {twice} were run twice; the last {left} \
         were done {took:.1?} after the last kill; ready again after {:.0?}, with the worker back after {:.0?}",
        handles.len(),
        first.len(),
        restarts.iter().map(|restart| restart.ready).collect::<Vec<_>>(),
        restarts.iter().map(|restart| restart.worker_back).collect::<Vec<_>>(),
    );
    worker.stop().await;
}

async fn the_queue(client: &Client) -> QueueInfo {
    let queues = client.queues().await.unwrap();
    queues.into_iter().next().expect("the broker has lost all its tasks")
}

/// How long after its start a broker was ready, and had its worker back.
#[derive(Debug)]
struct Restart {
    ready: Duration,
    worker_back: Duration,
}

async fn kill_and_restart(cluster: &mut Cluster, client: &Client) -> Restart {
    cluster.broker.kill9().await;
    let begun = Instant::now();
    cluster.broker.restart().await;
    let ready = begun.elapsed();
    cluster.worker_becomes(client, "active").await;
    Restart {
        ready,
        worker_back: begun.elapsed(),
    }
}

#[tokio::test]
async fn what_a_killed_worker_ran_is_run_elsewhere() {
    let (mut cluster, mut worker) = Cluster::with_worker(2).await;
    let client = cluster.client().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(cluster.ok(&["enqueue", "sleep", r#"{"ms":1000}"#]).await);
    }
    for id in &ids {
        cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    }
    worker.kill9().await;
    let killed = Instant::now();
    let _other = cluster.worker(2).await;
    for id in &ids {
        assert_eq!(cluster.ok(&["task", "wait", id]).await, "null");
        let shown = cluster.json(&["task", "show", id]).await;
        assert_eq!(
            (&shown["attempt"], &shown["losses"], &shown["failures"]),
            (&json!(2), &json!(1), &json!(0))
        );
    }
    assert!(killed.elapsed() > RESET_GRACE, "it might have come back until then");
}

#[tokio::test]
async fn what_must_not_begin_twice_dies_with_its_worker() {
    let (mut cluster, mut worker) = Cluster::with_worker(1).await;
    let client = cluster.client().await;
    let nap = ["enqueue", "sleep", r#"{"ms":1000}"#, "--at-most-once"];
    let id = cluster.ok(&nap).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    worker.kill9().await;
    let _other = cluster.worker(1).await;
    // It might go on behind a broken network: until the lease ends nobody knows better.
    eventually("its lease to end", LEASE + PATIENCE, || async {
        let shown = client.show(id.parse().unwrap()).await.unwrap();
        (shown.state == State::Dead).then_some(())
    })
    .await;
    let ended = cluster.run(&["task", "wait", &id]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("must not begin twice"), "{}", ended.err);
    let shown = cluster.json(&["task", "show", &id]).await;
    assert_eq!(
        (&shown["reason"], &shown["attempt"]),
        (&json!("worker_lost"), &json!(1))
    );
    // Where nobody dies it is a task like any other.
    assert_eq!(cluster.ok(&["call", "echo", "7", "--at-most-once"]).await, "7");
}

#[tokio::test]
async fn what_broker_and_worker_took_along_is_run_within_a_lease_of_the_restart() {
    let (mut cluster, mut worker) = Cluster::with_worker(2).await;
    let client = cluster.client().await;
    let enqueue = async || {
        let nap = Payload::json(&json!({"ms": 2000})).unwrap();
        client.enqueue_raw("sleep", nap).await.unwrap()
    };
    // Two that run, long enough for a claim …
    let claimed = [enqueue().await, enqueue().await];
    for handle in &claimed {
        eventually("the run to be claimed", PATIENCE, || async {
            let details = client.explain(handle.id()).await.unwrap().details;
            let ran = Duration::from_millis(details.get("running_ms")?.parse().unwrap());
            (ran > 2 * CLAIM_AFTER).then_some(())
        })
        .await;
    }
    // … which is written with the next enqueue, and that one waits.
    let queued = enqueue().await;
    cluster.broker.kill9().await;
    worker.kill9().await;
    let killed = Instant::now();
    cluster.broker.restart().await;
    let _other = cluster.worker(2).await;
    for handle in &claimed {
        assert_eq!(client.explain(handle.id()).await.unwrap().reason, "resuming");
    }
    for (handle, attempt) in [(&queued, 1), (&claimed[0], 2), (&claimed[1], 2)] {
        let left = (killed + ALL_DONE).duration_since(Instant::now());
        let result = within("the end within a lease of the restart", left, handle.result()).await;
        assert_eq!(result.unwrap(), Payload::null());
        let shown = client.show(handle.id()).await.unwrap();
        // A restart of the broker counts no loss.
        assert_eq!((shown.attempt, shown.losses), (attempt, 0));
    }
    assert!(killed.elapsed() > LEASE, "the worker might have come back until then");
}
