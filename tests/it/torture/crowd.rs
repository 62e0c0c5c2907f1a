//! Many streams of one connection whose readers have stopped: the connection stays, a
//! live stream keeps its pace, and each of them can be stopped.

use std::time::{Duration, Instant};

use asynq_client::{Client, Items, Payload};
use asynq_tests::{Cluster, PATIENCE, eventually, within};
use tokio::time::timeout;

use super::generator::{Ask, Pace};
use super::stalled::at_rest;
use super::without::{self, Without};
use super::{Spread, connected, is_long};

const STALLED: usize = 200;
/// From the stop to its answer, for 99 of 100.
const SOON: Duration = Duration::from_millis(20);
/// Of what a live stream does alone.
const SHARE: f64 = 0.9;

async fn count(client: &Client, n: u64) -> Items<Payload> {
    let args = Payload::bytes("application/json", format!(r#"{{"n":{n}}}"#));
    client.iterate_raw("count", args).await.expect("the broker takes it")
}

/// Items per second of a stream from its first to its last item.
async fn pace(client: &Client, n: u64) -> f64 {
    let mut items = count(client, n).await;
    let mut begun = None;
    while within("an item", PATIENCE, items.try_next())
        .await
        .expect("good")
        .is_some()
    {
        begun.get_or_insert_with(Instant::now);
    }
    assert_eq!(items.taken(), n, "the stream is whole");
    n as f64 / begun.expect("there was one").elapsed().as_secs_f64()
}

/// Streams that nobody reads, at the end of their credit.
async fn stalled(client: &Client) -> Vec<Items<Payload>> {
    let mut streams = Vec::new();
    for _ in 0..STALLED {
        streams.push(count(client, u64::MAX).await);
    }
    eventually("all to wait for credit", PATIENCE, || async {
        for items in &streams {
            let details = client.explain(items.id()).await.ok()?.details;
            details.get("blocked_on").filter(|on| *on == "credit")?;
        }
        Some(())
    })
    .await;
    streams
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test]
async fn stalled_streams_hold_up_nobody() {
    let (rounds, n) = if is_long() { (9, 400_000) } else { (1, 5_000) };
    let (cluster, _worker) = Cluster::with_worker(2 * STALLED as u32).await;
    let client = cluster.client().await;
    pace(&client, n).await;
    let before = connected(cluster.broker.address().port());
    assert!(!before.is_empty(), "nobody is connected: this sees nothing");
    let (mut alone, mut beside, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(pace(&client, n).await);
        let streams = stalled(&client).await;
        beside.push(pace(&client, n).await);
        for items in streams {
            let begun = Instant::now();
            within("the stop", PATIENCE, items.stop()).await.expect("it is stopped");
            took.push(begun.elapsed());
        }
    }
    let after = connected(cluster.broker.address().port());
    assert_eq!(before, after, "a connection was lost");
    let (alone, beside) = (median(alone), median(beside));
    let share = beside / alone;
    println!(
        "{STALLED} stalled streams of a connection: 0 connections lost; a live one does {:.0} % of the {:.0} \
         items/s it does alone; stopped after {}",
        100.0 * share,
        alone,
        Spread(took.clone())
    );
    if is_long() {
        took.sort();
        let p99 = took[(took.len() - 1) * 99 / 100];
        assert!(p99 <= SOON, "stopped after {p99:?}");
        assert!(share >= SHARE, "a live stream does {share:.2} of what it does alone");
    }
}

#[tokio::test]
async fn without_credits_they_hold_up_all() {
    let ask = Ask {
        n: u64::MAX,
        bytes: 1_000,
        pace: Pace::AtOnce,
    };
    let mut relay = Without::start().await;
    let mut streams = Vec::new();
    for _ in 0..STALLED / 10 {
        streams.push(relay.open(ask).await);
    }
    at_rest(&relay.seen).await;
    let (mut live, _) = relay.open(ask).await;
    let first = timeout(Duration::from_secs(3), without::next(&mut live, 0)).await;
    println!(
        "{} stalled streams of a relay's connection: a live one has its first item: {}",
        streams.len(),
        first.is_ok()
    );
    assert!(first.is_err(), "it does not show what credits are for");
}
