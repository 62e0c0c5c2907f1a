//! Why a task is where it is: the right reason for each prepared cause, and soon, however many are queued.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_client::{Client, TaskId};
use asynq_tests::journal::now;
use asynq_tests::{Cluster, PATIENCE, Process, Signal, WorkerHere, eventually, within};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Spread, dice, is_long};

const HOUR: &str = r#"{"ms":3600000}"#;
const CALLERS: usize = 8;
/// Enqueues each of them has in flight.
const IN_FLIGHT: usize = 256;
/// The goals of the broker with a million tasks queued.
const EXPLAINS: Duration = Duration::from_millis(10);
const SERVES: Duration = Duration::from_secs(2);

/// Waits until it is explained so, and gives all that is said.
async fn explained(cluster: &Cluster, id: &str, state: &str, reason: &str, detail: Option<&str>) -> Value {
    let said = eventually(&format!("{id} to be {reason}"), PATIENCE, || async move {
        let said = cluster.json(&["task", "explain", id]).await;
        let has_detail = detail.is_none_or(|detail| !said["details"][detail].is_null());
        (said["reason"] == reason && has_detail).then_some(said)
    })
    .await;
    assert_eq!((&said["id"], &said["state"]), (&id.into(), &state.into()), "{said}");
    said
}

/// A program that does not end when it is asked to.
const STUBBORN: &str = r#"
[task.stubborn]
kind = "exec"
cmd = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
"#;

#[tokio::test]
async fn each_prepared_cause_is_named() {
    let (mut cluster, worker) = Cluster::with_worker(1).await;
    let file = cluster.broker.folder().join("worker.toml");
    let url = cluster.broker.url();
    fs::write(
        &file,
        format!("broker = \"{url}\"\nname = \"exec\"\nslots = 1\n{STUBBORN}"),
    )
    .unwrap();
    let log = cluster.broker.folder().join("exec.log");
    let _exec = Process::start("asynq-worker", ["--config".as_ref(), file.as_os_str()], log).await;
    let enqueue = async |args: &[&str]| cluster.ok(&[&["enqueue"], args].concat()).await;

    // It fails, and waits longer each time: so long that it can be seen.
    let failing = enqueue(&["fail", r#"{"message":"no disk"}"#, "--retries", "20"]).await;
    let again = explained(&cluster, &failing, "scheduled", "not_due", Some("failure")).await;
    let later = enqueue(&["sleep", HOUR, "--delay", "1h"]).await;
    let not_due = explained(&cluster, &later, "scheduled", "not_due", None).await;
    cluster.ok(&["task", "cancel", &failing]).await;
    let finished = explained(&cluster, &failing, "cancelled", "finished", None).await;
    let unknown = enqueue(&["transcode"]).await;
    let no_worker = explained(&cluster, &unknown, "ready", "no_worker", None).await;
    let first = enqueue(&["sleep", HOUR]).await;
    let running = explained(&cluster, &first, "running", "running", Some("running_ms")).await;
    let next = enqueue(&["sleep", HOUR]).await;
    let no_free_slot = explained(&cluster, &next, "ready", "no_free_slot", Some("slots")).await;
    let last = enqueue(&["sleep", HOUR]).await;
    let behind = explained(&cluster, &last, "ready", "behind", Some("at_most_ahead")).await;
    assert_eq!(behind["details"]["at_most_ahead"], "1", "{behind}");
    let stubborn = enqueue(&["stubborn"]).await;
    explained(&cluster, &stubborn, "running", "running", None).await;
    cluster.ok(&["task", "cancel", &stubborn]).await;
    let stopping = explained(&cluster, &stubborn, "stopping", "stopping", None).await;
    let ended = cluster.run(&["task", "wait", &stubborn]).await;
    assert_eq!(ended.code, Some(5), "{}", ended.err);

    // A worker that cannot come back, once with the broker there, once after its restart.
    worker.signal(Signal::STOP);
    let cut_off = explained(&cluster, &first, "running", "resuming", Some("given_up_ms")).await;
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    let resuming = explained(&cluster, &first, "running", "resuming", Some("given_up_ms")).await;
    worker.signal(Signal::CONT);
    explained(&cluster, &first, "running", "running", None).await;

    for (said, words) in [
        (&again, &["Attempt ", "no disk", "tried again in"][..]),
        (&not_due, &["start later"]),
        (&finished, &["cancelled"]),
        (&no_worker, &["transcode"]),
        (&running, &["worker-1", "attempt 1"]),
        (&no_free_slot, &["all 1 slots"]),
        (&behind, &["at most 1 tasks"]),
        (&stopping, &["exec", "told to stop", "it was cancelled"]),
        (&cut_off, &["worker-1", "has no connection"]),
        (&resuming, &["worker-1", "since the broker restarted"]),
    ] {
        let message = said["message"].as_str().expect("a sentence");
        assert!(
            message.ends_with('.') && words.iter().all(|word| message.contains(word)),
            "{words:?}: {said}"
        );
    }
}

/// Has so many tasks queued, in a hundred series.
async fn fill(cluster: &Cluster, tasks: u64) -> Vec<TaskId> {
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = cluster.client().await;
        for _ in 0..IN_FLIGHT {
            let (client, next) = (client.clone(), next.clone());
            callers.spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= tasks {
                        return ids;
                    }
                    let enqueue = client.enqueue(WorkerHere::HELD, &());
                    let enqueue = enqueue
                        .series(format!("series-{}", number % 100))
                        .niceness(number as i32 % 41 - 20);
                    ids.push(enqueue.await.expect("it is accepted").id());
                }
            });
        }
    }
    callers.join_all().await.into_iter().flatten().collect()
}

