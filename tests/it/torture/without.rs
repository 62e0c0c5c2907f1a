//! The same without credits, to see that what is measured can be otherwise: a plain
//! relay, with readers and generators in the test's process.

use std::sync::Arc;

use asynq_client::Payload;
use asynq_proto::v1;
use asynq_tests::{PATIENCE, Relay, RelayClient, within};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::StreamExt;
use tonic::Streaming;
use uuid::Uuid;

use super::generator::{Ask, Generator, Seen, index};

type Client = RelayClient<v1::Payload>;

pub(super) struct Without {
    pub(super) seen: Arc<Seen>,
    url: String,
    readers: Client,
    producers: JoinSet<()>,
    accepting: JoinHandle<()>,
}

impl Without {
    /// A relay, and one connection for all its readers.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let accepting = tokio::spawn(async move {
            let relay = Relay::<v1::Payload>::default();
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(relay.clone().serve(TokioIo::new(stream)));
            }
        });
        Self {
            seen: Arc::default(),
            readers: Client::connect(&url).await,
            url,
            producers: JoinSet::new(),
            accepting,
        }
    }

    /// A stream, and the name of its generator.
    pub(super) async fn open(&mut self, ask: Ask) -> (Streaming<v1::Payload>, Uuid) {
        let (items, run) = (self.readers.down().await, Uuid::now_v7());
        let mut producer = Client::connect(&self.url).await;
        let generator = Generator::of_no_worker(ask, run, self.seen.clone());
        self.producers.spawn(async move {
            producer.up(generator.map(|item: Payload| item.into())).await;
        });
        (items, run)
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The next item, which must be this one.
pub(super) async fn next(items: &mut Streaming<v1::Payload>, due: u64) {
    let item = within("an item", PATIENCE, items.next()).await.expect("an item");
    assert_eq!(index(&item.expect("good").data), due);
}
