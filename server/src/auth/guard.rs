//! The layer every call goes through before any handler: whose token is it, and
//! may its holder do this?

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, StdError};
use tower::Service;

use super::Access;
use super::policy::{self, Allowed};
use super::role::Roles;
use crate::api::{Api, cut, descriptors};
use crate::line::Line;

/// Why a call is refused. Never repeats a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(
        "this broker wants a token: give --token @FILE, or set ASYNQ_TOKEN; \
         who runs the broker makes one with: asynqd token new"
    )]
    Missing,
    #[error("this broker does not know the token: ask who runs it for a new one")]
    Unknown,
    #[error("the token was revoked: ask who runs the broker for a new one")]
    Revoked,
    #[error("the token {name:?} does not have the role for {path}, which is {wanted}")]
    Role { name: String, path: String, wanted: Roles },
    #[error("this broker lets nobody call {0}")]
    NoPolicy(String),
}

/// The services, guarded. One per connection.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    api: Api,
    access: Access,
    peer: Option<SocketAddr>,
    line: Line,
}

impl Guard {
    pub(crate) const fn new(api: Api, access: Access, peer: Option<SocketAddr>, line: Line) -> Self {
        Self {
            api,
            access,
            peer,
            line,
        }
    }
}

impl Access {
    /// Whether a call may go on, and what tells that it may no longer.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<CancellationToken>, Denied> {
        let Some(tokens) = self.tokens() else {
            return Ok(None);
        };
        let allowed = policy::allowed(path);
        if let Some(Allowed::Anyone) = allowed {
            return Ok(None);
        }
        let secret = bearer(headers).ok_or(Denied::Missing)?;
        let holder = tokens.find(secret).ok_or(Denied::Unknown)?;
        tracing::Span::current().record("token", holder.name.as_str());
        match allowed {
            None => Err(Denied::NoPolicy(path.to_owned())),
            Some(Allowed::Roles(wanted)) if !holder.roles.meets(wanted) => Err(Denied::Role {
                name: holder.name.clone(),
                path: path.to_owned(),
                wanted,
            }),
            Some(_) => Ok(Some(holder.revoked.clone())),
        }
    }
}

async fn ended(revoked: CancellationToken) -> Status {
    revoked.cancelled_owned().await;
    Denied::Revoked.into()
}

/// `authorization: Bearer SECRET`; the first word in any case.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, secret) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(secret)
}

impl<B> Service<Request<B>> for Guard
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.line.clone());
        match self.access.admit(request.uri().path(), request.headers()) {
            Ok(None) => self.api.call(request),
            Ok(Some(revoked)) => {
                let streams = descriptors::shape(request.uri().path()).is_some_and(|call| call.streams);
                let answering = self.api.call(request);
                Box::pin(async move {
                    let answer = tokio::select! {
                        biased;
                        answer = answering => answer?,
                        () = revoked.cancelled() => return Ok(Status::from(Denied::Revoked).into_http()),
                    };
                    // A single answer is whole by now.
                    Ok(match streams {
                        true => answer.map(|body| cut(body, ended(revoked))),
                        false => answer,
                    })
                })
            }
            Err(denied) => {
                self.access.complain(self.peer, &denied);
                Box::pin(std::future::ready(Ok(Status::from(denied).into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_is_heard() {
        let heard = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(|secret| String::from_utf8(secret.to_vec()).unwrap())
        };
        assert_eq!(heard("Bearer s"), Some("s".into()));
        assert_eq!(heard("bearer s t"), Some("s t".into()));
        for nothing in ["", "Bearer", "Basic s", "s", "Bearers"] {
            assert_eq!(heard(nothing), None, "{nothing}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
