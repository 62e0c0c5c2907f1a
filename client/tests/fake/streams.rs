//! The fake broker's streams: what an iterated task yields, within its credit and
//! until the stream breaks, to one reader at a time.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
};

use asynq_proto::{
    Place,
    v1::{self, Credit, stream_frame::Frame},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Status, codegen::Bytes};
use tonic_types::{ErrorDetails, StatusExt};
use v1::TaskState;

use super::{Fake, lock};

pub(crate) type Frames = Pin<Box<dyn Stream<Item = Result<v1::StreamFrame, Status>> + Send>>;

/// Items to a frame.
const BATCH: usize = 64;

/// What is to go wrong with an opening.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// There is no broker, not for the openings after it either.
    Away,
    /// It is taken, and the answer lost.
    Before,
    /// It breaks after so many frames, of which the first says that it is open; without a word, or not.
    After(usize, bool),
    /// It is refused with this code.
    Refused(i32, &'static str),
    /// Its items are others than they were.
    OtherItems,
    /// It says another digest of the items before it.
    OtherDigest,
}

impl Fault {
    fn parse(text: &'static str) -> Self {
        let mut parts = text.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("away"), ..) => Self::Away,
            (Some("before"), ..) => Self::Before,
            (Some("other_items"), ..) => Self::OtherItems,
            (Some("other_digest"), ..) => Self::OtherDigest,
            (Some("refused"), Some(code), Some(reason)) => Self::Refused(code.parse().unwrap(), reason),
            (Some(frames), quiet, _) => Self::After(frames.parse().unwrap(), quiet == Some("quiet")),
            _ => unreachable!("a text has a part"),
        }
    }
}

#[derive(Default)]
pub(crate) struct Streams {
    /// One for each task, in the order they were opened.
    open: Vec<watch::Sender<Seen>>,
    by_task: HashMap<Bytes, usize>,
    requests: Vec<v1::IterateRequest>,
    faults: VecDeque<Fault>,
}

/// What has been seen of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) credit: Credit,
    /// Of the present reader, who may give less room than the one before.
    own: Credit,
    pub(crate) sent: u64,
    /// The reader has asked for its end.
    pub(crate) stopped: bool,
    /// The reader has gone without.
    pub(crate) gone: bool,
    /// Who reads it, and for the how-manieth time it was opened.
    reader: Option<([u8; 16], u64)>,
}

impl Streams {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.open.iter().map(|stream| *stream.borrow()).collect()
    }

    pub(crate) fn requests(&self) -> Vec<v1::IterateRequest> {
        self.requests.clone()
    }

    pub(crate) fn fail(&mut self, faults: &[&'static str]) {
        self.faults = faults.iter().map(|fault| Fault::parse(fault)).collect();
    }

    pub(crate) fn flow(&mut self, request: &v1::FlowRequest) {
        let Some(&stream) = self.by_task.get(&request.id) else {
            return;
        };
        let credit = request.credit.unwrap();
        self.open[stream].send_if_modified(|seen| {
            // Of an opening that is over, perhaps.
            let is_now = seen.reader == Some((consumer(&request.consumer_id), request.open_seq));
            if is_now {
                assert!(credit.acked <= seen.sent);
                seen.raise(credit);
            }
            is_now
        });
    }

    pub(crate) fn stop(&mut self, request: &v1::StopRequest) -> Option<v1::Cancelled> {
        let stream = &self.open[*self.by_task.get(&request.id)?];
        stream.send_modify(|seen| seen.stopped = true);
        Some(v1::Cancelled {
            id: request.id.clone(),
            outcome: v1::cancelled::Outcome::Stopping.into(),
            state: TaskState::Stopping.into(),
        })
    }
}

impl Seen {
    fn raise(&mut self, credit: Credit) {
        let had = std::mem::replace(&mut self.own, credit);
        assert!(
            credit.acked >= had.acked && credit.limit_index >= had.limit_index && credit.limit_bytes >= had.limit_bytes,
            "{credit:?} after {had:?}"
        );
        self.credit = Credit {
            acked: credit.acked.max(self.credit.acked),
            limit_index: credit.limit_index.max(self.credit.limit_index),
            limit_bytes: credit.limit_bytes.max(self.credit.limit_bytes),
        };
    }
}

