//! Streams that are stopped: how soon their generators are dropped, and that none is
//! asked for anything after its worker knows.

use std::time::{Duration, Instant};

use asynq_client::TaskId;
use asynq_tests::{Cluster, PATIENCE, within};
use tokio::time::sleep;
use uuid::Uuid;

use super::generator::{Ask, Generators, Pace, Seen, iterate, next};
use super::stalled::blocked;
use super::without::{self, Without};
use super::{Spread, is_long};

const ENDLESS: Ask = Ask {
    n: u64::MAX,
    bytes: 100,
    pace: Pace::AtOnce,
};
/// What is read before the stop.
const READ: u64 = 3;
/// From the stop to the generator's end, for 99 of 100.
const SOON: Duration = Duration::from_millis(20);

/// How a generator is found by the stop: under way, waiting for a timer, waiting for
/// what never comes, waiting for credit.
const PACES: [(&str, Pace, bool); 4] = [
    ("flowing", Pace::AtOnce, false),
    ("at a timer", Pace::Ms(1), false),
    ("waiting", Pace::UpTo(READ), false),
    ("without credit", Pace::AtOnce, true),
];

async fn dropped(seen: &Seen, run: Uuid) -> Instant {
    let look = async {
        loop {
            if let Some(at) = seen.dropped(run) {
                return at;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    within("the generator to be dropped", PATIENCE, look).await
}

fn run_of(task: TaskId) -> Uuid {
    Uuid::from_bytes(*task.as_bytes())
}

#[tokio::test]
async fn a_stop_reaches_the_generator() {
    let each = if is_long() { 100 } else { 3 };
    let cluster = Cluster::start().await;
    let worker = Generators::start(&cluster.broker.url(), 4).await;
    let client = cluster.client().await;
    let mut all = Vec::new();
    for (name, pace, is_blocked) in PACES {
        // That one waits for credit is only said after a second.
        let each = if is_blocked { each / 10 + 1 } else { each };
        for drops in [false, true] {
            let mut took = Vec::new();
            for _ in 0..each {
                let ask = Ask { pace, ..ENDLESS };
                let mut items = iterate(&client, ask).await.expect("it is taken");
                let id = items.id();
                for due in 0..READ {
                    next(&mut items, due).await;
                }
                if is_blocked {
                    blocked(&client, id).await;
                }
                let begun = Instant::now();
                if drops {
                    drop(items);
                } else {
                    within("the stop", PATIENCE, items.stop()).await.expect("it is stopped");
                }
                let at = dropped(&worker.seen, run_of(id)).await;
                took.push(at.saturating_duration_since(begun));
            }
            let how = if drops { "the stream is dropped" } else { "stop()" };
            println!("generators {name}, {how}: gone after {}", Spread(took.clone()));
            all.extend(took);
        }
    }
    let late = worker.seen.late();
    println!(
        "of all {}, {late} items yielded after the worker knew",
        Spread(all.clone())
    );
    assert_eq!(
        late, 0,
        "a generator was asked for more after its worker knew of the stop"
    );
    if is_long() {
        all.sort();
        let p99 = all[(all.len() - 1) * 99 / 100];
        assert!(p99 <= SOON, "{p99:?}");
    }
}

#[tokio::test]
async fn without_a_stop_a_generator_ends_with_its_next_item() {
    let mut relay = Without::start().await;
    let each = if is_long() { 100 } else { 3 };
    let (mut took, mut more) = (Vec::new(), 0);
    for _ in 0..each {
        let (mut items, run) = relay.open(ENDLESS).await;
        for due in 0..READ {
            without::next(&mut items, due).await;
        }
        let (begun, before) = (Instant::now(), relay.seen.yielded());
        drop(items);
        took.push(dropped(&relay.seen, run).await.saturating_duration_since(begun));
        more += relay.seen.yielded() - before;
    }
    println!(
        "generators of a relay, flowing, the stream is dropped: gone after {}; {} more items each",
        Spread(took),
        more / each
    );
    let ask = Ask {
        pace: Pace::UpTo(READ),
        ..ENDLESS
    };
    let (mut items, run) = relay.open(ask).await;
    for due in 0..READ {
        without::next(&mut items, due).await;
    }
    drop(items);
    sleep(50 * SOON).await;
    assert!(relay.seen.dropped(run).is_none(), "nobody has told it");
    println!("a generator of a relay that waits lives on after {:?}", 50 * SOON);
}
