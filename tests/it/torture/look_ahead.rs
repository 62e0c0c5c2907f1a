//! An ordered map over many tasks: the order, and how far it looks ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_client::Client;
use asynq_tests::{Cluster, PATIENCE, within};
use asynq_worker::{Task, Worker};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{dice, is_long};

/// Takes so many ms, and gives the index back.
const LATER: Task<(u64, u64), u64> = Task::new("later");
const LOOK_AHEAD: u64 = 256;

struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A worker that counts the runs it has begun.
async fn worker(url: &str, begun: Arc<AtomicU64>) -> Ends {
    let (registered, ready) = oneshot::channel();
    let worker = Worker::builder(url)
        .slots(512)
        .task(LATER, move |_, (index, ms)| {
            begun.fetch_add(1, Ordering::Relaxed);
            async move {
                if ms > 0 {
                    sleep(Duration::from_millis(ms)).await;
                }
                Ok(index)
            }
        })
        .on_ready(move |_| registered.send(()).expect("the test waits for it"));
    let running = tokio::spawn(worker.run_until(std::future::pending())).abort_handle();
    let ready = within("the worker to be registered", PATIENCE, ready).await;
    ready.expect("the worker goes on");
    Ends(running)
}

/// The most tasks there were at a time that had been begun and not been consumed: by
/// the inputs pulled, and by the runs of the worker.
async fn map(client: &Client, tasks: u64, look_ahead: u64, begun: &AtomicU64) -> (u64, u64) {
    let mut dice = dice("an ordered map");
    // Some are quick, some are not, so that they end in another order.
    let times: Vec<u64> = (0..tasks)
        .map(|_| dice.int(0..4).saturating_sub(1) * dice.int(0..6))
        .collect();
    let pulled = Arc::new(AtomicU64::new(0));
    let pulls = pulled.clone();
    let inputs = times.into_iter().enumerate().map(move |(index, ms)| {
        pulls.fetch_add(1, Ordering::Relaxed);
        (index as u64, ms)
    });
    let before = begun.load(Ordering::Relaxed);
    let mut results = client.map(LATER, inputs).look_ahead(look_ahead as usize);
    let (mut most_pulled, mut most_begun) = (0, 0);
    for due in 0..tasks {
        let result = within("a result", PATIENCE, results.try_next()).await;
        assert_eq!(result.expect("good"), Some(due), "lost, twice or out of order");
        // This one was not consumed before it was asked for.
        most_pulled = most_pulled.max(pulled.load(Ordering::Relaxed) - due);
        most_begun = most_begun.max(begun.load(Ordering::Relaxed) - before - due);
        if due % 10_000 == 5_000 {
            // A consumer that is slow for once has no more tasks run for it.
            sleep(Duration::from_millis(100)).await;
            most_begun = most_begun.max(begun.load(Ordering::Relaxed) - before - due);
        }
    }
    let end = within("the end", PATIENCE, results.try_next()).await;
    assert_eq!(end.expect("good"), None);
    (most_pulled, most_begun)
}

#[tokio::test]
async fn a_map_looks_no_further_ahead_than_told() {
    let tasks = if is_long() { 100_000 } else { 6_000 };
    let cluster = Cluster::start().await;
    let begun = Arc::new(AtomicU64::new(0));
    let _worker = worker(&cluster.broker.url(), begun.clone()).await;
    let client = cluster.client().await;
    let (pulled, run) = map(&client, tasks, LOOK_AHEAD, &begun).await;
    println!("{tasks} tasks in order, look-ahead {LOOK_AHEAD}: at most {pulled} pulled and {run} run, unconsumed");
    assert!(pulled <= LOOK_AHEAD && run <= LOOK_AHEAD, "{pulled}, {run}");
    // That this can be seen at all.
    let (pulled, run) = map(&client, 3_000, 2 * LOOK_AHEAD, &begun).await;
    println!("look-ahead {}: at most {pulled} pulled and {run} run", 2 * LOOK_AHEAD);
    assert_eq!(pulled, 2 * LOOK_AHEAD);
}