fn consumer(id: &[u8]) -> [u8; 16] {
    id.try_into().unwrap()
}

fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "asynq", []);
    Status::with_error_details(code, message, details)
}

pub(crate) fn open(fake: &Fake, mut request: v1::IterateRequest) -> Result<Frames, Status> {
    let mut streams = lock(&fake.inner.streams);
    streams.requests.push(request.clone());
    if let Some(Fault::Away) = streams.faults.front() {
        return Err(Status::unavailable("away"));
    }
    let fault = streams.faults.pop_front();
    let mut task = request.task.take().unwrap();
    let id = task.id.clone();
    let known = lock(&fake.inner.tasks).request(&id);
    if request.attach {
        assert_eq!(
            task,
            v1::EnqueueRequest {
                id: id.clone(),
                ..Default::default()
            }
        );
        task = known
            .clone()
            .ok_or_else(|| refusal(Code::NotFound, "TASK_NOT_FOUND", "there is no such task"))?;
    }
    let name = task.name.clone();
    if name == "echo" {
        return Err(refusal(Code::FailedPrecondition, "NOT_A_STREAM", "it yields no items"));
    }
    if let Some(code) = name.strip_prefix("refused.") {
        let code = Code::from_i32(code.parse().unwrap());
        return Err(refusal(code, "TEST", "refused as asked"));
    }
    if let Some(Fault::Refused(code, reason)) = fault {
        return Err(refusal(Code::from_i32(code), reason, "refused as asked"));
    }
    let text = task.payload.clone().unwrap_or_default().data;
    let mut source = Source {
        count: str::from_utf8(&text).unwrap().parse().unwrap_or(0),
        name,
        id: id.clone(),
        shift: 0,
    };
    let stream = match streams.by_task.get(&id) {
        Some(&stream) => stream,
        None => {
            streams.open.push(watch::Sender::default());
            let stream = streams.open.len() - 1;
            streams.by_task.insert(id, stream);
            stream
        }
    };
    let seen = streams.open[stream].clone();
    let at = admit(&seen, &source, &request)?;
    let opened = lock(&fake.inner.tasks).enqueue(task);
    let lost = matches!(fault, Some(Fault::Before)) || (known.is_none() && source.name == "not_now");
    if lost {
        return Err(Status::unavailable("not now"));
    }
    let mut told = v1::StreamPosition::from(at);
    match fault {
        Some(Fault::OtherItems) => source.shift = 1,
        Some(Fault::OtherDigest) => told.digest = told.digest.map(|digest| digest ^ 1),
        _ => {}
    }
    let (frames, body) = mpsc::channel(1);
    let (left, quiet) = match fault {
        Some(Fault::After(frames, quiet)) => (Some(frames), quiet),
        _ => (None, false),
    };
    let mut frames = Sender { frames, left, quiet };
    let first = known.is_none();
    tokio::spawn(async move {
        let me = seen.borrow().reader;
        let produced = async {
            frames.send(Frame::Opened(opened), Some(told)).await?;
            source.produce(&seen, &mut frames, at, first).await
        };
        if produced.await.is_err() {
            seen.send_if_modified(|seen| {
                let is_now = seen.reader == me;
                seen.gone |= is_now;
                is_now
            });
        }
    });
    Ok(Box::pin(ReceiverStream::new(body)))
}

