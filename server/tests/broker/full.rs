//! What the broker makes of a disk that is full, and of one that is slow to read.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use asynq_core::{Change, Epoch, Key, Name, Payload, Seq, TaskId, TaskRecord, Timestamp};
use asynq_proto::v1::{self, TaskState};
use asynq_store::{Listed, MemoryStore, Opened, Pruned, Query, Reader, Room, Store, StoreError};
use asynqd::{Backing, Durability};
use tonic::Code;

use crate::harness::{Broker, Worker, hello, json, new_id, reason, soon, task};

/// A shard that outlives its brokers, and what its disk is like.
#[derive(Clone, Default)]
struct Disk {
    shard: MemoryStore,
    is_full: bool,
    /// Until it may be read, if it waits for that.
    gate: Option<Arc<Mutex<Receiver<()>>>>,
}

impl Disk {
    fn backing(&self) -> Backing {
        Backing {
            store: Box::new(self.clone()),
            durability: Durability::Sync,
        }
    }
}

impl Store for Disk {
    fn latest(&mut self) -> Result<Timestamp, StoreError> {
        self.shard.latest()
    }

    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        self.shard.open(now, live)
    }

    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError> {
        self.shard.commit(epoch, batch, changes)
    }

    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        self.shard.prune(epoch, now, budget)
    }

    fn room(&mut self) -> Option<Room> {
        const MIB: u64 = 1024 * 1024;
        Some(Room {
            free: if self.is_full { 0 } else { 64 * MIB },
            low: 4 * MIB,
            high: 6 * MIB,
            reserved: true,
        })
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(DiskReader {
            inner: self.shard.reader()?,
            gate: self.gate.clone(),
        }))
    }
}

struct DiskReader {
    inner: Box<dyn Reader>,
    gate: Option<Arc<Mutex<Receiver<()>>>>,
}

impl Reader for DiskReader {
    fn payloads(&mut self, tasks: &[Seq]) -> Result<Vec<Option<Payload>>, StoreError> {
        self.inner.payloads(tasks)
    }

    fn task(&mut self, id: TaskId) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        if let Some(gate) = &self.gate {
            // The test is over where nobody lets it on.
            let _ = gate.lock().unwrap().recv();
        }
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

/// A broker whose disk has become full under a run of this task.
async fn full_under(request: v1::EnqueueRequest) -> (Broker, Worker, v1::LeaseToken) {
    let mut disk = Disk::default();
    let begun = Broker::on(disk.backing()).await;
    let name = request.name.clone();
    let mut worker = Worker::connect(&begun, 1, &[&name]).await;
    begun.tasks().await.enqueue(request).await.unwrap();
    let token = worker.assignment().await.token.unwrap();
    begun.stop().await.unwrap();
    disk.is_full = true;
    let broker = Broker::on(disk.backing()).await;
    let resume = v1::WorkHello {
        resume: worker.welcome.session.clone(),
        held: vec![token.clone()],
        ..hello(1, &[&name])
    };
    let worker = Worker::say_hello(&broker, resume).await.unwrap();
    (broker, worker, token)
}

/// The task that has the key has started, so none takes its place: there is nothing to
/// find space for.
#[tokio::test]
async fn on_a_full_disk_what_makes_no_task_is_answered() {
    let keyed = |on_key: v1::OnKey, argument| v1::EnqueueRequest {
        id: new_id(),
        payload: Some(json(argument)),
        // Its grant is durable at once, so that it is known to have started.
        options: Some(v1::TaskOptions {
            at_most_once: true,
            key: Some("k".into()),
            on_key: on_key as i32,
            ..v1::TaskOptions::default()
        }),
        ..task("echo")
    };
    let first = keyed(v1::OnKey::Same, "1");
    let (broker, _worker, token) = full_under(first).await;
    let mut tasks = broker.tasks().await;
    let again = tasks
        .enqueue(keyed(v1::OnKey::Replace, "1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((again.id, again.existed), (token.task_id, true));
    let other = tasks.enqueue(keyed(v1::OnKey::Replace, "2")).await.unwrap_err();
    assert_eq!((other.code(), &*reason(&other)), (Code::AlreadyExists, "KEY_TAKEN"));
    let new = tasks.enqueue(task("echo")).await.unwrap_err();
    assert_eq!(reason(&new), "DISK_FULL");
    broker.stop().await.unwrap();
}

/// It did its work and is not to blame: there may be space in a while.
#[tokio::test]
async fn on_a_full_disk_a_run_that_spawns_is_tried_again() {
    let (broker, mut worker, token) = full_under(task("echo")).await;
    let spawned = v1::RunCall {
        call: 1,
        token: Some(token.clone()),
        n: 1,
        name: "child".into(),
        payload: Some(json("1")),
        ..v1::RunCall::default()
    };
    let done = v1::Completion {
        token: Some(token.clone()),
        result: Some(json("1")),
        spawned: vec![spawned],
    };
    let request = v1::WorkRequest {
        completions: vec![done],
        ..v1::WorkRequest::default()
    };
    worker.send(request).await;
    let ack = worker.ack().await;
    assert_eq!((ack.stale, ack.state()), (false, TaskState::Scheduled));
    let show = v1::ShowRequest { id: token.task_id };
    let shown = broker.tasks().await.show(show).await.unwrap().into_inner();
    assert_eq!((shown.failures, &*shown.error.unwrap().kind), (1, "limit"));
    broker.stop().await.unwrap();
}

/// A call is sent again, and withdrawn while the store is asked whether it is known: it
/// never begins.
#[tokio::test]
async fn what_is_withdrawn_while_it_is_looked_up_does_not_run() {
    let (go_on, gate) = sync_channel::<()>(0);
    let disk = Disk {
        gate: Some(Arc::new(Mutex::new(gate))),
        ..Disk::default()
    };
    let broker = Broker::on(disk.backing()).await;
    broker.tasks().await.enqueue(task("parent")).await.unwrap();
    let mut worker = Worker::connect(&broker, 1, &["parent", "child"]).await;
    let parent = worker.assignment().await.token.unwrap();
    let call = v1::RunCall {
        call: 7,
        token: Some(parent.clone()),
        n: 1,
        name: "child".into(),
        payload: Some(json("1")),
        again: true,
        ..v1::RunCall::default()
    };
    worker.call(call.clone()).await;
    worker.heartbeat(1).await; // It has been taken in.
    let withdrawn = v1::WorkRequest {
        withdrawn: vec![call],
        ..v1::WorkRequest::default()
    };
    worker.send(withdrawn).await;
    worker.heartbeat(2).await;
    drop(go_on); // From here on nothing waits.
    let answer = worker.call_answer().await;
    assert!(matches!(answer.of, Some(v1::call_answer::Of::Error(_))), "{answer:?}");
    // What is asked for later is answered later.
    worker.complete(Some(parent.clone()), json("2")).await;
    worker.ack().await;
    let mut admin = broker.admin().await;
    let queues = soon(admin.list_queues(v1::ListQueuesRequest::default())).await;
    let queues = queues.unwrap().into_inner().queues;
    let seen = (
        queues[0].succeeded,
        queues[0].cancelled,
        queues[0].ready,
        queues[0].running,
    );
    assert_eq!(seen, (1, 0, 0, 0), "there never was a child");
    broker.stop().await.unwrap();
}
