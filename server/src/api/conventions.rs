//! The outermost layer of every call: what gRPC asks of a server and tonic
//! leaves to us. Only gRPC is let in, the caller's deadline holds for the whole
//! call, and no error goes out without a reason.

use std::convert::Infallible;
use std::task::{Context, Poll};

use asynq_proto::reasons;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};
use tower::Service;

use super::cut::cut;
use super::{complete, deadline, descriptors, status};
use crate::broker::Error;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Conventions<S>(S);

impl<S> Conventions<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S, B> Service<Request<B>> for Conventions<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(refused) = refuse_others(request.headers()) {
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let limit = deadline::of(request.headers()).map(|limit| Limit {
            at: limit,
            streams: descriptors::shape(request.uri().path()).is_some_and(|call| call.streams),
        });
        let answering = self.0.call(request);
        Box::pin(async move {
            let mut answer = match limit {
                None => answering.await?,
                Some(limit) => match timeout_at(limit.at, answering).await {
                    Ok(answer) => answer?,
                    Err(_) => return Ok(limit.passed().into_http()),
                },
            };
            complete::headers(answer.headers_mut());
            Ok(answer.map(|body| match limit {
                Some(limit) if limit.streams => cut(complete::body(body), limit.end()),
                _ => complete::body(body),
            }))
        })
    }
}

/// The deadline of a call.
#[derive(Debug, Clone, Copy)]
struct Limit {
    at: Instant,
    streams: bool,
}

impl Limit {
    fn passed(self) -> Status {
        let error = match self.streams {
            true => Error::StreamDeadline,
            false => Error::DeadlineExceeded,
        };
        error.into()
    }

    async fn end(self) -> Status {
        sleep_until(self.at).await;
        self.passed()
    }
}

/// `application/grpc`, perhaps with `+proto` or parameters. Others get HTTP's
/// word for that, and gRPC's for those who understand only that.
fn refuse_others(headers: &HeaderMap) -> Option<Response<Body>> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let essence = given.map(|given| given.split(';').next().unwrap_or_default().trim_end());
    if let Some("application/grpc" | "application/grpc+proto") = essence {
        return None;
    }
    let message = format!(
        "content-type is {}, this port takes application/grpc",
        given.unwrap_or("missing")
    );
    let mut refused = status::status(Code::InvalidArgument, reasons::NOT_GRPC, message).into_http();
    *refused.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_is_let_in() {
        let given = |value: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
        ] {
            assert!(refuse_others(&given(good)).is_none(), "{good}");
        }
        for bad in ["", "application/json", "application/grpc-web", "application/grpc+json"] {
            let refused = refuse_others(&given(bad)).unwrap();
            assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{bad}");
            let status = Status::from_header_map(refused.headers()).unwrap();
            assert!(status.message().contains("takes application/grpc"), "{status:?}");
        }
        assert!(refuse_others(&HeaderMap::new()).is_some());
    }
}
