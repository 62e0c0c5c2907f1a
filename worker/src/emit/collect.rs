//! An iterator that is called rather than iterated: its items become one JSON array.

use std::future::poll_fn;
use std::task::Poll;

use asynq_proto::limits::{MAX_BATCH_OPS, MAX_PAYLOAD_BYTES};
use asynq_proto::{JSON, Payload, TaskError};

use crate::handler::RunResult;
use crate::items::{BlockingItems, Items, MediaType};

/// Collects the items of an async generator.
pub(crate) async fn collect(mut items: Box<dyn Items>) -> RunResult {
    let mut array = Array::default();
    poll_fn(|cx| {
        // One that is always ready must let others have their turn.
        for _ in 0..MAX_BATCH_OPS {
            match items.poll_next(cx, array.open()) {
                Poll::Ready(Some(item)) => array.admit(&item?)?,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
    .map(|()| array.close())
}

/// Collects the items of a blocking generator, unless the run is stopped before.
pub(crate) fn collect_blocking(mut items: Box<dyn BlockingItems>, stopped: impl Fn() -> bool) -> RunResult {
    let mut array = Array::default();
    while !stopped() {
        let Some(item) = items.next(array.open()) else { break };
        array.admit(&item?)?;
    }
    Ok(array.close())
}

#[derive(Default)]
struct Array {
    data: Vec<u8>,
    /// Where the last whole item ends.
    end: usize,
}

impl Array {
    /// Where the next item is to be written.
    fn open(&mut self) -> &mut Vec<u8> {
        self.data.truncate(self.end);
        self.data.push(if self.end == 0 { b'[' } else { b',' });
        &mut self.data
    }

    /// Takes in what was written.
    fn admit(&mut self, media_type: &MediaType) -> Result<(), TaskError> {
        if !media_type.is_empty() && !Payload::bytes(media_type.as_str(), Vec::new()).is_json() {
            return Err(TaskError::terminal(format!(
                "an item is {media_type:?}, and only items of {JSON:?} can be collected into one result; iterate the task instead"
            )));
        }
        if self.data.len() >= MAX_PAYLOAD_BYTES {
            return Err(TaskError::terminal(format!(
                "the items make a result of more than {MAX_PAYLOAD_BYTES} bytes; iterate the task instead, which has no such limit"
            )));
        }
        self.end = self.data.len();
        Ok(())
    }

    fn close(mut self) -> Payload {
        self.data.truncate(self.end);
        if self.end == 0 {
            self.data.push(b'[');
        }
        self.data.push(b']');
        Payload::bytes(JSON, self.data)
    }
}
