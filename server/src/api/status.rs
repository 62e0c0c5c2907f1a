//! The one place where errors become gRPC statuses and session errors.
//! docs/errors.md explains each reason.

use std::time::Duration;

use asynq_core::Refusal;
use asynq_proto::{reasons, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::render;
use crate::auth::Denied;
use crate::broker::{End, Error};
use crate::limits::{RETRY_EXHAUSTED, RETRY_UNAVAILABLE};

/// The code and the reason of an error.
fn classify(error: &Error) -> (Code, &'static str) {
    match error {
        Error::Refused(Refusal::AlreadyExists(_)) => (Code::AlreadyExists, reasons::TASK_EXISTS),
        Error::Refused(Refusal::KeyTaken(_)) => (Code::AlreadyExists, reasons::KEY_TAKEN),
        Error::Refused(Refusal::BeingRead(_)) => (Code::AlreadyExists, reasons::BEING_READ),
        Error::Refused(Refusal::StaleReader(_)) => (Code::Aborted, reasons::STALE_READER),
        Error::Refused(Refusal::BelowFloor { .. }) => (Code::OutOfRange, reasons::BELOW_FLOOR),
        Error::Refused(Refusal::BeyondHead { .. }) => (Code::OutOfRange, reasons::BEYOND_HEAD),
        Error::Refused(Refusal::ReadOtherItems { .. }) => (Code::FailedPrecondition, reasons::READ_OTHER_ITEMS),
        Error::Refused(Refusal::NotAStream(_)) => (Code::FailedPrecondition, reasons::NOT_A_STREAM),
        Error::Refused(Refusal::NotPlaced(_)) | Error::SessionAway => (Code::Unavailable, reasons::WORKER_AWAY),
        Error::Refused(Refusal::NotFound(_)) => (Code::NotFound, reasons::TASK_NOT_FOUND),
        Error::Refused(Refusal::Exhausted { .. })
        | Error::TooManyOnOneTask(_)
        | Error::TooManyOnOneKey(_)
        | Error::TooManyListings
        | Error::Ended(End::TooManyOutstanding) => (Code::ResourceExhausted, reasons::LIMIT_REACHED),
        Error::DiskFull { .. } => (Code::ResourceExhausted, reasons::DISK_FULL),
        Error::Refused(Refusal::Invalid { .. }) | Error::BadMessage(_) => {
            (Code::InvalidArgument, reasons::INVALID_FIELD)
        }
        Error::PayloadTooLarge { .. } => (Code::InvalidArgument, reasons::PAYLOAD_TOO_LARGE),
        Error::IdInFuture(_) => (Code::InvalidArgument, reasons::ID_IN_FUTURE),
        Error::IdTooOld(_) => (Code::InvalidArgument, reasons::ID_TOO_OLD),
        Error::ResultExpired(_) | Error::ResultPurged(_) => (Code::NotFound, reasons::RESULT_EXPIRED),
        Error::ExpectedHello(_) => (Code::InvalidArgument, reasons::SESSION_EXPECTED_HELLO),
        Error::Refused(Refusal::NotDead { .. }) => (Code::FailedPrecondition, reasons::NOT_DEAD),
        Error::Refused(Refusal::NotRetryable { .. }) => (Code::FailedPrecondition, reasons::NOT_RETRYABLE),
        Error::Refused(Refusal::OtherState { .. }) => (Code::FailedPrecondition, reasons::OTHER_STATE),
        Error::StaleLease(_) | Error::Refused(Refusal::StaleCall(_)) => {
            (Code::FailedPrecondition, reasons::STALE_LEASE)
        }
        Error::DeadlineExceeded | Error::StreamDeadline => (Code::DeadlineExceeded, reasons::DEADLINE_EXCEEDED),
        // Nobody listens to the first two.
        Error::Ended(End::Done | End::Gone | End::ShuttingDown) => (Code::Unavailable, reasons::SHUTTING_DOWN),
        Error::Ended(End::StoreFailed) => (Code::Unavailable, reasons::STORE_FAILED),
        Error::Ended(End::Superseded) => (Code::Aborted, reasons::SESSION_SUPERSEDED),
        Error::Ended(End::LeaseOver) => (Code::FailedPrecondition, reasons::LEASE_OVER),
    }
}

/// How long to wait before the same is worth asking again, where that helps.
const fn retry_after(code: Code) -> Option<Duration> {
    match code {
        Code::ResourceExhausted => Some(RETRY_EXHAUSTED),
        Code::Unavailable => Some(RETRY_UNAVAILABLE),
        _ => None,
    }
}

/// A status as every one of ours is: with its reason, and when to try again.
pub(super) fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, reasons::DOMAIN, []);
    if let Some(delay) = retry_after(code) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, message, details)
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = classify(&error);
        status(code, reason, error.to_string())
    }
}

impl From<End> for Status {
    fn from(end: End) -> Self {
        Error::from(end).into()
    }
}

/// Refused before any handler.
impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let (code, reason) = match &denied {
            Denied::Missing => (Code::Unauthenticated, reasons::TOKEN_MISSING),
            Denied::Unknown | Denied::Revoked => (Code::Unauthenticated, reasons::TOKEN_UNKNOWN),
            Denied::Role { .. } | Denied::NoPolicy(_) => (Code::PermissionDenied, reasons::ROLE_MISSING),
        };
        status(code, reason, denied.to_string())
    }
}

/// The same inside a session.
pub(super) fn operation_error(error: &Error) -> v1::OperationError {
    let (code, reason) = classify(error);
    v1::OperationError {
        code: code as i32,
        reason: reason.into(),
        message: error.to_string(),
        retry_after_ms: retry_after(code).map_or(0, render::millis),
    }
}

#[cfg(test)]
mod tests {
    use asynq_core::TaskId;

    use super::*;

    #[test]
    fn a_status_carries_code_reason_domain_and_message() {
        let error = Error::Refused(Refusal::Invalid {
            field: "niceness",
            problem: "is 21".into(),
        });
        let operation = operation_error(&error);
        let status = Status::from(error);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "niceness is 21")
        );
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "asynq"));
        assert_eq!(operation.code, Code::InvalidArgument as i32);
        assert_eq!(
            (operation.reason, operation.message),
            (info.reason, "niceness is 21".to_owned())
        );
        assert!(status.get_details_retry_info().is_none());
        assert_eq!(operation.retry_after_ms, 0);
        let status = Status::from(Error::ResultExpired(TaskId([0; 16])));
        assert_eq!(status.get_details_error_info().unwrap().reason, "RESULT_EXPIRED");
    }
    #[test]
    fn where_waiting_helps_it_says_how_long() {
        for (error, delay) in [
            (Error::TooManyListings, RETRY_EXHAUSTED),
            (Error::DiskFull { free: 0, needed: 1 }, RETRY_EXHAUSTED),
            (Error::Ended(End::ShuttingDown), RETRY_UNAVAILABLE),
            (Error::Ended(End::StoreFailed), RETRY_UNAVAILABLE),
        ] {
            assert_eq!(operation_error(&error).retry_after_ms, render::millis(delay));
            let status = Status::from(error);
            let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(told, Some(delay), "{status:?}");
        }
    }
}
