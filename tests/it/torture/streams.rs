//! Streams whose caller is cut off, whose broker is killed, whose workers are killed:
//! each item comes once, in order, with its content.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use asynq_client::{Client, Items, Payload, TaskId};
use asynq_tests::dice::Dice;
use asynq_tests::{Cluster, Ended, Fault, PATIENCE, Proxy, eventually, within};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::StreamExt;

use super::{ALL_DONE, Spread, dice, is_long};

/// Streams at a time, where brokers and workers are killed.
const STREAMS: usize = 8;

async fn count(client: &Client, args: String) -> Items<Payload> {
    let args = Payload::bytes("application/json", args);
    client.iterate_raw("count", args).await.expect("the broker takes it")
}

/// The index of an item, which must be what `count` makes of it.
fn index(item: &Payload, pad: usize) -> u64 {
    let item: serde_json::Value = item.decode().expect("JSON");
    if pad > 0 {
        assert_eq!(item["pad"].as_str().map(str::len), Some(pad), "another content");
    }
    item["i"].as_u64().expect("an index")
}

/// Reads a stream to its end; `read` tells how far it has come.
async fn read(mut items: Items<Payload>, n: u64, pad: usize, read: Arc<AtomicU64>) {
    for due in 0..n {
        let item = within("an item", ALL_DONE, items.next()).await.expect("an item");
        let item = item.unwrap_or_else(|error| panic!("item {due} of {}: {error}", items.id()));
        assert_eq!(index(&item, pad), due, "lost, twice or out of order");
        read.fetch_add(1, Ordering::Relaxed);
    }
    let end = within("the end", ALL_DONE, items.next()).await;
    assert!(end.is_none(), "{end:?}");
}

/// Streams of the cluster, read at the same time.
struct Reading {
    tasks: Vec<TaskId>,
    readers: JoinSet<()>,
    read: Arc<AtomicU64>,
}