/// Takes the reader in, and says where its items begin.
fn admit(stream: &watch::Sender<Seen>, source: &Source, request: &v1::IterateRequest) -> Result<Place, Status> {
    let (reader, now) = ((consumer(&request.consumer_id), request.open_seq), *stream.borrow());
    match now.reader {
        Some((consumer, seq)) if consumer == reader.0 && seq >= reader.1 => {
            return Err(refusal(Code::Aborted, "STALE_READER", "it was opened again"));
        }
        Some((consumer, _)) if consumer != reader.0 && !now.gone && !request.take_over => {
            return Err(refusal(Code::AlreadyExists, "BEING_READ", "another reads it"));
        }
        _ => {}
    }
    if request.from_index < now.credit.acked {
        let floor = format!("item {} is the first that is kept", now.credit.acked);
        return Err(refusal(Code::OutOfRange, "BELOW_FLOOR", &floor));
    }
    let mut at = Place::START;
    for index in 0..request.from_index {
        at.pass(source.item(index).as_bytes());
    }
    if let Some(from) = request.from {
        assert_eq!(Place::from(from), at, "it is where it says that it is");
    }
    let mut credit = request.credit.unwrap();
    assert_eq!(credit.acked, at.index);
    credit.limit_bytes += at.byte;
    stream.send_modify(|seen| {
        if now.reader.is_none_or(|(consumer, _)| consumer != reader.0) {
            seen.own = Credit::default();
        }
        seen.raise(credit);
        (seen.reader, seen.gone) = (Some(reader), false);
    });
    Ok(at)
}

struct Source {
    name: String,
    id: Bytes,
    count: u64,
    /// By how much its items are others.
    shift: u64,
}

/// The reader has gone.
struct Gone;

struct Sender {
    frames: mpsc::Sender<Result<v1::StreamFrame, Status>>,
    /// Frames until it breaks.
    left: Option<usize>,
    /// It breaks without a word.
    quiet: bool,
}

impl Sender {
    async fn send(&mut self, frame: Frame, at: Option<v1::StreamPosition>) -> Result<(), Gone> {
        if self.left == Some(0) {
            return self.cut().await;
        }
        self.left = self.left.map(|left| left - 1);
        let frame = v1::StreamFrame { frame: Some(frame), at };
        self.frames.send(Ok(frame)).await.map_err(|_| Gone)?;
        match self.left {
            Some(0) => self.cut().await,
            _ => Ok(()),
        }
    }

    async fn cut(&self) -> Result<(), Gone> {
        if !self.quiet {
            let _gone = self.frames.send(Err(Status::unavailable("cut"))).await;
        }
        Err(Gone)
    }
}

impl Source {
    fn item(&self, index: u64) -> String {
        match self.name.as_str() {
            "large" => format!("\"{}\"", "x".repeat(3 * 1024 * 1024)),
            _ => (index + self.shift).to_string(),
        }
    }

    async fn produce(
        &self,
        seen: &watch::Sender<Seen>,
        frames: &mut Sender,
        at: Place,
        first: bool,
    ) -> Result<(), Gone> {
        let mut heard = seen.subscribe();
        let me = heard.borrow().reader;
        let (mut sent, mut at) = (at.index, at.byte);
        loop {
            let Seen {
                credit,
                stopped,
                reader,
                ..
            } = *heard.borrow_and_update();
            if reader != me {
                let stale = refusal(Code::Aborted, "STALE_READER", "another has taken over");
                let _gone = frames.frames.send(Err(stale)).await;
                return Ok(());
            }
            if stopped {
                return frames.send(self.end(sent, TaskState::Cancelled), None).await;
            }
            let batch = self.batch(sent, at, credit);
            if !batch.lengths.is_empty() {
                at += batch.data.len() as u64;
                sent += batch.lengths.len() as u64;
                seen.send_modify(|seen| seen.sent = seen.sent.max(sent));
                frames.send(Frame::Items(batch), None).await?;
            } else if sent == self.count && self.name == "cut" && first {
                frames.cut().await?;
            } else if sent == self.count && !matches!(self.name.as_str(), "slow" | "nobody") {
                return frames.send(self.end(sent, TaskState::Succeeded), None).await;
            } else {
                tokio::select! {
                    _ = heard.changed() => {}
                    () = frames.frames.closed() => return Err(Gone),
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
            let item = self.item(index);
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
