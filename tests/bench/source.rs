//! Where the items of a stream come from, the same for asynq and for what it is measured
//! against.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use asynq_proto::limits::MAX_BATCH_OPS;
use asynq_proto::{Payload, v1};
use asynq_tests::journal;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

/// Of an item.
const BYTES: usize = 100;
/// Items that a source which yields them one by one may be ahead of who sends them.
const AHEAD: usize = 1_024;
/// Between two items of a stream that is idle otherwise.
const IDLE: Duration = Duration::from_millis(2);
/// How often a producer says how far it is.
pub(crate) const TELL: Duration = Duration::from_millis(50);
/// As the worker's batches.
const BATCH_BYTES: usize = 64 * 1024;

type Items = Pin<Box<dyn Stream<Item = Payload> + Send>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Written as they are asked for, with their number.
    Counted,
    /// There all along; in a relay's case in whole batches.
    Prebuilt,
    /// Yielded one by one by a task of its own, to whoever takes what is ready.
    OneByOne,
    /// One after the other with pauses; each tells when it was yielded.
    Stamped,
}

pub(crate) const ALL: [Source; 4] = [Source::Counted, Source::Prebuilt, Source::OneByOne, Source::Stamped];

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Prebuilt => "prebuilt",
            Self::OneByOne => "one-by-one",
            Self::Stamped => "stamped",
        }
    }

    pub(crate) fn named(name: &str) -> Self {
        let found = ALL.into_iter().find(|source| source.name() == name);
        found.unwrap_or_else(|| panic!("no source is named {name}"))
    }

    pub(crate) fn items(self, count: u64) -> Items {
        match self {
            Self::Counted => {
                let pad = "x".repeat(80);
                let item = move |i| Payload::bytes("", format!("{{\"i\":{i},\"pad\":\"{pad}\"}}"));
                Box::pin(AtOnce((0..count).map(item)))
            }
            Self::Prebuilt => {
                let item = Payload::bytes("", vec![b'x'; BYTES]);
                Box::pin(AtOnce((0..count).map(move |_| item.clone())))
            }
            Self::OneByOne => Box::pin(ReceiverStream::new(one_by_one(count))),
            Self::Stamped => Box::pin(tokio_stream::iter(0..count).then(|_| async {
                sleep(IDLE).await;
                Payload::bytes("", journal::now().as_nanos().to_string())
            })),
        }
    }

    /// The same as batches, as a relay that gathers what is ready has them.
    pub(crate) fn batches(self, count: u64) -> Pin<Box<dyn Stream<Item = v1::ItemBatch> + Send>> {
        match self {
            Self::Prebuilt => {
                let whole = batch(&vec![Payload::bytes("", vec![b'x'; BYTES]); MAX_BATCH_OPS]);
                let full = MAX_BATCH_OPS as u64;
                Box::pin(tokio_stream::iter((0..count).step_by(MAX_BATCH_OPS).map(
                    move |first| {
                        let mut batch = whole.clone();
                        if first + full > count {
                            batch.lengths.truncate((count - first) as usize);
                            batch.data.truncate(batch.lengths.len() * BYTES);
                        }
                        batch
                    },
                )))
            }
            _ => {
                let (sender, gathered) = mpsc::channel(1);
                let mut items = match self {
                    Self::OneByOne => one_by_one(count),
                    _ => forwarded(self.items(count)),
                };
                tokio::spawn(async move {
                    let most = MAX_BATCH_OPS.min(BATCH_BYTES / BYTES);
                    let mut ready = Vec::with_capacity(most);
                    while items.recv_many(&mut ready, most).await > 0 {
                        if sender.send(batch(&ready)).await.is_err() {
                            return;
                        }
                        ready.clear();
                    }
                });
                Box::pin(ReceiverStream::new(gathered))
            }
        }
    }
}

/// An iterator as a stream that is always ready. (That of `tokio_stream` is not after
/// every 32 items, and who takes what is ready would then take no more.)
struct AtOnce<I>(I);

impl<I: Iterator + Unpin> Stream for AtOnce<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

fn batch(items: &[Payload]) -> v1::ItemBatch {
    let mut data = Vec::with_capacity(items.iter().map(Payload::len).sum());
    for item in items {
        data.extend_from_slice(item.data());
    }
    v1::ItemBatch {
        lengths: items.iter().map(|item| item.len() as u32).collect(),
        data: data.into(),
        ..v1::ItemBatch::default()
    }
}

fn one_by_one(count: u64) -> mpsc::Receiver<Payload> {
    let item = Payload::bytes("", vec![b'x'; BYTES]);
    forwarded(tokio_stream::iter((0..count).map(move |_| item.clone())))
}

/// A task that yields items one after the other.
fn forwarded(items: impl Stream<Item = Payload> + Send + 'static) -> mpsc::Receiver<Payload> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut items = Box::pin(items);
        while let Some(item) = items.next().await {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// The same items; stderr is told how many of them have been asked for.
pub(crate) fn told(items: Items) -> Items {
    let produced = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&produced);
    tokio::spawn(async move {
        let (mut told, mut tick) = (0, interval(TELL));
        loop {
            tick.tick().await;
            let now = produced.load(Ordering::Relaxed);
            if now != told {
                eprintln!("{now}");
                told = now;
            }
        }
    });
    Box::pin(items.map(move |item| {
        counter.fetch_add(1, Ordering::Relaxed);
        item
    }))
}
