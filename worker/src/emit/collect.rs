//! An iterator that is called rather than iterated: its items become one JSON array.

use std::future::poll_fn;
use std::task::Poll;

use asynq_proto::limits::{MAX_BATCH_OPS, MAX_PAYLOAD_BYTES};
use asynq_proto::{JSON, Payload, TaskError};

use crate::handler::RunResult;
use crate::items::{BlockingItems, Items, Piece};

/// Collects the items of an async generator.
pub(crate) async fn collect(mut items: Box<dyn Items>) -> RunResult {
    let mut array = Array::default();
    poll_fn(|cx| {
        // One that is always ready must let others have their turn.
        for _ in 0..MAX_BATCH_OPS {
            match items.poll_next(cx, array.open()) {
                Poll::Ready(Some(piece)) => array.admit(&piece?)?,
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
        let Some(piece) = items.next(array.open()) else { break };
        array.admit(&piece?)?;
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

    /// Takes in what was written. Who calls has no use for a checkpoint.
    fn admit(&mut self, piece: &Piece) -> Result<(), TaskError> {
        let Some(media_type) = &piece.item else { return Ok(()) };
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

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::items::{Raw, Typed, TypedIterator};

    #[tokio::test]
    async fn items_are_collected_into_an_array() {
        async fn collected<T: serde::Serialize + Clone + Send + Sync + 'static>(
            items: Vec<Result<T, TaskError>>,
        ) -> [Result<Payload, TaskError>; 2] {
            let stream = Typed(Box::pin(stream::iter(items.clone())));
            [
                collect(Box::new(stream)).await,
                collect_blocking(Box::new(TypedIterator(items.into_iter())), || false),
            ]
        }
        let array = |text: &'static str| Ok(Payload::bytes("application/json", text));
        assert_eq!(collected::<u8>(vec![]).await, [array("[]"), array("[]")]);
        assert_eq!(collected(vec![Ok(1)]).await, [array("[1]"), array("[1]")]);
        assert_eq!(
            collected(vec![Ok("a"), Ok("")]).await,
            [array(r#"["a",""]"#), array(r#"["a",""]"#)]
        );
        let failed = TaskError::retryable("m");
        let both = [Err(failed.clone()), Err(failed.clone())];
        assert_eq!(collected(vec![Ok(1), Err(failed)]).await, both);

        // Two brackets, four quotes and a comma around them.
        let half = "x".repeat((MAX_PAYLOAD_BYTES - 7) / 2);
        for result in collected(vec![Ok(half.clone()), Ok(format!("{half}x"))]).await {
            assert_eq!(result.unwrap().len(), MAX_PAYLOAD_BYTES);
        }
        for result in collected(vec![Ok(format!("{half}x")), Ok(format!("{half}x"))]).await {
            let error = result.unwrap_err();
            assert!(!error.retryable);
            assert!(
                error.message.contains("4194304") && error.message.contains("iterate"),
                "{}",
                error.message
            );
        }
        let bytes = stream::iter([Ok(Payload::bytes("x/y", "1"))]);
        let error = collect(Box::new(Raw(Box::pin(bytes)))).await.unwrap_err();
        assert!(
            error.message.contains("\"x/y\"") && !error.retryable,
            "{}",
            error.message
        );
    }
}
