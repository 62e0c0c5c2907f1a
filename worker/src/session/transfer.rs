//! Bulk data: arguments fetched and results delivered on the data connection.

use asynq_proto::v1::call_answer::Of;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::v1::{Completion, FetchPayloadRequest, FetchResultRequest, OperationError, RunAck, RunCall};
use asynq_proto::{Backoff, Payload, Wire};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::context::LeaseToken;

/// How a transfer ended. One that fails on the way is tried again inside.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// Arguments are here.
    Fetched(LeaseToken, Payload),
    /// The broker has no arguments for this run.
    NoArguments(LeaseToken, Status),
    /// The broker has a call: it is this task.
    Called(u64, Uuid),
    /// A called task's end, with its result; or why the call is refused.
    Answered(u64, Of),
    /// The broker answered a result.
    Delivered(LeaseToken, RunAck),
    /// The broker refuses a result for good.
    Refused(LeaseToken, Status),
}

pub(crate) async fn fetch(mut client: WorkersClient<Wire>, token: LeaseToken) -> Transfer {
    let mut backoff = Backoff::reconnect();
    loop {
        let request = FetchPayloadRequest {
            token: Some(token.to_wire()),
        };
        match client.fetch_payload(request).await {
            Ok(payload) => return Transfer::Fetched(token, payload.into_inner().into()),
            Err(status) if is_final(&status) => return Transfer::NoArguments(token, status),
            Err(status) => again("fetch arguments", &status, &mut backoff).await,
        }
    }
}

pub(crate) async fn call(mut client: WorkersClient<Wire>, call: RunCall) -> Transfer {
    let mut backoff = Backoff::reconnect();
    loop {
        match client.call_large(call.clone()).await {
            // All brokers say which; of a task without an id they would know nothing.
            Ok(enqueued) => {
                let task = Uuid::from_slice(&enqueued.into_inner().id).unwrap_or_default();
                return Transfer::Called(call.call, task);
            }
            Err(status) if is_final(&status) || status.code() == Code::ResourceExhausted => {
                return Transfer::Answered(call.call, Of::Error(refusal(&status)));
            }
            Err(status) => again("send a call", &status, &mut backoff).await,
        }
    }
}

pub(crate) async fn fetch_result(mut client: WorkersClient<Wire>, call: u64, request: FetchResultRequest) -> Transfer {
    let mut backoff = Backoff::reconnect();
    loop {
        match client.fetch_result(request.clone()).await {
            Ok(finished) => return Transfer::Answered(call, Of::Finished(finished.into_inner())),
            Err(status) if is_final(&status) => return Transfer::Answered(call, Of::Error(refusal(&status))),
            Err(status) => again("fetch a result", &status, &mut backoff).await,
        }
    }
}

/// What a status says, as a session would.
fn refusal(status: &Status) -> OperationError {
    let info = status.get_details_error_info();
    OperationError {
        code: status.code().into(),
        reason: info.map_or_else(String::new, |info| info.reason),
        message: status.message().to_owned(),
        retry_after_ms: 0,
    }
}

pub(crate) async fn deliver(mut client: WorkersClient<Wire>, token: LeaseToken, completion: Completion) -> Transfer {
    let mut backoff = Backoff::reconnect();
    loop {
        match client.complete_large(completion.clone()).await {
            Ok(ack) => return Transfer::Delivered(token, ack.into_inner()),
            Err(status) if status.code() == Code::FailedPrecondition => {
                return Transfer::Delivered(
                    token,
                    RunAck {
                        stale: true,
                        ..RunAck::default()
                    },
                );
            }
            Err(status) if is_final(&status) => return Transfer::Refused(token, status),
            Err(status) => again("deliver a result", &status, &mut backoff).await,
        }
    }
}

async fn again(what: &str, status: &Status, backoff: &mut Backoff) {
    tracing::debug!(code = ?status.code(), message = status.message(), "failed to {what}; trying again");
    tokio::time::sleep(backoff.pause()).await;
}

/// Whether the same request would be refused again.
fn is_final(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}
