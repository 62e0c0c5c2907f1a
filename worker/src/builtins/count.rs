//! The builtin `count`: numbers, as many, as large and as fast as asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use asynq_proto::limits::MAX_PAYLOAD_BYTES;
use asynq_proto::{Iter, OnLoss, TaskError};
use futures_util::future::{Either, ready as just};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::time::{Sleep, sleep};

use crate::context::Context;

pub(super) const COUNT: Iter<Count, Number> = Iter::new("count", OnLoss::Replay);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Count {
    /// How many items.
    n: u64,
    /// Length of the padding of each.
    #[serde(default)]
    bytes: usize,
    /// Pause between two items, as exact as the runtime's timers: a millisecond.
    #[serde(default)]
    delay_us: u64,
}

/// An item of `count`.
#[derive(Serialize)]
pub(super) struct Number {
    i: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pad: Option<Pad>,
}

/// A JSON string, written once for all items: `count` is what item rates are
/// measured with.
#[derive(Clone)]
struct Pad(Arc<RawValue>);

impl Serialize for Pad {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

/// Counts from 0 to n − 1; run again, from where it is to go on.
pub(super) fn count(context: Context, args: Count) -> impl Stream<Item = Result<Number, TaskError>> + Send + use<> {
    let refused = |message| Either::Left(stream::once(just(Err(TaskError::rejected(message)))));
    if args.bytes > MAX_PAYLOAD_BYTES {
        return refused(format!(
            "bytes must be at most {MAX_PAYLOAD_BYTES}, the size of an item"
        ));
    }
    let pad = match RawValue::from_string(format!("\"{}\"", "x".repeat(args.bytes))) {
        Ok(pad) => (args.bytes > 0).then(|| Pad(pad.into())),
        Err(error) => return refused(error.to_string()),
    };
    Either::Right(Counter {
        next: context.start_index().min(args.n),
        n: args.n,
        pad,
        delay: Duration::from_micros(args.delay_us),
        pause: None,
    })
}

struct Counter {
    next: u64,
    n: u64,
    pad: Option<Pad>,
    delay: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Counter {
    type Item = Result<Number, TaskError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        if self.next == self.n {
            return Poll::Ready(None);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
        }
        let number = Number {
            i: self.next,
            pad: self.pad.clone(),
        };
        self.next += 1;
        self.pause = (!self.delay.is_zero()).then(|| Box::pin(sleep(self.delay)));
        Poll::Ready(Some(Ok(number)))
    }
}
