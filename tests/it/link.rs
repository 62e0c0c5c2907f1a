//! Workers that are lost for a while: cut off, silent, stopped. Their runs go on.

use asynq_client::{Client, Handle, State};
use asynq_core::limits::{LEASE, RESET_GRACE};
use asynq_tests::{Cluster, Ended, PATIENCE, Proxy, Signal, WorkerHere, eventually, within};
use uuid::Uuid;

#[tokio::test]
async fn a_run_outlives_cuts_of_its_workers_connection() {
    let cluster = Cluster::start().await;
    let proxy = Proxy::to(cluster.broker.address()).await;
    let worker = WorkerHere::start(&proxy.url(), 2).await;
    let client = cluster.client().await;
    let handles = [
        client.enqueue(WorkerHere::HELD, &()).await.unwrap(),
        client.enqueue(WorkerHere::HELD, &()).await.unwrap(),
    ];
    for handle in &handles {
        cluster.reaches(&client, handle.id(), State::Running).await;
    }
    for _ in 0..2 {
        proxy.cut();
        cluster.worker_becomes(&client, "lost").await;
        proxy.heal();
        cluster.worker_becomes(&client, "active").await;
    }
    // What ends while nobody hears of it counts all the same.
    proxy.cut();
    cluster.worker_becomes(&client, "lost").await;
    worker.open_the_gate();
    worker.has_ended(2, PATIENCE).await;
    proxy.heal();
    ran_once(&client, &worker, &handles).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_run_outlives_a_silence_of_the_network() {
    let cluster = Cluster::start().await;
    let proxy = Proxy::to(cluster.broker.address()).await;
    let worker = WorkerHere::start(&proxy.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(WorkerHere::HELD, &()).await.unwrap();
    cluster.reaches(&client, handle.id(), State::Running).await;
    proxy.silence();
    cluster.worker_becomes(&client, "lost").await;
    proxy.heal();
    cluster.worker_becomes(&client, "active").await;
    worker.open_the_gate();
    ran_once(&client, &worker, &[handle]).await;
    worker.stop().await;
}

async fn ran_once(client: &Client, worker: &WorkerHere, handles: &[Handle<u64>]) {
    for handle in handles {
        let run = within("the result", PATIENCE, handle.result()).await.unwrap();
        assert_eq!(worker.runs()[&Uuid::from_bytes(*handle.id().as_bytes())], [run]);
        let shown = client.show(handle.id()).await.unwrap();
        assert_eq!((shown.attempt, shown.losses), (1, 0));
    }
}

#[tokio::test]
async fn a_worker_that_was_stopped_for_a_moment_goes_on() {
    let (cluster, worker) = Cluster::with_worker(1).await;
    let client = cluster.client().await;
    let id = cluster.ok(&["enqueue", "sleep", r#"{"ms":5000}"#]).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    worker.signal(Signal::STOP);
    cluster.worker_becomes(&client, "lost").await;
    // It was silent, not cut off: its lease counts, not the grace of a reset.
    let why = client.explain(id.parse().unwrap()).await.unwrap();
    let given_up: u128 = why.details["given_up_ms"].parse().unwrap();
    assert!(given_up > RESET_GRACE.as_millis(), "{why:?}");
    worker.signal(Signal::CONT);
    cluster.worker_becomes(&client, "active").await;
    assert_eq!(cluster.ok(&["task", "wait", &id]).await, "null");
    let shown = client.show(id.parse().unwrap()).await.unwrap();
    assert_eq!((shown.attempt, shown.losses), (1, 0));
}

#[tokio::test]
async fn a_worker_that_was_stopped_for_too_long_is_fenced() {
    let (mut cluster, worker) = Cluster::with_worker(1).await;
    let client = cluster.client().await;
    let id = cluster.ok(&["enqueue", "sleep", r#"{"ms":1000}"#]).await;
    cluster.reaches(&client, id.parse().unwrap(), State::Running).await;
    worker.signal(Signal::STOP);
    let _other = cluster.worker(1).await;
    // The bound holds whether silence is given the grace or the whole lease.
    eventually("the other worker to have done it", LEASE + PATIENCE, || async {
        let shown = client.show(id.parse().unwrap()).await.unwrap();
        (shown.state == State::Succeeded).then_some(())
    })
    .await;
    let before = client.show(id.parse().unwrap()).await.unwrap();
    assert_eq!((before.attempt, before.losses), (2, 1));
    worker.signal(Signal::CONT);
    // It comes back, what it has to say of the task changes nothing, and it serves on.
    eventually("both workers to serve", PATIENCE, || async {
        let workers = client.workers().await.unwrap();
        (workers.iter().filter(|worker| worker.state == "active").count() == 2).then_some(())
    })
    .await;
    let naps = [
        cluster.spawn(&["call", "sleep", r#"{"ms":500}"#]),
        cluster.spawn(&["call", "sleep", r#"{"ms":500}"#]),
    ];
    eventually("both workers to be busy", PATIENCE, || async {
        let workers = client.workers().await.unwrap();
        workers.iter().all(|worker| worker.busy == 1).then_some(())
    })
    .await;
    for nap in naps {
        assert_eq!(Ended::of(nap).await.code, Some(0));
    }
    assert_eq!(client.show(id.parse().unwrap()).await.unwrap(), before);
}
