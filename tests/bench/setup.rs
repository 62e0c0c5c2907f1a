//! A broker and a worker with 256 slots, as processes, and a caller here.

use std::sync::Arc;
use std::time::Instant;

use asynq_client::Client;
use asynq_proto::Payload;
use asynq_tests::{Broker, Process};
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
        // 100 bytes with the index and the quotes around the pad.
        let args = format!("{{\"n\":{count},\"bytes\":80}}");
        let args = Payload::bytes("application/json", args);
        let mut items = self
            .client
            .iterate_raw("count", args)
            .await
            .expect("the broker takes it");
        let (begun, mut seen) = (Instant::now(), 0);
        while let Some(item) = items.next().await {
            item.expect("count does not fail");
            seen += 1;
        }
        assert_eq!(seen, count, "the stream is whole");
        seen as f64 / begun.elapsed().as_secs_f64()
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
