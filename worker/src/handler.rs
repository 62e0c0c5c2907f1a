//! Handlers: plain functions, wrapped so that all take payloads and return or
//! yield them.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use asynq_proto::{KIND_PANIC, Payload, TaskError};
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::items::{Marked, MarkedIterator, Opened, OpenedBlocking, Raw, Typed, TypedIterator};
use crate::yields::Yield;

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
    /// Yields items as they are polled for, dropped at its await point.
    Iter(Arc<dyn Fn(Context, Payload) -> Opened + Send + Sync>),
    /// Yields items to who reads them, returns one result to who does not.
    Either {
        call: Arc<dyn Fn(Context, Payload) -> RunFuture + Send + Sync>,
        iter: Arc<dyn Fn(Context, Payload) -> Opened + Send + Sync>,
    },
    /// Yields items on a thread of its own.
    BlockingIter(Arc<dyn Fn(Context, Payload) -> OpenedBlocking + Send + Sync>),
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
        Self::Async(raw_call(handler))
    }

    pub(crate) fn iter<A, T, F, S>(handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<T, TaskError>> + Send + 'static,
    {
        Self::Iter(Arc::new(move |context, payload| {
            Ok(Box::new(Typed(Box::pin(handler(context, decode(&payload)?)))))
        }))
    }

    pub(crate) fn marked_iter<A, T, F, S>(handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Yield<T>, TaskError>> + Send + 'static,
    {
        Self::Iter(Arc::new(move |context, payload| {
            Ok(Box::new(Marked(Box::pin(handler(context, decode(&payload)?)))))
        }))
    }

    pub(crate) fn raw_iter<F, S, Y>(handler: F) -> Self
    where
        F: Fn(Context, Payload) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Y, TaskError>> + Send + 'static,
        Y: Into<Yield<Payload>>,
    {
        Self::Iter(raw_items(handler))
    }

    pub(crate) fn raw_either<C, Fut, I, S, Y>(call: C, iter: I) -> Self
    where
        C: Fn(Context, Payload) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Payload, TaskError>> + Send + 'static,
        I: Fn(Context, Payload) -> S + Send + Sync + 'static,
        S: Stream<Item = Result<Y, TaskError>> + Send + 'static,
        Y: Into<Yield<Payload>>,
    {
        Self::Either {
            call: raw_call(call),
            iter: raw_items(iter),
        }
    }

    pub(crate) fn blocking_iter<A, T, F, I>(handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> I + Send + Sync + 'static,
        I: Iterator<Item = Result<T, TaskError>> + 'static,
    {
        Self::BlockingIter(Arc::new(move |context, payload| {
            Ok(Box::new(TypedIterator(handler(context, decode(&payload)?))))
        }))
    }

    pub(crate) fn marked_blocking_iter<A, T, F, I>(handler: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(Context, A) -> I + Send + Sync + 'static,
        I: Iterator<Item = Result<Yield<T>, TaskError>> + 'static,
    {
        Self::BlockingIter(Arc::new(move |context, payload| {
            Ok(Box::new(MarkedIterator(handler(context, decode(&payload)?))))
        }))
    }
}

fn raw_call<F, Fut>(handler: F) -> Arc<dyn Fn(Context, Payload) -> RunFuture + Send + Sync>
where
    F: Fn(Context, Payload) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Payload, TaskError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |context, payload| {
        let handler = handler.clone();
        // The call itself is inside the future too, so that its panic is caught like any other.
        Box::pin(async move { handler(context, payload).await?.checked().map_err(unfit_result) })
    })
}

fn raw_items<F, S, Y>(handler: F) -> Arc<dyn Fn(Context, Payload) -> Opened + Send + Sync>
where
    F: Fn(Context, Payload) -> S + Send + Sync + 'static,
    S: Stream<Item = Result<Y, TaskError>> + Send + 'static,
    Y: Into<Yield<Payload>>,
{
    Arc::new(move |context, payload| Ok(Box::new(Raw(Box::pin(handler(context, payload))))))
}

/// What becomes of a handler's panic.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> TaskError {
    let message = (panic.downcast_ref::<&str>().copied())
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("the handler panicked with a value that is no text");
    TaskError::retryable(message).with_kind(KIND_PANIC)
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
