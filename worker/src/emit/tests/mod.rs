//! Streams without their wire: the test grants credit, reads frames, and cuts lanes.

mod breaks;
mod checkpoints;
mod flow;
mod reruns;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use asynq_proto::Place;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{EmitEnd, EmitFrame, EmitResume, ItemBatch};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::lane::{Lane, Link, Word};
use super::*;
use crate::calls::OfRun;
use crate::context::{Control, LeaseToken, Run, StopCause};
use crate::items::{Items, Typed, TypedIterator};
use crate::limits::BLOCKED_AFTER;

/// The broker's end of a stream.
struct Rig {
    lanes: mpsc::Receiver<Far>,
    lane: Option<Far>,
    credit: watch::Sender<Credit>,
    control: Control,
    slots: Arc<Semaphore>,
    run: JoinHandle<(Option<Outcome>, Slot)>,
}

/// The broker's end of a lane.
struct Far {
    resume: EmitResume,
    frames: mpsc::Receiver<EmitFrame>,
    from: Option<oneshot::Sender<u64>>,
    word: oneshot::Sender<Word>,
}

fn credit(limit_index: u64, limit_bytes: u64) -> Credit {
    Credit {
        acked: 0,
        limit_index,
        limit_bytes,
    }
}

const PLENTY: Credit = Credit {
    acked: 0,
    limit_index: u64::MAX,
    limit_bytes: u64::MAX,
};

pub(super) fn context(control: &Control, start: Place) -> Context {
    context_from(control, Start::new(start, None))
}

fn context_from(control: &Control, start: Start) -> Context {
    Context::new(Run {
        token: LeaseToken {
            task_id: Uuid::from_u128(1),
            epoch: 1,
            attempt: 1,
        },
        name: "test".into(),
        queue: String::new(),
        series: String::new(),
        time: crate::extend::RunTime::default(),
        at_most_once: false,
        control: control.clone(),
        calls: OfRun::default(),
        start,
    })
}

fn start(items: impl Items + 'static, first: Credit) -> Rig {
    let control = Control::default();
    let context = context(&control, Place::START);
    emit(context, control, Box::new(items), first)
}

fn emit(context: Context, control: Control, items: Box<dyn Items>, first: Credit) -> Rig {
    let (opened, lanes) = mpsc::channel(1);
    let (granted, credits) = watch::channel(first);
    let run = context.clone();
    let open = move |resume| {
        let (frames_in, frames) = mpsc::channel(1);
        let (answer, from) = oneshot::channel();
        let (word, said) = oneshot::channel();
        let link = tokio::spawn(async { said.await.unwrap_or(Word::Lost("dropped".into())) });
        let far = Far {
            resume,
            frames,
            from: Some(answer),
            word,
        };
        assert!(opened.try_send(far).is_ok(), "one at a time");
        Lane {
            frames: frames_in,
            from,
            link: Link::new(run.clone(), AbortOnDropHandle::new(link)),
        }
    };
    let slots = Arc::new(Semaphore::new(1));
    let emission = Emission {
        context,
        open: Box::new(open),
        credit: credits,
        slot: slots.clone().try_acquire_owned().ok(),
    };
    Rig {
        lanes,
        lane: None,
        credit: granted,
        control,
        slots,
        run: tokio::spawn(emission.run(Ok(items))),
    }
}

impl Rig {
    async fn lane(&mut self) -> &mut Far {
        if self.lane.is_none() {
            self.lane = self.lanes.recv().await;
        }
        self.lane.as_mut().expect("the run goes on")
    }

    async fn next(&mut self) -> Frame {
        self.lane().await.frames.recv().await.unwrap().frame.unwrap()
    }

    async fn items(&mut self) -> ItemBatch {
        match self.next().await {
            Frame::Items(items) => items,
            other => panic!("{other:?} came instead of items"),
        }
    }

    /// The next frame, or `None` if nothing more happens by itself within this time.
    async fn next_within(&mut self, time: Duration) -> Option<Frame> {
        timeout(time, self.next()).await.ok()
    }

    /// Ends the lane.
    async fn say(&mut self, word: Word) {
        self.lane().await;
        let _ = self.lane.take().unwrap().word.send(word); // it may have heard that before
    }

    /// Cuts the lane; gives what the next one begins with.
    async fn cut(&mut self) -> EmitResume {
        self.say(Word::Lost("cut".into())).await;
        self.lane().await.resume
    }

    /// Answers from where to go on.
    async fn from(&mut self, index: u64) {
        self.lane().await.from.take().unwrap().send(index).unwrap();
    }
}

fn numbers(n: u64) -> Typed<impl Stream<Item = Result<u64, TaskError>> + Send> {
    Typed(Box::pin(stream::iter((0..n).map(Ok))))
}

/// The place behind the numbers before `n`.
fn behind(n: u64) -> Place {
    let mut place = Place::START;
    for i in 0..n {
        place.pass(i.to_string().as_bytes());
    }
    place
}

/// The end of the numbers before `n`.
fn end(n: u64) -> Frame {
    Frame::End(EmitEnd {
        count: n,
        digest: behind(n).digest,
    })
}

fn split(batch: &ItemBatch) -> Vec<&[u8]> {
    let mut rest = &batch.data[..];
    let mut items = vec![];
    for length in &batch.lengths {
        let (item, behind) = rest.split_at(*length as usize);
        items.push(item);
        rest = behind;
    }
    assert!(rest.is_empty());
    items
}
