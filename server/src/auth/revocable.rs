//! An answer that ends early when the token it was asked for with is revoked.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::Denied;

/// See the module.
pub(super) struct Revocable {
    inner: Body,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Revocable {
    pub(super) fn new(inner: Body, revoked: CancellationToken) -> Self {
        Self {
            inner,
            revoked: Box::pin(revoked.cancelled_owned()),
            over: false,
        }
    }
}

impl HttpBody for Revocable {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.revoked.as_mut().poll(cx).is_ready() {
            self.over = true;
            // Whoever waits for what is sent learns of the end at once.
            self.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            Status::from(Denied::Revoked).add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
