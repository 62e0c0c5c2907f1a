//! SIGTERM: what was begun is finished, and the end comes in time whoever is silent.

use std::time::Duration;

use asynq_client::State;
use asynq_tests::{Cluster, Ended, PATIENCE, Process, Signal, WorkerHere, eventually, within};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The beginning of an HTTP/2 connection whose other end is never heard of again.
const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Waits until a process has logged this.
async fn logs(process: &Process, what: &str) {
    eventually(&format!("{what:?} in the log"), PATIENCE, || async {
        process.log().contains(what).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_finishes_what_it_runs_and_takes_nothing_new() {
    let (cluster, mut worker) = Cluster::with_worker(2).await;
    let client = cluster.client().await;
    let id = cluster.ok(&["enqueue", "sleep", r#"{"ms":1500}"#]).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    worker.signal(Signal::TERM);
    cluster.worker_becomes(&client, "draining").await;
    let new = cluster.ok(&["enqueue", "echo"]).await;

    let status = worker.end(PATIENCE).await;
    assert_eq!(status.code(), Some(0));
    let done = cluster.json(&["task", "show", &id]).await;
    assert_eq!(
        (&done["state"], &done["attempt"], &done["losses"]),
        (&json!("succeeded"), &json!(1), &json!(0))
    );
    eventually("its session to be over", PATIENCE, || async {
        client.workers().await.unwrap().is_empty().then_some(())
    })
    .await;
    let left = cluster.json(&["task", "explain", &new]).await;
    assert_eq!(
        (&left["state"], &left["reason"]),
        (&json!("ready"), &json!("no_worker"))
    );
}

#[tokio::test]
async fn a_worker_whose_time_is_up_gives_its_runs_back() {
    let mut cluster = Cluster::start().await;
    let url = cluster.broker.url();
    let args = ["--broker", &url, "--builtins", "--slots", "1", "--drain-timeout", "1s"];
    let log = cluster.broker.folder().join("short.log");
    let mut worker = Process::start("asynq-worker", args, log).await.unwrap();
    let client = cluster.client().await;
    let id = cluster.ok(&["enqueue", "sleep", r#"{"ms":3000}"#]).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    worker.stop(PATIENCE).await;
    let shown = cluster.json(&["task", "show", &id]).await;
    assert_eq!(
        (&shown["state"], &shown["releases"], &shown["losses"]),
        (&json!("ready"), &json!(1), &json!(0))
    );
    let _other = cluster.worker(1).await;
    assert_eq!(cluster.ok(&["task", "wait", &id]).await, "null");
}

#[tokio::test]
async fn a_worker_exits_at_once_on_a_second_signal() {
    let (cluster, mut worker) = Cluster::with_worker(1).await;
    let client = cluster.client().await;
    let id = cluster.ok(&["enqueue", "sleep", r#"{"ms":3600000}"#]).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    worker.signal(Signal::TERM);
    cluster.worker_becomes(&client, "draining").await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.end(Duration::from_secs(5)).await.code(), Some(1));
}

#[tokio::test]
async fn a_broker_ends_in_time_with_silent_peers_and_open_sessions() {
    let mut cluster = Cluster::start().await;
    let worker = WorkerHere::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(WorkerHere::HELD, &()).await.unwrap();
    cluster.reaches(&client, handle.id(), State::Running).await;
    let waiter = cluster.spawn(&["task", "wait", &handle.id().to_string()]);
    let _silent = TcpStream::connect(cluster.broker.address()).await.unwrap();
    let mut half_silent = TcpStream::connect(cluster.broker.address()).await.unwrap();
    half_silent.write_all(PREFACE_AND_SETTINGS).await.unwrap();
    // Long after the connections above were accepted.
    cluster.ok(&["queue", "ls"]).await;

    cluster.broker.stop().await;
    // Everybody comes back to the next one, and the run was not disturbed.
    cluster.broker.restart().await;
    worker.open_the_gate();
    let run = within("the result", PATIENCE, handle.result()).await.unwrap();
    assert_eq!(worker.runs()[&uuid::Uuid::from_bytes(*handle.id().as_bytes())], [run]);
    let Ended { code, out, err } = Ended::of(waiter).await;
    assert_eq!((code, out), (Some(0), format!("{run}\n")), "{err}");
}

#[tokio::test]
async fn a_broker_exits_at_once_on_a_second_signal() {
    let mut cluster = Cluster::start().await;
    let mut silent = TcpStream::connect(cluster.broker.address()).await.unwrap();
    silent.write_all(PREFACE_AND_SETTINGS).await.unwrap();
    cluster.ok(&["queue", "ls"]).await;
    cluster.broker.signal(Signal::TERM);
    logs(cluster.broker.process(), "another one stops at once").await;
    let asked = Instant::now();
    cluster.broker.signal(Signal::TERM);
    assert_eq!(cluster.broker.process().end(PATIENCE).await.code(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_worker_does_not_mind_a_hangup() {
    let (cluster, mut worker) = Cluster::with_worker(1).await;
    worker.signal(Signal::HUP);
    assert_eq!(cluster.ok(&["call", "echo", "1"]).await, "1");
    worker.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_broker_does_not_mind_a_hangup() {
    let mut cluster = Cluster::start().await;
    cluster.broker.signal(Signal::HUP);
    cluster.ok(&["queue", "ls"]).await;
    cluster.broker.stop().await;
}
