//! A listing and what happens while it is read.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use asynq_core::{Change, Epoch, Key, Name, Payload, Seq, TaskId, TaskRecord, Timestamp};
use asynq_proto::v1;
use asynq_proto::v1::TaskState::{self, Cancelled, Ready, Running, Succeeded};
use asynq_store::{Listed, MemoryStore, Opened, Pruned, Query, Reader, Store, StoreError};
use asynqd::{Backing, Durability};
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Code;

use crate::harness::{Broker, Worker, json, reason, soon, task};
use crate::listing::{enqueue, ids, request};

/// A store whose listings are held back after they have been read.
struct Slow {
    inner: MemoryStore,
    gate: Gate,
}

/// Says that something has been read, and waits to be let on.
#[derive(Clone)]
struct Gate {
    read: mpsc::Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl Store for Slow {
    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        self.inner.open(now, live)
    }

    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError> {
        self.inner.commit(epoch, batch, changes)
    }

    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        self.inner.prune(epoch, now, budget)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(SlowReader {
            inner: self.inner.reader()?,
            gate: self.gate.clone(),
        }))
    }
}

struct SlowReader {
    inner: Box<dyn Reader>,
    gate: Gate,
}

impl Reader for SlowReader {
    fn payloads(&mut self, tasks: &[Seq]) -> Result<Vec<Option<Payload>>, StoreError> {
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
        let listed = self.inner.tasks(query);
        self.gate.read.blocking_send(()).unwrap();
        self.gate.go_on.lock().unwrap().recv().unwrap();
        listed
    }
}

/// What was read is the past by then. Runs and shows do not wait for it.
#[tokio::test]
async fn what_happens_while_a_page_is_read_is_in_it() {
    let (read, mut has_read) = mpsc::channel(1);
    let (release, go_on) = sync_channel(1);
    let gate = Gate {
        read,
        go_on: Arc::new(Mutex::new(go_on)),
    };
    let store = Slow {
        inner: MemoryStore::new(),
        gate,
    };
    let broker = Broker::on(Backing {
        store: Box::new(store),
        durability: Durability::Memory,
    })
    .await;
    let mut worker = Worker::connect(&broker, 2, &["work"]).await;
    let mut enqueued = Vec::new();
    for name in ["nobody", "work", "work", "nobody"] {
        enqueued.push(enqueue(&broker, task(name)).await);
    }
    let runs = [worker.assignment().await, worker.assignment().await];
    let (mut tasks, admin) = (broker.tasks().await, broker.admin().await);
    let begin = |states: &[TaskState]| {
        let states = states.iter().map(|&state| state.into()).collect();
        let mut admin = admin.clone();
        tokio::spawn(async move { admin.list_tasks(v1::ListTasksRequest { states, ..request() }).await })
    };

    let page = begin(&[]);
    soon(has_read.recv()).await.unwrap();
    worker.complete(runs[0].token.clone(), json("1")).await;
    worker.ack().await;
    let cancel = |n: usize| v1::CancelRequest {
        id: enqueued[n].clone(),
    };
    tasks.cancel(cancel(3)).await.unwrap();
    let shown = tasks.show(v1::ShowRequest {
        id: enqueued[3].clone(),
    });
    assert_eq!(shown.await.unwrap().into_inner().state(), Cancelled);
    let newer = enqueue(&broker, task("nobody")).await;
    release.send(()).unwrap();
    let page = soon(page).await.unwrap().unwrap().into_inner();
    let states: Vec<_> = page.tasks.iter().map(v1::TaskInfo::state).collect();
    assert_eq!(states, [Cancelled, Running, Succeeded, Ready]);
    assert!(ids(&page).into_iter().rev().eq(enqueued.iter().map(Bytes::as_ref)));

    // One that ends meanwhile is not ready.
    let page = begin(&[Ready]);
    soon(has_read.recv()).await.unwrap();
    tasks.cancel(cancel(0)).await.unwrap();
    release.send(()).unwrap();
    let page = soon(page).await.unwrap().unwrap().into_inner();
    assert_eq!((ids(&page), page.next.as_str()), (vec![&newer[..]], ""));

    // What runs, the store is not asked about.
    let page = soon(begin(&[Running])).await.unwrap().unwrap().into_inner();
    assert_eq!(ids(&page), [&enqueued[2]]);
    // A broker that goes down keeps nobody waiting for a page.
    let page = begin(&[]);
    soon(has_read.recv()).await.unwrap();
    broker.stop().await.unwrap();
    let status = soon(page).await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    release.send(()).unwrap();
}
