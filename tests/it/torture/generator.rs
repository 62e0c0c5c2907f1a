//! An iterator in the test's own process: it counts what it is asked for, and notes
//! when it is dropped.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, ready};
use std::time::{Duration, Instant};

use asynq_client::{Client, Items, Iterate, Payload};
use asynq_tests::{PATIENCE, within};
use asynq_worker::{Context, Declaration, RunError, TaskError, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use uuid::Uuid;

const NAME: &str = "items";
/// The index of an item, at its beginning.
const INDEX_BYTES: usize = 8;

/// What a generator is to do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ask {
    /// How many items …
    pub(super) n: u64,
    /// … of how many bytes.
    pub(super) bytes: usize,
    /// How long after the one before each comes.
    pub(super) pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pace {
    /// At once.
    AtOnce,
    /// After so many ms.
    Ms(u64),
    /// At once, up to this index; the others never.
    UpTo(u64),
}

/// What generators have come to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Items they have been asked for.
    yielded: AtomicU64,
    /// Of these, how many after their run was told to stop.
    late: AtomicU64,
    dropped: Mutex<HashMap<Uuid, Instant>>,
}

impl Seen {
    pub(super) fn yielded(&self) -> u64 {
        self.yielded.load(Ordering::Relaxed)
    }

    pub(super) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// When the generator of a run was dropped, if it was; it is forgotten then.
    pub(super) fn dropped(&self, run: Uuid) -> Option<Instant> {
        self.dropped.lock().expect("no holder panics").remove(&run)
    }
}

/// The generator. Without a run it is one that no worker has.
pub(super) struct Generator {
    ask: Ask,
    next: u64,
    run: Uuid,
    context: Option<Context>,
    seen: Arc<Seen>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Generator {
    fn new(ask: Ask, run: Uuid, context: Option<Context>, seen: Arc<Seen>) -> Self {
        Self {
            ask,
            next: 0,
            run,
            context,
            seen,
            pause: None,
        }
    }

    pub(super) fn of_no_worker(ask: Ask, run: Uuid, seen: Arc<Seen>) -> Self {
        Self::new(ask, run, None, seen)
    }
}

impl Stream for Generator {
    type Item = Payload;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Payload>> {
        let Ask { n, bytes, pace } = self.ask;
        if self.next == n {
            return Poll::Ready(None);
        }
        match pace {
            Pace::AtOnce => {}
            Pace::Ms(ms) => {
                let pause = || Box::pin(sleep(Duration::from_millis(ms)));
                ready!(self.pause.get_or_insert_with(pause).as_mut().poll(cx));
                self.pause = None;
            }
            // Nobody wakes it any more.
            Pace::UpTo(index) if self.next >= index => return Poll::Pending,
            Pace::UpTo(_) => {}
        }
        if self.context.as_ref().is_some_and(Context::is_stopped) {
            self.seen.late.fetch_add(1, Ordering::Relaxed);
        }
        self.seen.yielded.fetch_add(1, Ordering::Relaxed);
        let mut item = self.next.to_le_bytes().to_vec();
        item.resize(bytes.max(INDEX_BYTES), b'x');
        self.next += 1;
        Poll::Ready(Some(Payload::bytes("application/octet-stream", item)))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let mut dropped = self.seen.dropped.lock().expect("no holder panics");
        dropped.insert(self.run, Instant::now());
    }
}

/// The index that an item says it has.
pub(super) fn index(item: &[u8]) -> u64 {
    let index = item.first_chunk::<INDEX_BYTES>().expect("an item has an index");
    u64::from_le_bytes(*index)
}

/// A worker of this process that offers the generator; it ends with it.
pub(super) struct Generators {
    pub(super) seen: Arc<Seen>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Generators {
    pub(super) async fn start(url: &str, slots: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let (registered, ready) = oneshot::channel();
        let of_runs = seen.clone();
        let worker = Worker::builder(url)
            .name("generators")
            .slots(slots)
            .raw_iter(Declaration::new(NAME), move |context, args: Payload| {
                let ask = args.decode().expect("the test asks");
                let items = Generator::new(ask, context.task_id(), Some(context), of_runs.clone());
                tokio_stream::StreamExt::map(items, Ok::<_, TaskError>)
            })
            .on_ready(move |_| registered.send(()).expect("the test waits for it"));
        let running = tokio::spawn(worker.run_until(std::future::pending()));
        let registered = within("the worker to be registered", PATIENCE, ready).await;
        registered.expect("the worker goes on");
        Self { seen, running }
    }
}

impl Drop for Generators {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub(super) fn iterate(client: &Client, ask: Ask) -> Iterate<Payload> {
    client.iterate_raw(NAME, Payload::json(&ask).expect("it has a JSON form"))
}

/// The next item, which must be this one.
pub(super) async fn next(items: &mut Items<Payload>, due: u64) {
    let item = within("an item", PATIENCE, items.try_next()).await;
    assert_eq!(item.expect("good").map(|item| index(item.data())), Some(due));
}
