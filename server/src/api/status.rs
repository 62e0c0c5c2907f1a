//! The one place where errors become gRPC statuses and session errors.
//! docs/errors.md explains each reason.

use asynq_core::Refusal;
use asynq_proto::{reasons, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::auth::Denied;
use crate::broker::{End, Error};

/// The code and the reason of an error.
fn classify(error: &Error) -> (Code, &'static str) {
    match error {
        Error::Refused(Refusal::AlreadyExists(_)) => (Code::AlreadyExists, reasons::TASK_EXISTS),
        Error::Refused(Refusal::BeingRead(_)) | Error::StreamOver(_) => (Code::AlreadyExists, reasons::STREAM_TAKEN),
        Error::Refused(Refusal::NotFound(_)) => (Code::NotFound, reasons::TASK_NOT_FOUND),
        Error::Refused(Refusal::Exhausted { .. })
        | Error::TooManyOnOneTask(_)
        | Error::TooManyListings
        | Error::Ended(End::TooManyOutstanding) => (Code::ResourceExhausted, reasons::LIMIT_REACHED),
        Error::Refused(Refusal::Invalid { .. }) | Error::BadMessage(_) => {
            (Code::InvalidArgument, reasons::INVALID_FIELD)
        }
        Error::PayloadTooLarge { .. } => (Code::InvalidArgument, reasons::PAYLOAD_TOO_LARGE),
        Error::IdInFuture(_) => (Code::InvalidArgument, reasons::ID_IN_FUTURE),
        Error::ResultExpired(_) => (Code::NotFound, reasons::RESULT_EXPIRED),
        Error::ExpectedHello(_) => (Code::InvalidArgument, reasons::SESSION_EXPECTED_HELLO),
        Error::StaleLease(_) => (Code::FailedPrecondition, reasons::STALE_LEASE),
        Error::DeadlineExceeded => (Code::DeadlineExceeded, reasons::DEADLINE_EXCEEDED),
        // Nobody listens to the first two.
        Error::Ended(End::Done | End::Gone | End::ShuttingDown) => (Code::Unavailable, reasons::SHUTTING_DOWN),
        Error::Ended(End::StoreFailed) => (Code::Unavailable, reasons::STORE_FAILED),
        Error::Ended(End::Superseded) => (Code::Aborted, reasons::SESSION_SUPERSEDED),
        Error::Ended(End::LeaseOver) => (Code::FailedPrecondition, reasons::LEASE_OVER),
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = classify(&error);
        let details = ErrorDetails::with_error_info(reason, reasons::DOMAIN, []);
        Self::with_error_details(code, error.to_string(), details)
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
        let details = ErrorDetails::with_error_info(reason, reasons::DOMAIN, []);
        Self::with_error_details(code, denied.to_string(), details)
    }
}

/// The same inside a session.
pub(super) fn operation_error(error: &Error) -> v1::OperationError {
    let (code, reason) = classify(error);
    v1::OperationError {
        code: code as i32,
        reason: reason.into(),
        message: error.to_string(),
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
        let status = Status::from(Error::ResultExpired(TaskId([0; 16])));
        assert_eq!(status.get_details_error_info().unwrap().reason, "RESULT_EXPIRED");
    }
}
