//! What a generator with checkpoints yields.

use asynq_proto::TaskError;
use bytes::Bytes;
use serde::Serialize;

/// An item of an iterator with [`OnLoss::Checkpoint`](crate::OnLoss::Checkpoint), a
/// checkpoint, or both.
///
/// A checkpoint says: from here on I can begin again, and this *token* is all I need.
/// It stands behind the items yielded before it, and travels in the same way as they
/// do, so nothing that happens to a stream on its way, be it buffered or mapped, can
/// move it to another place. A token is of the generator's own making, at most 64 KiB
/// long; a longer one is a failure that names the item. Yield one as often as you
/// like: those that come in quick succession cost next to nothing, since only the last
/// of them is sent.
///
/// A run that begins again gets it from [`Context::start_checkpoint`].
///
/// [`Context::start_checkpoint`]: crate::Context::start_checkpoint
///
/// ```
/// use asynq_worker::{Context, Iter, OnLoss, TaskError, Worker, Yield};
///
/// const SUMS: Iter<u64, u64> = Iter::new("sums", OnLoss::Checkpoint);
///
/// /// 0, 1, 3, 6, 10, …: to go on, the number and the sum so far are all that is needed.
/// fn sums(context: Context, count: u64) -> impl Iterator<Item = Result<Yield<u64>, TaskError>> {
///     let start = context.start_checkpoint::<(u64, u64)>();
///     let (mistake, (mut n, mut sum)) = match start {
///         Ok(start) => (None, start.unwrap_or((0, 0))),
///         Err(error) => (Some(Err(error)), (count, 0)),
///     };
///     let sums = std::iter::from_fn(move || {
///         (n < count).then(|| {
///             sum += n;
///             n += 1;
///             Yield::item(sum).then_checkpoint(&(n, sum))
///         })
///     });
///     mistake.into_iter().chain(sums)
/// }
///
/// let worker = Worker::builder("http://127.0.0.1:7740").blocking_iter_with_checkpoints(SUMS, sums).build()?;
/// # Ok::<(), asynq_worker::BuildError>(())
/// ```
///
/// An async generator:
///
/// ```
/// use asynq_worker::{Context, Iter, OnLoss, TaskError, Worker, Yield};
/// use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
///
/// const PAGES: Iter<String, String> = Iter::new("pages", OnLoss::Checkpoint);
///
/// /// The number of the next page is all that is needed to go on.
/// fn pages(context: Context, book: String) -> impl Stream<Item = Result<Yield<String>, TaskError>> {
///     stream::once(async move { context.start_checkpoint::<u64>() })
///         .map_ok(move |next| {
///             let book = book.clone();
///             stream::iter(next.unwrap_or(1)..=300)
///                 .map(move |n| Yield::item(format!("{book}, page {n}")).then_checkpoint(&(n + 1)))
///         })
///         .try_flatten()
/// }
///
/// let worker = Worker::builder("http://127.0.0.1:7740").iter_with_checkpoints(PAGES, pages).build()?;
/// # Ok::<(), asynq_worker::BuildError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Yield<T> {
    pub(crate) item: Option<T>,
    pub(crate) token: Option<Bytes>,
}

impl<T> Yield<T> {
    /// An item, without a checkpoint.
    #[must_use]
    pub const fn item(item: T) -> Self {
        Self {
            item: Some(item),
            token: None,
        }
    }

    /// A checkpoint behind all items yielded before, of which there is one at least.
    ///
    /// # Errors
    /// If the token has no form in JSON.
    pub fn checkpoint<C: Serialize>(token: &C) -> Result<Self, TaskError> {
        Ok(Self::checkpoint_bytes(to_json(token)?))
    }

    /// The same with a token that is no JSON.
    #[must_use]
    pub fn checkpoint_bytes(token: impl Into<Bytes>) -> Self {
        Self {
            item: None,
            token: Some(token.into()),
        }
    }

    /// With a checkpoint right behind it.
    ///
    /// # Errors
    /// If the token has no form in JSON.
    pub fn then_checkpoint<C: Serialize>(self, token: &C) -> Result<Self, TaskError> {
        Ok(self.then_checkpoint_bytes(to_json(token)?))
    }

    /// The same with a token that is no JSON.
    #[must_use]
    pub fn then_checkpoint_bytes(mut self, token: impl Into<Bytes>) -> Self {
        self.token = Some(token.into());
        self
    }
}

impl<T> From<T> for Yield<T> {
    fn from(item: T) -> Self {
        Self::item(item)
    }
}

fn to_json<C: Serialize>(token: &C) -> Result<Vec<u8>, TaskError> {
    serde_json::to_vec(token)
        .map_err(|error| TaskError::terminal(format!("the checkpoint cannot be written as JSON: {error}")))
}
