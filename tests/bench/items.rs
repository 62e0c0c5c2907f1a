//! A broker and a worker whose iterators yield from the same sources as the relay's
//! producer, and how fast their items come.

use std::time::{Duration, Instant};

use asynq_client::{Client, Iterate};
use asynq_proto::{Payload, v1};
use asynq_tests::{Broker, Process, journal};
use asynq_worker::{Declaration, TaskError, Worker};
use tokio_stream::StreamExt;

use crate::relay::Relay;
use crate::source::{self, Source};

/// The argument that makes this program the worker.
pub(crate) const WORK: &str = "work-on-items";
const SLOTS: u32 = 8;
/// In items, of each stream.
const WINDOW: u32 = 4_096;
/// Before an idle stream is measured: it is not only just open.
const WARM_UP: usize = 20;

pub(crate) struct Streams {
    client: Client,
    _broker: Broker,
    _worker: Process,
}

impl Streams {
    pub(crate) async fn start() -> Self {
        let broker = Broker::start().await;
        let (url, log) = (broker.url(), broker.folder().join("worker.log"));
        let me = std::env::current_exe().expect("a running program has a path");
        let worker = Process::start_at(&me, [WORK, &url], log).await;
        let worker = worker.unwrap_or_else(|said| panic!("the worker of items: {said}"));
        Self {
            client: Client::connect(&url).await.expect("a broker"),
            _broker: broker,
            _worker: worker,
        }
    }

    /// Items per second of one stream, from the first to the end.
    pub(crate) async fn items(&self, source: Source, count: u64) -> f64 {
        let mut items = self.open(source, count).await.expect("the broker takes it");
        let (mut begun, mut seen) = (None, 0);
        while let Some(item) = items.next().await {
            begun.get_or_insert_with(Instant::now);
            std::hint::black_box(item.expect("the source does not fail"));
            seen += 1;
        }
        assert_eq!(seen, count, "the stream is whole");
        seen as f64 / begun.expect("there was an item").elapsed().as_secs_f64()
    }

    /// From the yield of an item to its reader, on a stream that is idle otherwise; sorted.
    pub(crate) async fn latency(&self, count: usize) -> Vec<Duration> {
        let opened = self.open(Source::Stamped, (WARM_UP + count) as u64).await;
        let mut items = opened.expect("the broker takes it");
        let mut took = Vec::with_capacity(WARM_UP + count);
        while let Some(item) = items.next().await {
            took.push(age(item.expect("the source does not fail").data()));
        }
        measured(took)
    }

    fn open(&self, source: Source, count: u64) -> Iterate<Payload> {
        let count = Payload::json(&count).expect("a number");
        self.client.iterate_raw(source.name(), count).window(WINDOW)
    }
}

/// The same through the relay.
pub(crate) async fn latency(relay: &Relay<v1::Payload>, count: usize) -> Vec<Duration> {
    let (mut items, _producer) = relay.open(Source::Stamped, (WARM_UP + count) as u64).await;
    let mut took = Vec::with_capacity(WARM_UP + count);
    while let Some(item) = items.next().await {
        took.push(age(&item.expect("the relay does not fail").data));
    }
    measured(took)
}

/// How long ago an item was yielded.
fn age(stamp: &[u8]) -> Duration {
    let now = journal::now();
    let stamp = std::str::from_utf8(stamp).ok().and_then(|stamp| stamp.parse().ok());
    now.saturating_sub(Duration::from_nanos(stamp.expect("an item tells when it was yielded")))
}

fn measured(took: Vec<Duration>) -> Vec<Duration> {
    let mut took = took.split_at(WARM_UP).1.to_vec();
    took.sort_unstable();
    took
}

/// Works until it is killed.
pub(crate) fn work(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut worker = Worker::builder(url).slots(SLOTS);
        for source in source::ALL {
            worker = worker.raw_iter(Declaration::new(source.name()), move |_, count: Payload| {
                let count = count.decode().expect("the bench asks");
                source.items(count).map(Ok::<_, TaskError>)
            });
        }
        let worker = worker.on_ready(|ready| println!("registered {} tasks", ready.tasks));
        worker
            .run_until(std::future::pending())
            .await
            .expect("the broker goes on");
    });
}
