//! Stores that fail, that hang, and what is read from them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use asynq_core::{Change, Epoch, Key, Name, Payload, Seq, TaskId, TaskRecord, Timestamp};
use asynq_proto::limits::INLINE_BYTES;
use asynq_proto::v1::{self, operation::Op};
use asynq_store::{Listed, MemoryStore, Opened, Pruned, Query, Reader, Store, StoreError};
use asynqd::{Backing, Durability, ServerError};
use tonic::Code;

use crate::harness::{Broker, PATIENCE, Session, Worker, json, reason, soon, task};

type Commit = Box<dyn FnMut() -> Result<(), StoreError> + Send>;

/// A store in memory with something done before each commit, and with an eye on
/// what is read.
struct Probed {
    inner: MemoryStore,
    before_commit: Commit,
    /// Arguments read.
    read: Arc<AtomicUsize>,
}

impl Probed {
    fn backing(before_commit: Commit, read: &Arc<AtomicUsize>) -> Backing {
        Backing {
            store: Box::new(Self {
                inner: MemoryStore::new(),
                before_commit,
                read: read.clone(),
            }),
            durability: Durability::Memory,
        }
    }
}

impl Store for Probed {
    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        self.inner.open(now, live)
    }

    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError> {
        (self.before_commit)()?;
        self.inner.commit(epoch, batch, changes)
    }

    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        self.inner.prune(epoch, now, budget)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(ProbedReader {
            inner: self.inner.reader()?,
            read: self.read.clone(),
        }))
    }
}

struct ProbedReader {
    inner: Box<dyn Reader>,
    read: Arc<AtomicUsize>,
}

impl Reader for ProbedReader {
    fn payloads(&mut self, tasks: &[Seq]) -> Result<Vec<Option<Payload>>, StoreError> {
        self.read.fetch_add(tasks.len(), Ordering::SeqCst);
        self.inner.payloads(tasks)
    }

    fn task(&mut self, id: TaskId) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        self.inner.task(id)
    }

    fn keyed(&mut self, queue: &Name, key: &Key) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        self.inner.keyed(queue, key)
    }

    fn result(&mut self, task: Seq) -> Result<Option<Payload>, StoreError> {
        self.inner.result(task)
    }

    fn tasks(&mut self, query: &Query) -> Result<Listed, StoreError> {
        self.inner.tasks(query)
    }
}

#[tokio::test]
async fn a_failed_commit_acknowledges_nothing_and_ends_the_broker() {
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = broken.clone();
    let commit = move || match breaks.load(Ordering::Relaxed) {
        true => Err(StoreError::Failed("fsync: input/output error".into())),
        false => Ok(()),
    };
    let broker = Broker::on(Probed::backing(Box::new(commit), &Arc::default())).await;
    let mut tasks = broker.tasks().await;
    tasks.enqueue(task("echo")).await.unwrap();
    let mut session = Session::open(&broker).await;
    broken.store(true, Ordering::Relaxed);
    session.ask([Op::Enqueue(task("echo"))]).await;
    let status = session.next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "STORE_FAILED")
    );
    let ended = broker.ended().await;
    assert!(
        matches!(&ended, Err(ServerError::Store(StoreError::Failed(why))) if why.contains("fsync")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_hold_up_the_shutdown() {
    let (began, mut begun) = tokio::sync::mpsc::channel(1);
    let (release, hang) = mpsc::sync_channel::<()>(1);
    let commit = move || {
        let _ = began.try_send(());
        // Until the test is over.
        let _ = hang.recv();
        Ok(())
    };
    let backing = Probed::backing(Box::new(commit), &Arc::default());
    let broker = Broker::draining(backing, Duration::from_millis(50)).await;
    let mut session = Session::open(&broker).await;
    session.ask([Op::Enqueue(task("echo"))]).await;
    soon(begun.recv()).await.unwrap();
    let asked = Instant::now();
    let ended = broker.stop().await;
    assert!(asked.elapsed() < PATIENCE / 2);
    let said = ended.unwrap_err().to_string();
    assert!(said.contains("50ms") && said.contains("data directory"), "{said}");
    session.next().await.expect_err("nobody knows whether it is enqueued");
    drop(release);
}

#[tokio::test]
async fn large_arguments_are_read_only_when_the_worker_fetches_them() {
    let read = Arc::new(AtomicUsize::new(0));
    let broker = Broker::on(Probed::backing(Box::new(|| Ok(())), &read)).await;
    let request = v1::EnqueueRequest {
        payload: Some(json(&format!("\"{}\"", "x".repeat(INLINE_BYTES)))),
        ..task("echo")
    };
    broker.tasks().await.enqueue(request).await.unwrap();
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let first = worker.assignment().await;
    worker
        .send(v1::WorkRequest {
            released: vec![first.token.unwrap()],
            ..Default::default()
        })
        .await;
    worker.ack().await;
    // The broker does not know them any more, as after a restart.
    let second = worker.assignment().await;
    assert_eq!((second.fetch_payload, second.payload), (true, None));
    assert_eq!(read.load(Ordering::SeqCst), 0);
    let fetch = v1::FetchPayloadRequest { token: second.token };
    let fetched = broker.workers().await.fetch_payload(fetch).await.unwrap();
    assert_eq!(fetched.into_inner().data.len(), INLINE_BYTES + 2);
    assert_eq!(read.load(Ordering::SeqCst), 1);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_run_that_must_not_begin_twice_waits_for_its_claim() {
    let (stuck, (go, gate)) = (Arc::new(AtomicBool::new(false)), mpsc::sync_channel::<()>(1));
    let is_stuck = stuck.clone();
    let commit = move || {
        if is_stuck.load(Ordering::SeqCst) {
            gate.recv_timeout(PATIENCE).expect("the test lets it go on");
        }
        Ok(())
    };
    // Declared durable: a store that forgets would not take the task.
    let backing = Backing {
        durability: Durability::Sync,
        ..Probed::backing(Box::new(commit), &Arc::default())
    };
    let broker = Broker::on(backing).await;
    let mut worker = Worker::connect(&broker, 2, &["pay", "look"]).await;
    let mut session = Session::open(&broker).await;
    stuck.store(true, Ordering::SeqCst);
    let once = v1::EnqueueRequest {
        options: Some(v1::TaskOptions {
            at_most_once: true,
            ..Default::default()
        }),
        ..task("pay")
    };
    session.ask([Op::Enqueue(once), Op::Enqueue(task("look"))]).await;
    let first = worker.assignment().await;
    assert_eq!((first.name.as_str(), first.at_most_once), ("look", false));
    stuck.store(false, Ordering::SeqCst);
    go.send(()).unwrap();
    let second = worker.assignment().await;
    assert_eq!((second.name.as_str(), second.at_most_once), ("pay", true));
    drop(go);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_store_that_forgets_promises_nothing() {
    let broker = Broker::start().await;
    let once = v1::EnqueueRequest {
        options: Some(v1::TaskOptions {
            at_most_once: true,
            ..Default::default()
        }),
        ..task("pay")
    };
    let refused = broker.tasks().await.enqueue(once).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    assert!(refused.message().contains("in memory"), "{refused:?}");
    broker.stop().await.unwrap();
}
