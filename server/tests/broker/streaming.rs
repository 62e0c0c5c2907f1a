//! The two ends of a stream written by hand, and a store that waits.

use std::sync::{Arc, Condvar, Mutex};

use asynq_core::{Change, Epoch, Seq, TaskRecord, Timestamp};
use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::v1::emit_frame::Frame as Emitted;
use asynq_proto::v1::stream_frame::Frame;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self};
use asynq_store::{MemoryStore, Opened, Pruned, Reader, Store, StoreError};
use asynqd::{Backing, Durability};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{Broker, Worker, soon, task};

pub(crate) fn credit(acked: u64, limit_index: u64, limit_bytes: u64) -> v1::Credit {
    v1::Credit {
        acked,
        limit_index,
        limit_bytes,
    }
}

/// A request for items; without credit the broker keeps the window.
pub(crate) fn rows(credit: Option<v1::Credit>) -> v1::IterateRequest {
    v1::IterateRequest {
        task: Some(task("rows")),
        consumer_id: fastrand::u128(..).to_be_bytes().to_vec().into(),
        auto_ack: credit.is_none(),
        credit,
        ..Default::default()
    }
}

/// A reader of items.
pub(crate) struct Rows {
    pub(crate) id: Bytes,
    pub(crate) consumer_id: Bytes,
    frames: Streaming<v1::StreamFrame>,
    /// Items and bytes received.
    pub(crate) got: u64,
    pub(crate) bytes: u64,
}

impl Rows {
    pub(crate) async fn open(tasks: &mut TasksClient<Channel>, request: v1::IterateRequest) -> Result<Self, Status> {
        let consumer_id = request.consumer_id.clone();
        let mut frames = soon(tasks.iterate(request)).await?.into_inner();
        let first = soon(frames.message()).await?.expect("a frame");
        let (Some(Frame::Opened(opened)), Some(at)) = (first.frame, first.at) else {
            panic!("a stream begins with opened, and where")
        };
        Ok(Self {
            id: opened.id,
            consumer_id,
            frames,
            got: at.index,
            bytes: at.byte,
        })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, Status> {
        let frame = soon(self.frames.message()).await?;
        Ok(frame.map(|frame| frame.frame.expect("no frame is empty")))
    }

    /// The next batch, which must follow on.
    pub(crate) async fn items(&mut self) -> v1::ItemBatch {
        match self.next().await.unwrap() {
            Some(Frame::Items(batch)) => {
                assert_eq!((batch.first_index, batch.first_byte), (self.got, self.bytes));
                self.got += batch.lengths.len() as u64;
                self.bytes += batch.data.len() as u64;
                batch
            }
            other => panic!("not items: {other:?}"),
        }
    }

    /// Batches up to an index.
    pub(crate) async fn items_up_to(&mut self, index: u64) {
        while self.got < index {
            self.items().await;
        }
        assert_eq!(self.got, index);
    }

    /// The end, with nothing before or after it.
    pub(crate) async fn end(mut self) -> v1::StreamEnd {
        let end = match self.next().await.unwrap() {
            Some(Frame::End(end)) => end,
            other => panic!("not the end: {other:?}"),
        };
        assert_eq!(self.next().await.unwrap(), None);
        assert_eq!(end.finished.as_ref().unwrap().result, None);
        end
    }

    pub(crate) fn flow(&self, credit: v1::Credit) -> v1::FlowRequest {
        v1::FlowRequest {
            id: self.id.clone(),
            consumer_id: self.consumer_id.clone(),
            credit: Some(credit),
            open_seq: 0,
        }
    }

    pub(crate) fn stop(&self) -> v1::StopRequest {
        v1::StopRequest {
            id: self.id.clone(),
            consumer_id: self.consumer_id.clone(),
        }
    }
}

/// The Emit stream of one run.
pub(crate) struct Emit {
    pub(crate) token: v1::LeaseToken,
    frames: mpsc::Sender<v1::EmitFrame>,
    controls: Streaming<v1::EmitControl>,
    /// Items and bytes sent.
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
}

impl Emit {
    /// Takes the next run, which must be a stream, and opens Emit for it.
    pub(crate) async fn next_run(broker: &Broker, worker: &mut Worker) -> (Self, v1::Credit) {
        let run = worker.assignment().await;
        let emit = Self::open(broker, run.token.unwrap(), worker.welcome.session.clone()).await;
        (emit, run.stream.expect("a stream was asked for"))
    }

