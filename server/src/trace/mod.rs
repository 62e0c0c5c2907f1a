//! What the log says of a call: every line written while it is served carries
//! its trace id, its name, its peer and the name of its token. A call that fails
//! is counted and logged once, and its answer carries the trace id back.

mod body;
mod id;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::metrics::Calls;
use body::Traced as TracedBody;
pub(crate) use id::TraceId;

/// Where callers find the trace id of a call that failed.
const TRACE_ID: &str = "trace-id";
/// What a call without a reason of ours has failed of.
const NO_REASON: &str = "";

/// A service, and the log of its calls. One per connection.
#[derive(Debug, Clone)]
pub(crate) struct Traced<S> {
    inner: S,
    calls: Calls,
    peer: Arc<str>,
}

impl<S> Traced<S> {
    pub(crate) fn new(inner: S, calls: Calls, peer: Option<SocketAddr>) -> Self {
        let peer = peer.map_or_else(|| "unknown".into(), |peer| peer.to_string().into());
        Self { inner, calls, peer }
    }
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // For the operations of a session, whose failures no status tells.
        request.extensions_mut().insert(self.calls.clone());
        let id = TraceId::of(request.headers());
        let rpc = request.uri().path().trim_start_matches('/');
        let span = info_span!("rpc", trace_id = %id, rpc, peer = &*self.peer, token = Empty);
        let watch = Watch {
            id,
            calls: self.calls.clone(),
            span: span.clone(),
        };
        let answering = span.in_scope(|| self.inner.call(request));
        let answering = async move {
            let mut answer = answering.await?;
            watch.look_at(answer.headers_mut());
            Ok(answer.map(|body| Body::new(TracedBody::new(body, watch))))
        };
        Box::pin(answering.instrument(span))
    }
}

/// Looks out for the end of one call.
#[derive(Debug)]
struct Watch {
    id: TraceId,
    calls: Calls,
    span: Span,
}

impl Watch {
    /// Headers or trailers of the answer: a failure is counted, logged, and told
    /// its trace id.
    fn look_at(&self, headers: &mut HeaderMap) {
        let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) else {
            return;
        };
        if let Ok(id) = HeaderValue::try_from(self.id.to_string()) {
            headers.insert(TRACE_ID, id);
        }
        let details = status.get_details_error_info();
        let reason = details.as_ref().map_or(NO_REASON, |info| info.reason.as_str());
        let failed = || self.calls.failed(status.code(), reason, status.message());
        self.span.in_scope(failed);
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    async fn answer(status: Status, traceparent: &'static str) -> (Response<Body>, Calls) {
        let calls = Calls::default();
        let inner = tower::service_fn(move |_: Request<()>| {
            let answer = status.clone().into_http();
            Box::pin(async move { Ok::<_, Infallible>(answer) })
        });
        let mut request = Request::new(());
        let traceparent = HeaderValue::from_static(traceparent);
        request.headers_mut().insert("traceparent", traceparent);
        let answer = Traced::new(inner, calls.clone(), None).call(request).await;
        (answer.unwrap(), calls)
    }

    #[tokio::test]
    async fn a_failure_is_counted_and_carries_the_trace_id() {
        let details = ErrorDetails::with_error_info("TASK_NOT_FOUND", "asynq", []);
        let status = Status::with_error_details(Code::NotFound, "no task", details);
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (answer, calls) = answer(status, parent).await;
        assert_eq!(answer.headers()[TRACE_ID], "4bf92f3577b34da6a3ce929d0e0e4736");
        let counted: Vec<_> = calls.counts().into_iter().collect();
        assert_eq!(counted, [(("NOT_FOUND", "TASK_NOT_FOUND".to_owned()), 1)]);
    }

    #[tokio::test]
    async fn what_goes_well_is_left_alone() {
        let (answer, calls) = answer(Status::ok(""), "").await;
        assert!(!answer.headers().contains_key(TRACE_ID));
        assert!(calls.counts().is_empty());
    }
}
