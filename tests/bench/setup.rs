//! A broker and a worker with 256 slots, as processes, and a caller here.

use std::sync::Arc;
use std::time::Instant;

use asynq_client::{Client, Iterate};
use asynq_proto::Payload;
use asynq_tests::{Broker, PATIENCE, Process, eventually, memory};
use tokio_stream::StreamExt;

use crate::Figure;
use crate::load::Load;

/// Where tasks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In `SQLite`, synced before each acknowledgement.
    Durable,
    /// In memory.
    Memory,
}

pub(crate) struct Setup {
    kind: Kind,
    client: Client,
    pids: [u32; 2],
    _broker: Broker,
    _worker: Process,
}

impl Setup {
    pub(crate) async fn start(kind: Kind) -> Self {
        let mut broker = match kind {
            Kind::Durable => Broker::start().await,
            Kind::Memory => Broker::start_with(&["--store", "memory"]).await,
        };
        let url = broker.url();
        let args = ["--broker", &url, "--builtins", "--slots", "256"];
        let worker = Process::start("asynq-worker", args, broker.folder().join("worker.log")).await;
        let worker = worker.unwrap_or_else(|said| panic!("asynq-worker: {said}"));
        let client = Client::connect(&url).await.expect("a broker");
        Self {
            kind,
            client,
            pids: [broker.process().pid(), worker.pid()],
            _broker: broker,
            _worker: worker,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Durable => "asynq, durable",
            Kind::Memory => "asynq, memory",
        }
    }

    /// Items per second of one stream, from the first to the end.
    pub(crate) async fn items(&self, count: u64) -> f64 {
        let mut items = self.count(count).await.expect("the broker takes it");
        let (begun, mut seen) = (Instant::now(), 0);
        while let Some(item) = items.next().await {
            item.expect("count does not fail");
            seen += 1;
        }
        assert_eq!(seen, count, "the stream is whole");
        seen as f64 / begun.elapsed().as_secs_f64()
    }

    /// How many items are produced for a reader who has read `read` and stops, and by
    /// how many bytes the broker grows.
    pub(crate) async fn ahead(&self, read: u64, window: u32) -> (u64, u64) {
        let before = memory(self.pids[0]);
        let mut items = self
            .count(u64::from(u32::MAX))
            .window(window)
            .await
            .expect("the broker takes it");
        for _ in 0..read {
            items.next().await.expect("an item").expect("count does not fail");
        }
        let sent = eventually("the worker to wait for credit", PATIENCE, || async {
            let details = self.client.explain(items.id()).await.ok()?.details;
            let blocked = details.get("blocked_on").is_some_and(|on| on == "credit");
            details.get("items")?.parse::<u64>().ok().filter(|_| blocked)
        });
        let ahead = sent.await - read;
        let grown = memory(self.pids[0]).saturating_sub(before);
        items.stop().await.expect("the broker answers");
        (ahead, grown)
    }

    /// Items of 100 bytes, with the index and the quotes around the pad.
    fn count(&self, count: u64) -> Iterate<Payload> {
        let args = format!("{{\"n\":{count},\"bytes\":80}}");
        self.client
            .iterate_raw("count", Payload::bytes("application/json", args))
    }

    pub(crate) async fn load(&self, load: Load, payload: &Payload) -> Figure {
        let (client, payload) = (self.client.clone(), Arc::new(payload.clone()));
        let call = move || {
            let call = client.call_raw("echo", Payload::clone(&payload));
            async move {
                call.await.expect("echo succeeds");
            }
        };
        load.run(&self.pids, call).await
    }
}
