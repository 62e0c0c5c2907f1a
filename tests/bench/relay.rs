//! The floor for items: a plain tonic relay, as a process, and its producer, another
//! one. It has no queue and no credits; items go one message each, or in batches
//! framed as asynq's.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use asynq_proto::v1::{ItemBatch, Payload};
use asynq_tests::{PATIENCE, Process, Relay as Service, RelayClient, eventually, memory};
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::Streaming;

use crate::floor::listen;
use crate::source::{self, Source};

/// The argument that makes this program the relay, and the one that makes it the producer;
/// another says which messages it is about.
pub(crate) const SERVE: &str = "serve-the-relay";
pub(crate) const PRODUCE: &str = "produce-items";
pub(crate) const NAME: &str = "relay (tonic, no queue)";
/// How often the producer says how far it is.
const TELL: Duration = source::TELL;

/// A message that the relay may carry.
pub(crate) trait Carried: Message + Default + 'static {
    /// In arguments.
    const NAME: &str;
    /// Items in it.
    fn items(self) -> u64;
}

impl Carried for Payload {
    const NAME: &str = "items";

    fn items(self) -> u64 {
        1
    }
}

impl Carried for ItemBatch {
    const NAME: &str = "batches";

    /// A reader wants the items one by one, wherever the batch ends.
    fn items(mut self) -> u64 {
        for length in &self.lengths {
            std::hint::black_box(self.data.split_to(*length as usize));
        }
        self.lengths.len() as u64
    }
}

pub(crate) struct Relay<M> {
    url: String,
    folder: tempfile::TempDir,
    server: Process,
    message: PhantomData<fn() -> M>,
}

impl<M: Carried> Relay<M> {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let me = std::env::current_exe().expect("a running program has a path");
        let server = Process::start_at(&me, [SERVE, M::NAME], folder.path().join("relay.log")).await;
        let server = server.unwrap_or_else(|said| panic!("the relay: {said}"));
        Self {
            url: format!("http://{}", server.ready()),
            folder,
            server,
            message: PhantomData,
        }
    }

    /// Items per second, from the first to the end.
    pub(crate) async fn items(&self, source: Source, count: u64) -> f64 {
        let (mut messages, _producer) = self.open(source, count).await;
        let (mut begun, mut seen) = (None, 0);
        while let Some(message) = messages.next().await {
            begun.get_or_insert_with(Instant::now);
            seen += message.expect("the relay does not fail").items();
        }
        assert_eq!(seen, count, "the stream is whole");
        seen as f64 / begun.expect("there was an item").elapsed().as_secs_f64()
    }

    /// A stream of messages, and who produces them.
    pub(crate) async fn open(&self, source: Source, count: u64) -> (Streaming<M>, Process) {
        let messages = RelayClient::connect(&self.url).await.down().await;
        let me = std::env::current_exe().expect("a running program has a path");
        // A log of its own: what the last one said counts no more.
        let log = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        let log = log.into_temp_path().keep().expect("it stays with its folder");
        let args = [PRODUCE, M::NAME, &self.url, source.name(), &count.to_string()];
        let producer = Process::start_at(&me, args, log).await;
        (messages, producer.unwrap_or_else(|said| panic!("the producer: {said}")))
    }
}

impl Relay<Payload> {
    /// How many items are produced for a reader who has read `read` and stops, and by
    /// how many bytes the relay grows.
    pub(crate) async fn ahead(&self, read: u64) -> (u64, u64) {
        let before = memory(self.server.pid());
        let (mut items, producer) = self.open(Source::Counted, u64::MAX).await;
        for _ in 0..read {
            items.next().await.expect("an item").expect("the relay does not fail");
        }
        let mut last = (0, Instant::now());
        let produced = eventually("the producer to be stopped", PATIENCE, || {
            let now = producer.log().lines().last().and_then(|line| line.parse().ok());
            if now.is_some_and(|now| now != last.0) {
                last = (now.unwrap_or(0), Instant::now());
            }
            // It is silent while nothing changes.
            std::future::ready((last.0 > 0 && last.1.elapsed() > 10 * TELL).then_some(last.0))
        });
        let ahead = produced.await - read;
        (ahead, memory(self.server.pid()).saturating_sub(before))
    }
}

/// Relays until it is killed.
pub(crate) fn serve(message: &str) {
    match message {
        Payload::NAME => serve_these::<Payload>(),
        _ => serve_these::<ItemBatch>(),
    }
}

fn serve_these<M: Carried>() {
    let relay = Service::<M>::default();
    listen(move |io| relay.clone().serve(io));
}

/// Streams so many items up.
pub(crate) fn produce(message: &str, url: &str, source: Source, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        println!("producing");
        match message {
            Payload::NAME => up(url, source::told(source.items(count)).map(Payload::from)).await,
            _ => up(url, source.batches(count)).await,
        }
    });
}

async fn up<M: Carried>(url: &str, messages: impl Stream<Item = M> + Send + 'static) {
    RelayClient::connect(url).await.up(messages).await;
}
