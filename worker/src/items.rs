//! Generators: streams and iterators, wrapped so that all write their items as
//! bytes into the batch under way. An item costs no allocation of its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use asynq_proto::limits::MAX_PAYLOAD_BYTES;
use asynq_proto::{Payload, TaskError, v1};
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;

use crate::handler::{RunFuture, RunResult};
use crate::yields::Yield;

/// The media type of an item as on the wire: empty for JSON.
pub(crate) type MediaType = String;
/// One pull: an item, the failure after the last one, or the end.
pub(crate) type Pulled = Option<Result<Piece, TaskError>>;

/// What comes with one pull.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// The item's media type, if there is an item.
    pub(crate) item: Option<MediaType>,
    /// The token of a checkpoint behind it.
    pub(crate) token: Option<Bytes>,
}

impl From<MediaType> for Piece {
    fn from(media_type: MediaType) -> Self {
        Self {
            item: Some(media_type),
            token: None,
        }
    }
}

/// A generator, or why there is none.
pub(crate) type Opened = Result<Box<dyn Items>, TaskError>;
/// The same of one that blocks.
pub(crate) type OpenedBlocking = Result<Box<dyn BlockingItems>, TaskError>;

/// A generator that is polled. After a failure or the end it is not asked again.
pub(crate) trait Items: Send {
    /// Writes the next item to the end of `out`. What a failure leaves there is no item.
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled>;

    /// Leaves out what an earlier run has sent, which takes no credit. Ready once the
    /// next item is one to send; an error is the end of the generator.
    fn poll_start(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TaskError>> {
        Poll::Ready(Ok(()))
    }

    /// How far items may go. Only one that runs ahead of its polls needs to know.
    fn allow(&mut self, _: v1::Credit) {}
}

/// A generator that blocks its thread, where it is made and dropped as well.
pub(crate) trait BlockingItems {
    /// As [`Items::poll_next`].
    fn next(&mut self, out: &mut Vec<u8>) -> Pulled;
}

/// A stream of values with a JSON form.
pub(crate) struct Typed<S>(pub(crate) Pin<Box<S>>);

impl<S, T> Items for Typed<S>
where
    S: Stream<Item = Result<T, TaskError>> + Send,
    T: Serialize,
{
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled> {
        let next = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(next.map(|item| Ok(write_json(&item?, out)?.into())))
    }
}

/// The same with checkpoints.
pub(crate) struct Marked<S>(pub(crate) Pin<Box<S>>);

impl<S, T> Items for Marked<S>
where
    S: Stream<Item = Result<Yield<T>, TaskError>> + Send,
    T: Serialize,
{
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled> {
        let next = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(next.map(|yielded| write_yield(yielded?, |item| write_json(&item, out))))
    }
}

/// A stream of payloads, perhaps with checkpoints.
pub(crate) struct Raw<S>(pub(crate) Pin<Box<S>>);

impl<S, Y> Items for Raw<S>
where
    S: Stream<Item = Result<Y, TaskError>> + Send,
    Y: Into<Yield<Payload>>,
{
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled> {
        let next = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(next.map(|yielded| write_yield(yielded?.into(), |item| write(item, out))))
    }
}

/// The result of a plain task, as the only item.
pub(crate) struct Single(pub(crate) Option<RunFuture>);

impl Items for Single {
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled> {
        let Some(run) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let result = ready!(run.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(Some(result.and_then(|result| write(result, out)).map(Piece::from)))
    }
}

/// An iterator of values with a JSON form.
pub(crate) struct TypedIterator<I>(pub(crate) I);

impl<I, T> BlockingItems for TypedIterator<I>
where
    I: Iterator<Item = Result<T, TaskError>>,
    T: Serialize,
{
    fn next(&mut self, out: &mut Vec<u8>) -> Pulled {
        self.0.next().map(|item| Ok(write_json(&item?, out)?.into()))
    }
}

/// The same with checkpoints.
pub(crate) struct MarkedIterator<I>(pub(crate) I);

impl<I, T> BlockingItems for MarkedIterator<I>
where
    I: Iterator<Item = Result<Yield<T>, TaskError>>,
    T: Serialize,
{
    fn next(&mut self, out: &mut Vec<u8>) -> Pulled {
        self.0
            .next()
            .map(|yielded| write_yield(yielded?, |item| write_json(&item, out)))
    }
}

/// The result of a plain blocking task, as the only item.
pub(crate) struct BlockingSingle<F>(pub(crate) Option<F>);

impl<F: FnOnce() -> RunResult> BlockingItems for BlockingSingle<F> {
    fn next(&mut self, out: &mut Vec<u8>) -> Pulled {
        let run = self.0.take()?;
        Some(run().and_then(|result| write(result, out)).map(Piece::from))
    }
}

fn write_yield<T>(
    Yield { item, token }: Yield<T>,
    write: impl FnOnce(T) -> Result<MediaType, TaskError>,
) -> Result<Piece, TaskError> {
    Ok(Piece {
        item: item.map(write).transpose()?,
        token,
    })
}

fn write(item: Payload, out: &mut Vec<u8>) -> Result<MediaType, TaskError> {
    check_size(item.len())?;
    let v1::Payload { content_type, data } = item.into();
    out.extend_from_slice(&data);
    Ok(content_type)
}

fn write_json<T: Serialize>(item: &T, out: &mut Vec<u8>) -> Result<MediaType, TaskError> {
    let start = out.len();
    serde_json::to_writer(&mut *out, item)
        .map_err(|error| TaskError::terminal(format!("the item cannot be written as JSON: {error}")))?;
    check_size(out.len() - start)?;
    Ok(MediaType::new())
}

fn check_size(bytes: usize) -> Result<(), TaskError> {
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(TaskError::terminal(format!(
            "the item is {bytes} bytes long, at most {MAX_PAYLOAD_BYTES} are allowed"
        )));
    }
    Ok(())
}