    pub(crate) async fn open(broker: &Broker, token: v1::LeaseToken, session: Bytes) -> Self {
        Self::resume(broker, token, session, None).await
    }

    /// Another one, after one broke.
    pub(crate) async fn resume(
        broker: &Broker,
        token: v1::LeaseToken,
        session: Bytes,
        resume: Option<v1::EmitResume>,
    ) -> Self {
        let (frames, outgoing) = mpsc::channel(1);
        let first = v1::EmitFrame {
            token: Some(token.clone()),
            session,
            frame: None,
            resume,
        };
        frames.send(first).await.unwrap();
        let mut workers = broker.workers().await.max_encoding_message_size(MAX_MESSAGE_BYTES);
        let controls = soon(workers.emit(ReceiverStream::new(outgoing))).await.unwrap();
        Self {
            token,
            frames,
            controls: controls.into_inner(),
            sent: 0,
            bytes: 0,
        }
    }

    pub(crate) async fn say(&self, frame: Emitted) {
        let frame = v1::EmitFrame {
            frame: Some(frame),
            ..Default::default()
        };
        self.frames.send(frame).await.unwrap();
    }

    /// Sends so many items of so many bytes as one batch.
    pub(crate) async fn items(&mut self, count: usize, bytes: usize) {
        let batch = v1::ItemBatch {
            first_index: self.sent,
            first_byte: self.bytes,
            lengths: vec![bytes as u32; count],
            data: vec![b'7'; count * bytes].into(),
            content_type: String::new(),
        };
        self.sent += count as u64;
        self.bytes += (count * bytes) as u64;
        self.say(Emitted::Items(batch)).await;
    }

    pub(crate) async fn end(&self) {
        self.say(Emitted::End(v1::EmitEnd {
            count: self.sent,
            digest: None,
        }))
        .await;
    }

    pub(crate) async fn control(&mut self) -> Result<Option<v1::EmitControl>, Status> {
        soon(self.controls.message()).await
    }

    pub(crate) async fn credit(&mut self) -> v1::Credit {
        let control = self.control().await.unwrap().expect("the stream is over");
        assert_eq!(control.ack, None);
        control.credit.unwrap()
    }

    /// Waits for credit that reaches an index.
    pub(crate) async fn credit_up_to(&mut self, limit_index: u64) -> v1::Credit {
        loop {
            let credit = self.credit().await;
            if credit.limit_index >= limit_index {
                return credit;
            }
        }
    }

    /// The verdict on the end; nothing comes after it.
    pub(crate) async fn ack(mut self) -> v1::RunAck {
        let ack = loop {
            let control = self.control().await.unwrap().expect("no verdict came");
            if let Some(ack) = control.ack {
                break ack;
            }
        };
        assert_eq!(self.control().await.unwrap(), None);
        ack
    }
}

/// Sends items of so many bytes, one by one, as credit allows.
pub(crate) async fn produce(mut emit: Emit, mut room: v1::Credit, count: u64, bytes: usize) -> v1::RunAck {
    while emit.sent < count {
        if emit.sent < room.limit_index && emit.bytes + bytes as u64 <= room.limit_bytes {
            emit.items(1, bytes).await;
        } else {
            room = emit.credit().await;
        }
    }
    emit.end().await;
    emit.ack().await
}

/// A memory store whose commits wait while its gate is shut.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: bool,
}

impl Gate {
    pub(crate) fn backing(&self) -> Backing {
        Backing {
            store: Box::new(Gated {
                inner: MemoryStore::new(),
                gate: self.clone(),
            }),
            durability: Durability::Memory,
        }
    }

    pub(crate) fn shut(&self) {
        self.0.0.lock().unwrap().shut = true;
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().shut = false;
        self.0.1.notify_all();
    }

    /// Until a commit waits.
    pub(crate) async fn holds(&self) {
        soon(async {
            while !self.0.0.lock().unwrap().waiting {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting = true;
        while state.shut {
            state = changed.wait(state).unwrap();
        }
        state.waiting = false;
    }
}

struct Gated {
    inner: MemoryStore,
    gate: Gate,
}

impl Store for Gated {
    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        self.inner.open(now, live)
    }

    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError> {
        self.gate.pass();
        self.inner.commit(epoch, batch, changes)
    }

    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        self.inner.prune(epoch, now, budget)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }
}
