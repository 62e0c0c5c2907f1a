//! Gives a reason to errors that have none: those which tonic makes itself, and
//! services that are not ours.

use std::pin::Pin;
use std::task::{Context, Poll};

use asynq_proto::reasons;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::status;

/// An error in the headers of an answer, or in its trailers.
pub(super) fn headers(headers: &mut HeaderMap) {
    // Who gives details gives the reason: only `status` does.
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let bare = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok);
    let Some(whole) = bare.map(|bare| complete(&bare)) else {
        return;
    };
    if let Err(unfit) = whole.add_header(headers) {
        // A message that is no header value: then without it.
        headers.insert(Status::GRPC_STATUS, (unfit.code() as i32).into());
    }
}

/// The same status with its reason.
fn complete(bare: &Status) -> Status {
    let reason = match bare.code() {
        Code::OutOfRange | Code::ResourceExhausted => reasons::MESSAGE_TOO_LARGE,
        // What gRPC wants for messages that cannot be read, though it is their
        // sender's fault.
        Code::Internal => reasons::MALFORMED_MESSAGE,
        // Unknown calls are refused by `Api`.
        Code::Unimplemented => reasons::COMPRESSION_UNKNOWN,
        Code::NotFound => reasons::SYMBOL_NOT_FOUND,
        Code::InvalidArgument => reasons::INVALID_FIELD,
        _ => reasons::INTERNAL,
    };
    status::status(bare.code(), reason, bare.message())
}

/// The trailers of a body, too.
pub(super) fn body(body: Body) -> Body {
    Body::new(Completed(body))
}

struct Completed(Body);

impl HttpBody for Completed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame?;
            if let Some(trailers) = frame.trailers_mut() {
                headers(trailers);
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn completed(status: &Status) -> Status {
        let mut map = HeaderMap::new();
        status.add_header(&mut map).unwrap();
        headers(&mut map);
        Status::from_header_map(&map).unwrap()
    }

    #[test]
    fn whatever_has_no_reason_gets_one() {
        for code in (1..=16).map(Code::from_i32) {
            let status = completed(&Status::new(code, "why"));
            assert_eq!((status.code(), status.message()), (code, "why"));
            let info = status.get_details_error_info().unwrap();
            assert_eq!(info.domain, reasons::DOMAIN);
            assert!(!info.reason.is_empty());
            let waits = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(status.get_details_retry_info().is_some(), waits, "{code:?}");
        }
    }

    #[test]
    fn what_has_a_reason_keeps_it_and_success_needs_none() {
        let ours = status::status(Code::Internal, reasons::STORE_FAILED, "why");
        assert_eq!(
            completed(&ours).get_details_error_info().unwrap().reason,
            "STORE_FAILED"
        );
        assert_eq!(completed(&Status::ok("")).details(), b"");
        let mut none = HeaderMap::new();
        headers(&mut none);
        assert!(none.is_empty());
    }
}
