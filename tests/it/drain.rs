//! SIGTERM: what was begun is finished, and the end comes in time whoever is silent.

use std::net::SocketAddr;
use std::time::Duration;

use asynq_client::{Payload, State};
use asynq_proto::v1;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_tests::{Cluster, Ended, PATIENCE, Process, Signal, WorkerHere, eventually, within};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;

/// The beginning of an HTTP/2 connection whose other end is never heard of again.
const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// The beginning of a HEADERS frame for stream 1 whose end is never sent.
const BEGUN_HEADERS: &[u8] = b"\x00\x00\x40\x01\x04\x00\x00\x00\x01\x83\x86";

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
    let args = ["--broker", &url, "--builtins", "--slots", "2", "--drain-timeout", "3s"];
    let log = cluster.broker.folder().join("short.log");
    let mut worker = Process::start("asynq-worker", args, log).await.unwrap();
    let client = cluster.client().await;
    let id = cluster.ok(&["enqueue", "sleep", r#"{"ms":5000}"#]).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    let once = ["enqueue", "sleep", r#"{"ms":60000}"#, "--at-most-once"];
    let once = cluster.ok(&once).await;
    cluster.reaches(&client, once.parse().unwrap(), State::Running).await;
    worker.stop(PATIENCE).await;
    // What must not begin twice cannot be given back.
    let shown = cluster.json(&["task", "show", &once]).await;
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&json!("dead"), &json!("worker_lost"))
    );
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

/// Connects and says this, and then nothing.
async fn says(address: SocketAddr, what: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(address).await.unwrap();
    peer.write_all(what).await.unwrap();
    peer
}

/// SIGTERM; gives how long the broker took to exit with 0.
async fn drains(cluster: &mut Cluster) -> Duration {
    let asked = Instant::now();
    cluster.broker.stop().await;
    asked.elapsed()
}

/// What interface.md promises.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_broker_ends_in_time_with_silent_peers_and_a_hundred_streams() {
    const STREAMS: usize = 50;
    let mut cluster = Cluster::start().await;
    let _worker = cluster.worker(2 * STREAMS as u32).await;
    let address = cluster.broker.address();
    let begun_headers = [PREFACE_AND_SETTINGS, BEGUN_HEADERS].concat();
    let mut silent = Vec::new();
    // Not a word; the beginning of TLS, which is not spoken here; a handshake
    // and no more; a call whose headers never end.
    for beginning in [b"", b"\x16\x03\x01" as &[u8], PREFACE_AND_SETTINGS, &begun_headers] {
        silent.push(says(address, beginning).await);
    }

    let mut stalled = Vec::new();
    let mut busy = JoinSet::new();
    let (sender, mut read) = mpsc::channel(1);
    for _ in 0..5 {
        let client = cluster.client().await;
        for _ in 0..STREAMS / 5 {
            let endless = Payload::bytes("application/json", r#"{"n":1000000000,"bytes":1000}"#);
            let mut items = client.iterate_raw("count", endless).window(100).await.unwrap();
            within("an item", PATIENCE, items.next()).await.unwrap().unwrap();
            stalled.push((client.clone(), items));
            let slow = Payload::bytes("application/json", r#"{"n":1000000000,"delay_us":5000}"#);
            let mut items = client.iterate_raw("count", slow).await.unwrap();
            let sender = sender.clone();
            busy.spawn(async move {
                let mut count = 0;
                while let Some(Ok(_)) = items.next().await {
                    count += 1;
                    if count == 10 {
                        sender.send(()).await.unwrap();
                    }
                }
                count
            });
        }
    }
    for _ in 0..STREAMS {
        within("each reader to read", PATIENCE, read.recv()).await.unwrap();
    }
    for (client, items) in &stalled {
        eventually("the generator to wait for credit", PATIENCE, || async {
            let why = client.explain(items.id()).await.unwrap();
            (why.details.get("blocked_on").map(String::as_str) == Some("credit")).then_some(())
        })
        .await;
    }

    let took = drains(&mut cluster).await;
    println!("with 4 silent peers, 50 stalled streams and 50 busy ones: drained in {took:?}");
    assert!(took < DRAIN_TIMEOUT, "{took:?}");
    // Who reads waits for the next broker: no stream has ended.
    assert!(busy.try_join_next().is_none());
    busy.shutdown().await;
}

/// One that answers pings, and leaves its stream unread.
#[tokio::test]
async fn a_broker_ends_in_time_with_a_peer_that_does_not_read() {
    let (mut cluster, _worker) = Cluster::with_worker(1).await;
    let endpoint = Endpoint::from_shared(cluster.broker.url()).unwrap();
    let mut tasks = TasksClient::new(endpoint.connect().await.unwrap());
    let args = v1::Payload {
        data: r#"{"n":1000000000,"bytes":10000}"#.into(),
        ..Default::default()
    };
    let request = v1::IterateRequest {
        task: Some(v1::EnqueueRequest {
            name: "count".into(),
            payload: Some(args),
            ..Default::default()
        }),
        consumer_id: vec![1; 16].into(),
        auto_ack: true,
        ..Default::default()
    };
    let unread = tasks.iterate(request).await.unwrap();
    let client = cluster.client().await;
    eventually("it to be stalled", PATIENCE, || async {
        let why = client.explain(client.tasks().await.unwrap().tasks[0].id).await.unwrap();
        (why.details.get("blocked_on").map(String::as_str) == Some("credit")).then_some(())
    })
    .await;
    let took = drains(&mut cluster).await;
    println!("with a peer that does not read: drained in {took:?}");
    assert!(took < DRAIN_TIMEOUT, "{took:?}");
    drop(unread);
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
