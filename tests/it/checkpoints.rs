//! Iterators that go on from a checkpoint, through real processes that are killed.

use std::fs;

use asynq_client::{Client, Items, Payload};
use asynq_tests::{Cluster, PATIENCE, within};

use crate::exec::worker;

/// Numbers, with a checkpoint behind each tenth and a rest after it. Each item says
/// which attempt it is of, for as long as the file `attempts` is there. Where it begins
/// is noted.
const COUNT: &str = r#"
[task.count]
kind = "exec"
cmd = ["sh", "-c", '''
n=${{ASYNQ_CHECKPOINT:-0}}
[ "$n" = "$ASYNQ_START_INDEX" ] || exit 64
echo "$n" >> starts
[ -e attempts ] && attempt=$ASYNQ_ATTEMPT || attempt=0
while [ "$n" -lt 600 ]; do
  echo "{{\"item\":[$n,$attempt]}}"
  n=$((n + 1))
  [ $((n % 10)) = 0 ] && {{ echo "{{\"checkpoint\":$n}}"; sleep 0.05; }}
done
''']
stdout = "jsonl"
on_loss = "checkpoint"
"#;

/// The next item and the attempt it is of. After a restart a broker waits for the
/// worker it knows for a whole lease.
async fn next(items: &mut Items<Payload>) -> Option<(u64, u64)> {
    let item = within("an item", 2 * PATIENCE, items.try_next())
        .await
        .expect("it goes on")?;
    Some(item.decode().expect("two numbers"))
}

/// Reads the items before `end`; gives the attempts they are of.
async fn read(items: &mut Items<Payload>, end: u64) -> Vec<u64> {
    let mut attempts = Vec::new();
    while items.position() < end {
        let due = items.position();
        let (n, attempt) = next(items).await.expect("an item");
        assert_eq!(n, due, "each item once, in order");
        attempts.push(attempt);
    }
    attempts
}

async fn begin(cluster: &Cluster, window: u32) -> (Client, Items<Payload>) {
    let client = cluster.client().await;
    let items = client.iterate_raw("count", Payload::null()).window(window).await;
    (client, items.expect("the broker takes it"))
}

/// Where the runs began.
fn starts(cluster: &Cluster) -> Vec<u64> {
    let starts = fs::read_to_string(cluster.broker.folder().join("starts")).expect("it has begun");
    starts.lines().map(|line| line.parse().expect("a number")).collect()
}

#[tokio::test]
async fn a_killed_worker_is_followed_by_one_that_begins_at_the_last_checkpoint() {
    const WINDOW: u64 = 32;
    let cluster = Cluster::start().await;
    fs::write(cluster.broker.folder().join("attempts"), "").expect("a file");
    let mut first = worker(&cluster, COUNT).await;
    let (client, mut items) = begin(&cluster, WINDOW as u32).await;
    let before = read(&mut items, 300).await;
    assert!(before.iter().all(|&attempt| attempt == 1));
    first.kill9().await;
    let _second = worker(&cluster, COUNT).await;
    // Other items than it would have yielded, each of which has its own number.
    let after = read(&mut items, 600).await;
    assert_eq!(next(&mut items).await, None, "all have come");
    assert!(after.is_sorted() && after.last() == Some(&2), "{after:?}");
    let starts = starts(&cluster);
    let [0, start] = starts[..] else { panic!("{starts:?}") };
    // One of the last checkpoints there could be; one may still have waited behind a batch.
    assert!(start % 10 == 0 && (270..=300 + WINDOW).contains(&start), "{starts:?}");
    let shown = client.show(items.id()).await.expect("it is known");
    assert_eq!((shown.losses, shown.checkpoint), (1, None), "nobody needs one any more");
}

#[tokio::test]
async fn worker_and_broker_killed_it_begins_at_a_checkpoint_that_was_written() {
    let mut cluster = Cluster::start().await;
    let mut first = worker(&cluster, COUNT).await;
    let (client, mut items) = begin(&cluster, 32).await;
    // At least 2 s: what was acknowledged in the first of them is written.
    read(&mut items, 400).await;
    let shown = client.show(items.id()).await.expect("it is known");
    let checkpoint = shown.checkpoint.expect("items have been acknowledged");
    assert!(
        checkpoint.is_multiple_of(10) && (350..=400).contains(&checkpoint),
        "{checkpoint}"
    );
    first.kill9().await;
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    let _second = worker(&cluster, COUNT).await;
    read(&mut items, 600).await;
    assert_eq!(next(&mut items).await, None, "all have come");
    let starts = starts(&cluster);
    let [0, start] = starts[..] else { panic!("{starts:?}") };
    assert!(start % 10 == 0 && (100..=400).contains(&start), "{starts:?}");
}

#[tokio::test]
async fn a_broker_that_is_killed_alone_ends_no_run() {
    let mut cluster = Cluster::start().await;
    let _worker = worker(&cluster, COUNT).await;
    let (_client, mut items) = begin(&cluster, 32).await;
    read(&mut items, 200).await;
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    read(&mut items, 600).await;
    assert_eq!(next(&mut items).await, None, "all have come");
    assert_eq!(starts(&cluster), [0]);
}
