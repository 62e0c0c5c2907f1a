//! `asynq enqueue`: put tasks in their queue and print their ids.

use std::{future::IntoFuture, sync::Arc};

use asynq_client::{Enqueue, Payload, TaskId};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    arguments,
    connect::{Broker, Connected, connect},
    failure::Failure,
    jsonl,
    limits::{ENQUEUE_BYTES_IN_FLIGHT, ENQUEUES_IN_FLIGHT},
    options::{KeyOptions, TaskOptions},
    output::{self, Lines},
};

/// Put a task in its queue and print its id once it is durable, or one for each
/// line of a file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The task's name, as a worker has registered it.
    name: String,
    /// Its argument: JSON, @FILE, or - for stdin [default: null].
    #[arg(allow_negative_numbers = true)]
    json: Option<String>,
    /// Many tasks, each line the JSON argument of one; - for stdin. Prints their
    /// ids in the order of the lines.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "key"])]
    jsonl: Option<String>,
    #[command(flatten)]
    options: TaskOptions,
    #[command(flatten)]
    key: KeyOptions,
}

const EXAMPLES: &str = "\
Examples:
  id=$(asynq enqueue resize @job.json)
  asynq enqueue report '{\"day\":\"monday\"}' --at 2030-01-07T06:00:00Z --retries 3
  asynq enqueue cleanup --last --delay 5m
  asynq enqueue invoice @order.json --key order-4711
  asynq enqueue reindex --key reindex --on-key replace --delay 10s
  asynq enqueue resize --jsonl jobs.jsonl --series photos > ids";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        if let Some(source) = &self.jsonl {
            return self.run_many(source, broker).await;
        }
        let payload = arguments::read(self.json.as_deref())?;
        let connected = connect(broker, self.options.wait).await?;
        let handle = self.enqueue(&connected, payload).await?;
        output::line(&handle.id().to_string())
    }

    fn enqueue(&self, connected: &Connected, payload: Payload) -> Enqueue<Payload> {
        let enqueue = connected.client.enqueue_raw(&self.name, payload);
        let enqueue = self.key.for_enqueue(self.options.for_enqueue(enqueue));
        match connected.left() {
            Some(left) => enqueue.wait_at_most(left),
            None => enqueue,
        }
    }

    /// Enqueues a task for each line, many at a time, as they are read.
    async fn run_many(&self, source: &str, broker: &Broker) -> Result<(), Failure> {
        let mut inputs = jsonl::open(source)?;
        let connected = connect(broker, self.options.wait).await?;
        let enqueues = bounded(inputs.lines).map(|(payload, room)| {
            let enqueue = self.enqueue(&connected, payload).into_future();
            async move {
                let handle = enqueue.await?;
                drop(room);
                Ok::<TaskId, Failure>(handle.id())
            }
        });
        let mut ids = enqueues.buffered(ENQUEUES_IN_FLIGHT);
        let (mut lines, mut number) = (Lines::new(), 0_u64);
        while let Some(id) = lines.before(ids.next()).await? {
            number += 1;
            match id {
                Ok(id) => lines.push_line(&id.to_string()).await?,
                Err(failure) => {
                    lines.flush().await?;
                    return Err(failure.at(&format!("line {number}, later ones may have been enqueued")));
                }
            }
        }
        lines.flush().await?;
        inputs.problem.try_recv().map_or(Ok(()), Err)
    }
}

/// Holds back arguments while too many bytes of them are on their way: each has
/// its room until that is dropped.
fn bounded(payloads: impl Stream<Item = Payload> + Unpin) -> impl Stream<Item = (Payload, OwnedSemaphorePermit)> {
    let room = Arc::new(Semaphore::new(ENQUEUE_BYTES_IN_FLIGHT));
    Box::pin(stream::unfold((payloads, room), async |(mut payloads, room)| {
        let payload = payloads.next().await?;
        let bytes = u32::try_from(payload.len().min(ENQUEUE_BYTES_IN_FLIGHT)).ok()?;
        let permit = Arc::clone(&room).acquire_many_owned(bytes).await.ok()?;
        Some(((payload, permit), (payloads, room)))
    }))
}
