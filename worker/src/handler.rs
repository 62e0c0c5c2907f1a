//! Handlers: plain functions, wrapped so that all take and return payloads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use asynq_proto::{Payload, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;

/// What a run returns.
pub(crate) type RunResult = Result<Payload, TaskError>;
pub(crate) type RunFuture = Pin<Box<dyn Future<Output = RunResult> + Send>>;

/// A handler whose types are gone.
#[derive(Clone)]
pub(crate) enum Handler {
    /// Runs as a future, dropped at its await point when it is to stop.
    Async(Arc<dyn Fn(Context, Payload) -> RunFuture + Send + Sync>),
    /// Runs on a thread of its own.
    Blocking(Arc<dyn Fn(Context, Payload) -> RunResult + Send + Sync>),
}

impl Handler {
    pub(crate) fn typed<A, R, F, Fut>(handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::Async(Arc::new(move |context, payload| {
            let handler = handler.clone();
            Box::pin(async move { encode(handler(context, decode(&payload)?).await?) })
        }))
    }

    pub(crate) fn blocking<A, R, F>(handler: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(Context, A) -> Result<R, TaskError> + Send + Sync + 'static,
    {
        Self::Blocking(Arc::new(move |context, payload| {
            encode(handler(context, decode(&payload)?)?)
        }))
    }

    pub(crate) fn raw<F, Fut>(handler: F) -> Self
    where
        F: Fn(Context, Payload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Payload, TaskError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::Async(Arc::new(move |context, payload| {
            let handler = handler.clone();
            // The call itself is inside the future too, so that its panic is caught like any other.
            Box::pin(async move { handler(context, payload).await?.checked().map_err(unfit_result) })
        }))
    }
}

fn decode<A: DeserializeOwned>(payload: &Payload) -> Result<A, TaskError> {
    payload
        .decode()
        .map_err(|error| TaskError::rejected(format!("the arguments do not fit: {error}")))
}

fn encode<R: Serialize>(result: R) -> RunResult {
    Payload::json(&result).map_err(unfit_result)
}

/// Running again would give the same result, so the failure is terminal.
fn unfit_result(error: asynq_proto::EncodeError) -> TaskError {
    TaskError::terminal(format!("the result {error}"))
}
