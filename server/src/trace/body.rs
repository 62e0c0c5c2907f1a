//! The body of an answer: what goes on while it is made belongs to the call, and
//! its trailers tell how the call ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::Watch;

/// See the module.
pub(super) struct Traced {
    body: tonic::body::Body,
    watch: Watch,
}

impl Traced {
    pub(super) const fn new(body: tonic::body::Body, watch: Watch) -> Self {
        Self { body, watch }
    }
}

impl Body for Traced {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, watch } = &mut *self;
        let mut polled = watch.span.in_scope(|| Pin::new(body).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            watch.look_at(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
