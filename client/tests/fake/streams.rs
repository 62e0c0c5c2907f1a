//! The fake broker's streams: what an iterated task yields, within its credit.

use std::{collections::HashMap, pin::Pin};

use asynq_proto::v1::{self, Credit, stream_frame::Frame};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Status, codegen::Bytes};
use tonic_types::{ErrorDetails, StatusExt};
use v1::TaskState;

use super::{Fake, lock};

pub(crate) type Frames = Pin<Box<dyn Stream<Item = Result<v1::StreamFrame, Status>> + Send>>;

/// Items to a frame.
const BATCH: usize = 64;

#[derive(Default)]
pub(crate) struct Streams {
    /// In the order they were opened.
    open: Vec<watch::Sender<Seen>>,
    by_consumer: HashMap<Bytes, usize>,
}

/// What has been seen of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) credit: Credit,
    pub(crate) sent: u64,
    /// The reader has asked for its end.
    pub(crate) stopped: bool,
    /// The reader has gone without.
    pub(crate) gone: bool,
}

impl Streams {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.open.iter().map(|stream| *stream.borrow()).collect()
    }

    pub(crate) fn flow(&mut self, request: &v1::FlowRequest) {
        let (stream, credit) = (
            &self.open[self.by_consumer[&request.consumer_id]],
            request.credit.unwrap(),
        );
        stream.send_modify(|seen| {
            let had = seen.credit;
            assert!(
                credit.acked >= had.acked
                    && credit.limit_index >= had.limit_index
                    && credit.limit_bytes >= had.limit_bytes,
                "{credit:?} after {had:?}"
            );
            assert!(credit.acked <= seen.sent);
            seen.credit = credit;
        });
    }

    pub(crate) fn stop(&mut self, request: &v1::StopRequest) -> Option<v1::Cancelled> {
        let stream = &self.open[*self.by_consumer.get(&request.consumer_id)?];
        stream.send_modify(|seen| seen.stopped = true);
        Some(v1::Cancelled {
            id: request.id.clone(),
            outcome: v1::cancelled::Outcome::Stopping.into(),
            state: TaskState::Stopping.into(),
        })
    }
}

pub(crate) fn open(fake: &Fake, request: v1::IterateRequest) -> Result<Frames, Status> {
    let task = request.task.unwrap();
    let name = task.name.clone();
    let refusal = |code, reason| {
        let details = ErrorDetails::with_error_info(reason, "asynq", []);
        Err(Status::with_error_details(code, "refused as asked", details))
    };
    if let Some(code) = name.strip_prefix("refused.") {
        return refusal(Code::from_i32(code.parse().unwrap()), "TEST");
    }
    let is_new = lock(&fake.inner.tasks).is_new(&task.id);
    if !is_new && name != "not_now" {
        return refusal(Code::AlreadyExists, "STREAM_TAKEN");
    }
    let text = task.payload.clone().unwrap_or_default().data;
    let source = Source {
        count: str::from_utf8(&text).unwrap().parse().unwrap_or(0),
        name,
        id: task.id.clone(),
    };
    let opened = lock(&fake.inner.tasks).enqueue(task);
    if is_new && matches!(source.name.as_str(), "not_now" | "lost") {
        return Err(Status::unavailable("not now"));
    }
    assert_eq!(request.consumer_id.len(), 16);
    let seen = watch::Sender::new(Seen {
        credit: request.credit.unwrap(),
        ..Seen::default()
    });
    let mut streams = lock(&fake.inner.streams);
    let index = streams.open.len();
    streams.by_consumer.insert(request.consumer_id, index);
    streams.open.push(seen.clone());
    let (frames, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let frames = Sender(frames);
        let produced = async {
            frames.send(Frame::Opened(opened)).await?;
            source.produce(&seen, &frames).await
        };
        if produced.await.is_err() {
            seen.send_modify(|seen| seen.gone = true);
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

struct Source {
    name: String,
    id: Bytes,
    count: u64,
}

/// The reader has gone.
struct Gone;

struct Sender(mpsc::Sender<Result<v1::StreamFrame, Status>>);

impl Sender {
    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        let frame = v1::StreamFrame { frame: Some(frame) };
        self.0.send(Ok(frame)).await.map_err(|_| Gone)
    }
}

impl Source {
    async fn produce(&self, seen: &watch::Sender<Seen>, frames: &Sender) -> Result<(), Gone> {
        let (mut heard, mut at) = (seen.subscribe(), 0);
        loop {
            let Seen {
                credit, sent, stopped, ..
            } = *heard.borrow_and_update();
            if stopped {
                return frames.send(self.end(sent, TaskState::Cancelled)).await;
            }
            let batch = self.batch(sent, at, credit);
            if !batch.lengths.is_empty() {
                at += batch.data.len() as u64;
                seen.send_modify(|seen| seen.sent += batch.lengths.len() as u64);
                frames.send(Frame::Items(batch)).await?;
            } else if sent == self.count && self.name == "cut" {
                let _gone = frames.0.send(Err(Status::unavailable("cut"))).await;
                return Ok(());
            } else if sent == self.count && !matches!(self.name.as_str(), "slow" | "nobody") {
                return frames.send(self.end(sent, TaskState::Succeeded)).await;
            } else {
                tokio::select! {
                    _ = heard.changed() => {}
                    () = frames.0.closed() => return Err(Gone),
                }
            }
        }
    }

    fn batch(&self, first: u64, first_byte: u64, mut credit: Credit) -> v1::ItemBatch {
        if self.name == "over" {
            credit.limit_index *= 2;
        }
        let (mut lengths, mut data) = (Vec::new(), Vec::new());
        for index in first..self.count.min(credit.limit_index) {
            let item = match self.name.as_str() {
                "large" => format!("\"{}\"", "x".repeat(3 * 1024 * 1024)),
                _ => index.to_string(),
            };
            let end = first_byte + (data.len() + item.len()) as u64;
            if end > credit.limit_bytes || lengths.len() == BATCH || data.len() > BATCH * 1024 {
                break;
            }
            lengths.push(u32::try_from(item.len()).unwrap());
            data.extend_from_slice(item.as_bytes());
        }
        v1::ItemBatch {
            first_index: first,
            first_byte,
            lengths,
            data: data.into(),
            content_type: String::new(),
        }
    }

    fn end(&self, count: u64, state: TaskState) -> Frame {
        let finished = match self.name.as_str() {
            "cancelled" => TaskState::Cancelled,
            name if name.starts_with("dead.") => TaskState::Dead,
            _ => state,
        };
        let failed = finished == TaskState::Dead;
        Frame::End(v1::StreamEnd {
            count,
            finished: Some(v1::Finished {
                id: self.id.clone(),
                state: finished.into(),
                dead_reason: v1::DeadReason::Error.into(),
                error: failed.then(|| v1::TaskFailure {
                    kind: "error".to_owned(),
                    message: "it broke".to_owned(),
                    ..v1::TaskFailure::default()
                }),
                ..v1::Finished::default()
            }),
        })
    }
}
