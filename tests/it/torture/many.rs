//! Very many streams, each left after three items: nothing is left of them, neither in
//! the broker nor of the programs that some of them are.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use asynq_client::{Client, Payload};
use asynq_tests::{Cluster, PATIENCE, Process, eventually, get, memory, within};
use tokio::task::JoinSet;

use super::{ALL_DONE, connected, is_long};

/// At a time.
const READERS: u64 = 32;
const READ: usize = 3;
/// One of so many is a program.
const PROGRAMS: u64 = 50;
/// What a process may grow by from a tenth of the streams to all.
const DRIFT: u64 = 16 << 20;

const WORKER: &str = r#"
builtins = true
slots = 64

[task.lines]
kind = "exec"
cmd = ["seq", "1000000000"]
stdout = "lines"
"#;

async fn worker(cluster: &Cluster) -> Process {
    let file = cluster.broker.folder().join("worker.toml");
    let config = format!("broker = \"{}\"\n{WORKER}", cluster.broker.url());
    fs::write(&file, config).expect("the file can be written");
    let log = cluster.broker.folder().join("worker.log");
    let worker = Process::start("asynq-worker", ["--config".as_ref(), file.as_os_str()], log).await;
    worker.unwrap_or_else(|said| panic!("asynq-worker: {said}"))
}

/// Child processes of a process, the dead ones that nobody has reaped too.
fn children(pid: u32) -> usize {
    let parent = pid.to_string();
    let numbers = fs::read_dir("/proc").expect("the kernel tells").flatten();
    let stats = numbers.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let parents = stats.filter_map(|stat| Some(stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == parent));
    parents.filter(|is_its| *is_its).count()
}

async fn metric(cluster: &Cluster, name: &str) -> u64 {
    let (status, _, page) = get(cluster.broker.http(), "/metrics").await;
    assert_eq!(status, 200, "{page}");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).expect("a number")
}

async fn open_streams(cluster: &Cluster) -> u64 {
    metric(cluster, "asynq_streams_open").await
}

/// Opens a stream and reads a little of it.
async fn begin(client: &Client, name: &str) -> asynq_client::Items<Payload> {
    let args = Payload::bytes("application/json", r#"{"n":1000000000}"#);
    let mut items = client.iterate_raw(name, args).await.expect("the broker takes it");
    for _ in 0..READ {
        let item = within("an item", PATIENCE, items.try_next()).await;
        assert!(item.expect("good").is_some(), "it is endless");
    }
    items
}

/// Opens streams, as numbered, until so many are done.
async fn open_and_leave(client: &Client, next: &Arc<AtomicU64>, until: u64) {
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (client, next) = (client.clone(), next.clone());
        readers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= until {
                    return;
                }
                let name = if number % PROGRAMS == 0 { "lines" } else { "count" };
                let items = begin(&client, name).await;
                // Half of them are stopped, half of them just dropped.
                if (number / PROGRAMS).is_multiple_of(2) {
                    within("the stop", PATIENCE, items.stop()).await.expect("it is stopped");
                }
            }
        });
    }
    while let Some(ended) = readers.join_next().await {
        ended.expect("a reader does not fail");
    }
    next.store(until, Ordering::Relaxed);
}

#[tokio::test]
async fn nothing_is_left_of_streams_that_were_left() {
    let streams: u64 = if is_long() { 100_000 } else { 400 };
    let mut cluster = Cluster::start().await;
    let worker = worker(&cluster).await;
    let client = cluster.client().await;
    // A worker that runs programs has a process of its own that sees to their end.
    let own = children(worker.pid());
    // That they can be seen at all.
    let program = begin(&client, "lines").await;
    assert_eq!((open_streams(&cluster).await, children(worker.pid())), (1, own + 1));
    drop(program);

    let port = cluster.broker.address().port();
    let connections = connected(port);
    let next = Arc::new(AtomicU64::new(0));
    open_and_leave(&client, &next, streams / 10).await;
    let broker = cluster.broker.process().pid();
    let sizes = || [memory(broker), memory(worker.pid()), memory(std::process::id())];
    let before = sizes();
    open_and_leave(&client, &next, streams).await;
    eventually("nothing to be left", ALL_DONE, || async {
        (open_streams(&cluster).await == 0 && children(worker.pid()) == own).then_some(())
    })
    .await;
    let after = sizes();
    let lost = connections.difference(&connected(port)).count();
    let drift = |n: usize| (after[n] as i64 - before[n] as i64) >> 10;
    println!(
        "{streams} streams opened and left, {} of them programs: 0 open, 0 programs, {lost} of {} connections lost; from {} streams on \
         the broker has grown by {} KiB, the worker by {} KiB, the caller by {} KiB",
        streams.div_ceil(PROGRAMS),
        connections.len(),
        streams / 10,
        drift(0),
        drift(1),
        drift(2)
    );
    assert_eq!(lost, 0, "a connection was lost");
    for (who, (before, after)) in before.into_iter().zip(after).enumerate() {
        // The caller is this process, in which other tests run as well in the small size.
        assert!(
            after < before + DRIFT || (who == 2 && !is_long()),
            "from {before} to {after} bytes"
        );
    }
    let cancelled = metric(&cluster, r#"asynq_tasks_total{outcome="cancelled"}"#).await;
    assert_eq!(cancelled, streams + 1, "each was stopped, and nothing else");
}
