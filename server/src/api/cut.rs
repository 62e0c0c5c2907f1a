//! An answer that can be ended from outside, with a status: by its caller's
//! deadline, by a token that is revoked, by the drain. Also when the caller
//! does not read, so that nobody asks this body for more: whoever feeds it
//! learns of the end at once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;

/// `body`, until `end` says how it ends early. Costs a task while it lasts, so
/// it is for streams.
pub(crate) fn cut(body: Body, end: impl Future<Output = Status> + Send + 'static) -> Body {
    let shared = Arc::new(Mutex::new(State::Open { body, reader: None }));
    let watched = shared.clone();
    let watch = tokio::spawn(async move {
        let status = end.await;
        let before = std::mem::replace(&mut *lock(&watched), State::Cut(Some(status)));
        // Not under the lock: much may hang on the body.
        if let State::Open { body, reader } = before {
            drop(body);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    });
    Body::new(Cut {
        shared,
        watch: watch.abort_handle(),
    })
}

struct Cut {
    shared: Arc<Mutex<State>>,
    watch: AbortHandle,
}

enum State {
    /// `reader` waits for the next frame.
    Open { body: Body, reader: Option<Waker> },
    /// The status is still to be sent.
    Cut(Option<Status>),
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *lock(&self.shared) {
            State::Open { body, reader } => {
                let polled = Pin::new(body).poll_frame(cx);
                if polled.is_pending() {
                    *reader = Some(cx.waker().clone());
                }
                polled
            }
            State::Cut(status) => Poll::Ready(status.take().map(|status| {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers)?;
                Ok(Frame::trailers(trailers))
            })),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*lock(&self.shared) {
            State::Open { body, .. } => body.is_end_stream(),
            State::Cut(status) => status.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.shared) {
            State::Open { body, .. } => body.size_hint(),
            State::Cut(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Never has a frame; says so when it is dropped.
    struct Silent(CancellationToken);

    impl Drop for Silent {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }

    impl HttpBody for Silent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    async fn frame(body: &mut Body) -> Option<Frame<Bytes>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))
            .await
            .map(Result::unwrap)
    }

    #[tokio::test]
    async fn what_feeds_it_ends_at_once_though_nobody_reads() {
        let dropped = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let mut body = cut(Body::new(Silent(dropped.clone())), async { ended.await.unwrap() });
        end.send(Status::aborted("enough")).unwrap();
        dropped.cancelled().await;
        let trailers = frame(&mut body).await.unwrap().into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!((status.code(), status.message()), (tonic::Code::Aborted, "enough"));
        assert!(body.is_end_stream() && frame(&mut body).await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_told() {
        let (end, ended) = oneshot::channel();
        let mut body = cut(Body::new(Silent(CancellationToken::new())), async {
            ended.await.unwrap()
        });
        let reading = tokio::spawn(async move { frame(&mut body).await });
        tokio::task::yield_now().await;
        end.send(Status::aborted("enough")).unwrap();
        assert!(reading.await.unwrap().unwrap().is_trailers());
    }

    #[tokio::test]
    async fn one_that_is_dropped_leaves_nothing() {
        let left = CancellationToken::new();
        let guard = left.clone().drop_guard();
        let body = cut(Body::new(Silent(CancellationToken::new())), async move {
            let _guard = guard;
            std::future::pending().await
        });
        drop(body);
        left.cancelled().await;
    }
}
