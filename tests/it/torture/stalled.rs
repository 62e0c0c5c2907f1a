//! A caller that stops reading: what it does not read is not produced, and the broker
//! does not grow.

use std::sync::Arc;
use std::time::Duration;

use asynq_client::{Client, TaskId};
use asynq_tests::{Cluster, PATIENCE, eventually, memory, within};
use tokio::time::sleep;

use super::generator::{Ask, Generators, Pace, Seen, iterate, next};
use super::is_long;
use super::without::{self, Without};

const ASK: Ask = Ask {
    n: 10_000_000,
    bytes: 100,
    pace: Pace::AtOnce,
};
const WINDOW: u64 = 256;
/// What is read before the caller stops.
const READ: u64 = 1_000;
/// What a broker may grow by while a caller does not read …
const GROWTH: u64 = 8 << 20;
/// … and by how much that may differ from one look to the next.
const FLAT: u64 = 1 << 20;
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until the broker says that a stream waits for its reader.
pub(super) async fn blocked(client: &Client, id: TaskId) {
    eventually("the generator to wait for credit", PATIENCE, || async {
        let details = client.explain(id).await.ok()?.details;
        details.get("blocked_on").filter(|on| *on == "credit").map(drop)
    })
    .await;
}

/// How many items have been produced, once there are some and no more have come for a
/// few looks.
pub(super) async fn at_rest(seen: &Arc<Seen>) -> u64 {
    let (mut before, mut quiet) = (0, 0);
    while quiet < 4 {
        sleep(LOOK / 2).await;
        let now = seen.yielded();
        quiet = if now == before && now > 0 { quiet + 1 } else { 0 };
        before = now;
    }
    before
}

#[tokio::test]
async fn a_caller_that_stops_reading_holds_its_generator() {
    let looks = if is_long() { 60 } else { 1 };
    let mut cluster = Cluster::start().await;
    let worker = Generators::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let broker = cluster.broker.process().pid();
    let before = memory(broker);
    let mut items = iterate(&client, ASK).window(WINDOW as u32).await.expect("it is taken");
    for due in 0..READ {
        next(&mut items, due).await;
    }
    blocked(&client, items.id()).await;
    let yielded = worker.seen.yielded();
    // Asking for an item acknowledges the one before it.
    let ahead = yielded - (READ - 1);
    assert!(ahead <= WINDOW + 1, "{ahead} items past the last one acknowledged");
    let mut sizes = vec![memory(broker)];
    for _ in 0..looks {
        sleep(LOOK).await;
        sizes.push(memory(broker));
    }
    assert_eq!(worker.seen.yielded(), yielded, "it stands still");
    let (least, most) = (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap());
    println!(
        "a stalled caller: {ahead} items past the last one acknowledged; \
         the broker has grown by {} KiB, and by {} KiB in {looks} s of standing still",
        most.saturating_sub(before) >> 10,
        (most - least) >> 10
    );
    assert!(most < before + GROWTH, "from {before} to {most} bytes");
    assert!(most - least < FLAT, "between {least} and {most} bytes");
    // The rest is still to be had.
    for due in READ..2 * READ {
        next(&mut items, due).await;
    }
    within("the stop", PATIENCE, items.stop()).await.expect("it is stopped");
}

#[tokio::test]
async fn without_credits_a_generator_runs_ahead() {
    let mut relay = Without::start().await;
    let (mut items, _) = relay.open(ASK).await;
    for due in 0..READ {
        without::next(&mut items, due).await;
    }
    let ahead = at_rest(&relay.seen).await - READ;
    println!("a stalled caller of a relay: {ahead} items past the last one read");
    assert!(
        ahead > 10 * WINDOW,
        "only {ahead}: it does not show what credits are for"
    );
}