/// How long it takes to be told why, for any thousand of these.
async fn explain(client: &Client, ids: &[TaskId], dice: &mut asynq_tests::dice::Dice) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..1_000 {
        let id = ids[dice.index(ids.len())];
        let asked = now();
        let said = client.explain(id).await.expect("it is known");
        took.push(now() - asked);
        assert!(matches!(said.reason.as_str(), "behind" | "no_free_slot"), "{said:?}");
    }
    took.sort();
    took
}

/// How long a process has been on a processor.
fn on_processor(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux counts it");
    let (_, after_name) = stat.rsplit_once(") ").expect("the name is in brackets");
    // Of itself and for it by the system, in ticks of 10 ms.
    let ticks = after_name.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|number| number.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

#[tokio::test]
async fn with_a_million_queued_it_serves_again_and_explains_at_once() {
    let (tasks, kills) = if is_long() { (1_000_000, 5) } else { (20_000, 1) };
    let mut dice = dice("a million");
    let mut cluster = Cluster::start().await;
    let worker = WorkerHere::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let held = client.enqueue(WorkerHere::HELD, &()).await.unwrap();
    cluster.reaches(&client, held.id(), asynq_client::State::Running).await;
    let begun = now();
    let ids = fill(&cluster, tasks).await;
    println!("{tasks} tasks queued in {:.1?}", now() - begun);
    let before = explain(&client, &ids, &mut dice).await;

    let (mut serving, mut opened, mut worked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..kills {
        cluster.broker.kill9().await;
        let begun = now();
        cluster.broker.restart().await;
        opened.push(now() - begun);
        worked.push(on_processor(cluster.broker.process().pid()));
        let fresh = cluster.client().await;
        let enqueue = fresh.enqueue(WorkerHere::HELD, &());
        within("an answer after a restart", PATIENCE, enqueue.into_future())
            .await
            .unwrap();
        serving.push(now() - begun);
        // Killed again before that, it may not hear of a broker for the length of its lease.
        cluster.worker_becomes(&client, "active").await;
        let queue = client.queues().await.unwrap().pop().expect("there is a queue");
        assert_eq!(
            queue.ready + queue.running,
            tasks + 1 + serving.len() as u64,
            "tasks were lost"
        );
    }
    cluster.reaches(&client, held.id(), asynq_client::State::Running).await;
    eventually("the recovery to end", PATIENCE, || async {
        let said = client.explain(ids[0]).await.ok()?;
        (said.reason != "resuming").then_some(())
    })
    .await;
    let after = explain(&client, &ids, &mut dice).await;
    assert_eq!(worker.runs().len(), 1, "the run went on through {kills} kills");
    println!(
        "{kills} kills with {tasks} queued: 0 lost; ready again: {}",
        Spread(opened)
    );
    println!("from the start of the broker to an answer: {}", Spread(serving.clone()));
    println!("explained, from the caller and back: {}", Spread(before.clone()));
    println!("after the restarts: {}", Spread(after.clone()));
    // What ships is judged, and not beside other tests: then the machine is too busy.
    if is_long() && !cfg!(debug_assertions) {
        assert!(serving.iter().all(|&serves| serves < SERVES), "{serving:?}");
        for took in [before, after] {
            assert!(took[took.len() * 99 / 100] < EXPLAINS, "{}", Spread(took));
        }
    }
}