impl Reading {
    async fn begin(client: &Client, n: u64, delay_us: u64) -> Self {
        let (mut tasks, mut readers, so_far) = (Vec::new(), JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for _ in 0..STREAMS {
            let items = count(client, format!(r#"{{"n":{n},"bytes":100,"delay_us":{delay_us}}}"#)).await;
            tasks.push(items.id());
            readers.spawn(read(items, n, 100, so_far.clone()));
        }
        Self {
            tasks,
            readers,
            read: so_far,
        }
    }

    /// Until all have come on by so much: how long that took.
    async fn comes_on(&mut self, items: u64) -> Duration {
        let (begun, from) = (Instant::now(), self.read.load(Ordering::Relaxed));
        let come_on = async {
            while self.read.load(Ordering::Relaxed) < from + items && !self.readers.is_empty() {
                tokio::select! {
                    Some(ended) = self.readers.join_next() => ended.expect("the stream is whole"),
                    () = sleep(Duration::from_millis(2)) => {}
                }
            }
        };
        within("the streams to come on", ALL_DONE, come_on).await;
        begun.elapsed()
    }

    /// To the end, however far that is, as long as they come on.
    async fn finish(mut self) -> Vec<TaskId> {
        while !self.readers.is_empty() {
            self.comes_on(1).await;
        }
        self.tasks
    }
}

/// Until so many items have been read.
async fn comes_to(so_far: &AtomicU64, items: u64) {
    let come = async {
        while so_far.load(Ordering::Relaxed) < items {
            sleep(Duration::from_millis(1)).await;
        }
    };
    within("items", PATIENCE, come).await;
}

/// The caller's connections are cut, of all its items none is lost and none comes twice.
#[tokio::test]
async fn a_caller_that_is_cut_off_reads_on() {
    let cuts: u64 = if is_long() { 1_000 } else { 15 };
    // More than the window, so that no cut falls between two streams.
    let each = 1_000;
    let n = cuts * each;
    let mut dice = dice("a caller cut off");
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let proxy = Proxy::to(cluster.broker.address()).await;
    let client = Client::connect(&proxy.url()).await.expect("the broker is there");
    let args = Payload::bytes("application/json", format!(r#"{{"n":{n},"bytes":20}}"#));
    let items = client.iterate_raw("count", args).window(256).await;
    let mut items = items.expect("the broker takes it");
    let (id, so_far, (allow, mut allowed)) = (items.id(), Arc::new(AtomicU64::new(0)), watch::channel(0));
    let reader = tokio::spawn({
        let so_far = so_far.clone();
        async move {
            for due in 0..n {
                allowed.wait_for(|&allowed| allowed > due).await.expect("it goes on");
                let item = within("an item", PATIENCE, items.next()).await.expect("an item");
                assert_eq!(index(&item.expect("good"), 20), due, "lost, twice or out of order");
                so_far.store(due + 1, Ordering::Relaxed);
            }
            assert!(within("the end", PATIENCE, items.next()).await.is_none());
        }
    });
    let mut healed = Vec::new();
    for cut in 0..cuts {
        let until = cut * each + dice.int(1..each);
        allow.send_replace(until);
        comes_to(&so_far, until).await;
        // While it reads on.
        allow.send_replace((cut + 1) * each);
        proxy.strike(if dice.chance(500) { Fault::Reset } else { Fault::End });
        sleep(dice.time(Duration::from_millis(1)..Duration::from_millis(60))).await;
        let (heal, before) = (Instant::now(), so_far.load(Ordering::Relaxed));
        proxy.heal();
        let all = (cut + 1) * each;
        comes_to(&so_far, (before + 1).min(all)).await;
        if before < all {
            healed.push(heal.elapsed());
        }
    }
    within("the end", ALL_DONE, reader).await.expect("the stream is whole");
    println!(
        "{cuts} cuts over {n} items: 0 lost, 0 twice; next item after a heal {}",
        Spread(healed)
    );
    let task = cluster.client().await.show(id).await.expect("it is known");
    assert_eq!((task.attempt, task.losses), (1, 0), "the run went on");
}

/// The broker is killed under streams: the same runs go on, and the same items come.
#[tokio::test]
async fn a_killed_broker_is_a_gap() {
    let (kills, n) = if is_long() { (100, 60_000) } else { (2, 3_000) };
    let (mut cluster, _worker) = Cluster::with_worker(STREAMS as u32).await;
    let client = cluster.client().await;
    let mut reading = Reading::begin(&client, n, 500).await;
    let mut gaps = Vec::new();
    for _ in 0..kills {
        reading.comes_on(STREAMS as u64 * n / (2 * kills)).await;
        cluster.broker.kill9().await;
        cluster.broker.restart().await;
        gaps.push(reading.comes_on(1).await);
    }
    let tasks = reading.finish().await;
    for id in tasks {
        let task = client.show(id).await.expect("it is known");
        assert_eq!((task.attempt, task.losses), (1, 0), "a run of before was run again");
    }
    println!(
        "{kills} kills of the broker, {STREAMS} streams: 0 lost, 0 twice, 0 run again; next item {}",
        Spread(gaps)
    );
}

/// Workers are killed under streams that can be replayed: the same items come.
#[tokio::test]
async fn killed_workers_are_replayed() {
    let (kills, n) = if is_long() { (200, 240_000) } else { (3, 6_000) };
    let mut dice: Dice = dice("workers killed under streams");
    let mut cluster = Cluster::start().await;
    // What its worker's end leaves is taken up at once, not after five seconds.
    cluster.ok(&["queue", "set", "default", "--fast-requeue", "on"]).await;
    let mut workers = vec![
        cluster.worker(STREAMS as u32).await,
        cluster.worker(STREAMS as u32).await,
    ];
    let client = cluster.client().await;
    let mut reading = Reading::begin(&client, n, 100).await;
    let mut gaps = Vec::new();
    for _ in 0..kills {
        reading.comes_on(STREAMS as u64 * n / (2 * kills)).await;
        let mut worker = workers.swap_remove(dice.index(workers.len()));
        worker.kill9().await;
        workers.push(cluster.worker(STREAMS as u32).await);
        gaps.push(reading.comes_on(STREAMS as u64).await);
    }
    let mut attempts = 0;
    for id in reading.finish().await {
        attempts += client.show(id).await.expect("it is known").attempt;
    }
    println!(
        "{kills} kills of workers, {STREAMS} streams: 0 lost, 0 twice, {attempts} attempts; {STREAMS} items {}",
        Spread(gaps)
    );
    assert!(attempts > STREAMS as u32, "nothing was run again");
}

/// What one process has left another reads on.
#[tokio::test]
async fn another_process_reads_on() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let args = ["iterate", "count", r#"{"n":2000,"delay_us":200}"#, "--window", "64"];
    let mut first = cluster.spawn(&args);
    let client = cluster.client().await;
    let id = eventually("the task", PATIENCE, || async {
        let page = client.tasks().await.ok()?;
        page.tasks.first().map(|task| task.id)
    })
    .await;
    first.kill().await.expect("it runs");
    let out = first.wait_with_output().await.expect("its output").stdout;
    let lines = String::from_utf8(out).expect("UTF-8").lines().count();
    let from = lines.to_string();
    let second = cluster
        .run(&["iterate", "--task", &id.to_string(), "--from", &from])
        .await;
    let Ended { code, out, err } = second;
    // The first had perhaps been given more than it wrote before it was killed.
    if code == Some(6) {
        assert!(err.contains("BELOW_FLOOR"), "{err}");
        return;
    }
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for (i, line) in (lines..2_000).zip(out.lines()) {
        assert_eq!(line, format!(r#"{{"i":{i}}}"#));
    }
    assert_eq!(out.lines().count(), 2_000 - lines);
}
