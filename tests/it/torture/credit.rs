//! Credits over very many items: a reader of its own, on plain gRPC, that knows what it
//! has granted and holds each batch against that. What a worker sends beyond what was
//! granted to it the broker refuses, and the stream ends: that would be seen, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use asynq_proto::v1::stream_frame::Frame;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self, Credit};
use asynq_tests::dice::Dice;
use asynq_tests::{Cluster, PATIENCE, within};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use uuid::Uuid;

use super::{dice, is_long};

type Tasks = TasksClient<Channel>;

/// From a worker to the broker, and from there to the caller.
const HOPS: u64 = 2;
/// Streams at a time.
const STREAMS: u64 = 8;
/// The largest window there is, in items and in bytes.
const MOST_ITEMS: u64 = 65_536;
const MOST_BYTES: u64 = 8 << 20;
/// The fewest bytes: the largest item fits, so a stream always goes on.
const FEWEST_BYTES: u64 = 4 << 20;

/// What a reader has granted, and what has come.
#[derive(Debug)]
struct Account {
    granted: Credit,
    items: u64,
    bytes: u64,
}

impl Account {
    /// Takes a batch, which must follow on; whether it goes beyond what was granted.
    fn overrun(&mut self, batch: &v1::ItemBatch) -> bool {
        assert_eq!((batch.first_index, batch.first_byte), (self.items, self.bytes));
        self.items += batch.lengths.len() as u64;
        self.bytes += batch.data.len() as u64;
        self.items > self.granted.limit_index || self.bytes > self.granted.limit_bytes
    }

    /// Grants some more, never less than before.
    fn grant(&mut self, dice: &mut Dice, window: u64) -> Credit {
        let bytes = dice.int(FEWEST_BYTES..MOST_BYTES + 1);
        self.granted = Credit {
            acked: self.items,
            limit_index: self.granted.limit_index.max(self.items + dice.int(1..window + 1)),
            limit_bytes: self.granted.limit_bytes.max(self.bytes + bytes),
        };
        self.granted
    }
}

/// Reads a stream to its end; gives how many batches lay beyond the credit.
async fn read(mut tasks: Tasks, n: u64, mut dice: Dice, read: Arc<AtomicU64>) -> u64 {
    // Windows of all sizes, the small ones as often as the large ones; but a long stream
    // in small windows would take all day.
    let window = (1 << dice.int(0..17)).min(MOST_ITEMS);
    let n = n.min(2_000 * window);
    let mut account = Account {
        granted: Credit::default(),
        items: 0,
        bytes: 0,
    };
    let args = format!(r#"{{"n":{n},"bytes":{}}}"#, dice.int(0..60));
    let request = v1::IterateRequest {
        task: Some(v1::EnqueueRequest {
            name: "count".to_owned(),
            payload: Some(v1::Payload {
                content_type: String::new(),
                data: args.into(),
            }),
            ..Default::default()
        }),
        consumer_id: Uuid::now_v7().as_bytes().to_vec().into(),
        credit: Some(account.grant(&mut dice, window)),
        ..Default::default()
    };
    let consumer_id = request.consumer_id.clone();
    let opened = within("a stream", PATIENCE, tasks.iterate(request)).await;
    let mut frames = opened.expect("the broker takes it").into_inner();
    let (mut id, mut overruns) = (Default::default(), 0);
    loop {
        let frame = within("a frame", PATIENCE, frames.message()).await.expect("good");
        match frame.and_then(|frame| frame.frame) {
            Some(Frame::Opened(opened)) => id = opened.id,
            Some(Frame::Items(batch)) => {
                overruns += u64::from(account.overrun(&batch));
                read.fetch_add(batch.lengths.len() as u64, Ordering::Relaxed);
                // Not always at once: what is left of the window is used to its end then.
                let is_used = account.items >= account.granted.limit_index;
                let is_tight = account.bytes + FEWEST_BYTES > account.granted.limit_bytes;
                if is_used || is_tight || dice.chance(300) {
                    let flow = v1::FlowRequest {
                        id: id.clone(),
                        consumer_id: consumer_id.clone(),
                        credit: Some(account.grant(&mut dice, window)),
                        open_seq: 0,
                    };
                    within("a flow", PATIENCE, tasks.flow(flow)).await.expect("taken");
                }
            }
            Some(Frame::End(end)) => {
                let finished = end.finished.expect("how it ended");
                assert_eq!(finished.state(), v1::TaskState::Succeeded, "{finished:?}");
                assert_eq!((end.count, account.items), (n, n), "the stream is whole");
                return overruns;
            }
            None => panic!("a stream ends with its end"),
        }
    }
}

#[tokio::test]
async fn credit_is_never_overrun() {
    let hops: u64 = if is_long() { 100_000_000 } else { 300_000 };
    let mut dice = dice("credit");
    let (cluster, mut worker) = Cluster::with_worker(STREAMS as u32).await;
    let tasks = within("a connection", PATIENCE, Tasks::connect(cluster.broker.url())).await;
    let tasks = tasks.expect("the broker is there");
    let so_far = Arc::new(AtomicU64::new(0));
    let (mut streams, mut overruns) = (0, 0);
    while so_far.load(Ordering::Relaxed) * HOPS < hops {
        let mut readers = JoinSet::new();
        for _ in 0..STREAMS {
            let left = hops / HOPS - so_far.load(Ordering::Relaxed).min(hops / HOPS);
            // No less than what has every window used more than once.
            let n = (left / STREAMS).clamp(2_000, 1_000_000);
            let dice = Dice::new(dice.int(0..u64::MAX));
            readers.spawn(read(tasks.clone(), n, dice, so_far.clone()));
        }
        streams += STREAMS;
        while let Some(ended) = readers.join_next().await {
            overruns += ended.expect("a reader does not fail");
        }
    }
    println!(
        "{streams} streams, {} item-hops: {overruns} overruns",
        so_far.load(Ordering::Relaxed) * HOPS
    );
    assert_eq!(overruns, 0);
    // Nor has the broker said so of a worker: its run would have ended then.
    let log = worker.log();
    assert!(!log.contains("refused"), "{log}");
    worker.stop(PATIENCE).await;
}

#[test]
fn an_overrun_would_be_seen() {
    let batch = |items: usize, bytes: usize| v1::ItemBatch {
        lengths: vec![(bytes / items) as u32; items],
        data: vec![0; bytes].into(),
        ..Default::default()
    };
    for (items, bytes, beyond) in [(10, 100, false), (11, 99, true), (1, 101, true)] {
        let mut account = Account {
            granted: Credit {
                acked: 0,
                limit_index: 10,
                limit_bytes: 100,
            },
            items: 0,
            bytes: 0,
        };
        assert_eq!(
            account.overrun(&batch(items, bytes)),
            beyond,
            "{items} items, {bytes} bytes"
        );
    }
}
