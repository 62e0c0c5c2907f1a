//! Calls that ended badly, by code and reason: counted all, logged at a bounded
//! rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Code;
use tracing::{info, warn};

use crate::auth::Complaints;
use crate::limits::MAX_ERROR_LABELS;

/// Stands for what there is no room to name.
const OTHER: &str = "other";

/// Cheap to clone; clones share the counts. Locked only for a call that failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Shared>);

/// By code and reason.
type Counts = BTreeMap<(&'static str, String), u64>;

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<Counts>,
    logged: Complaints,
}

impl Calls {
    /// One call, or one operation of a session, has ended so. The log says it in
    /// the span of the call.
    pub(crate) fn failed(&self, code: Code, reason: &str, message: &str) {
        self.count(code, reason);
        // Who was refused is told by the guard.
        if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
            return;
        }
        let Some(passed_over) = self.0.logged.one_more() else {
            return;
        };
        let name = word(code);
        match code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                warn!(code = name, reason, error = message, passed_over, "a call failed");
            }
            _ => info!(code = name, reason, error = message, passed_over, "a call failed"),
        }
    }

    fn count(&self, code: Code, reason: &str) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (word(code), reason.to_owned());
        // Reasons are ours and few; but a bug must not fill the memory.
        let key = match counts.len() < MAX_ERROR_LABELS || counts.contains_key(&key) {
            true => key,
            false => (OTHER, OTHER.to_owned()),
        };
        *counts.entry(key).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The name of a code, as gRPC writes it.
const fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_pairs_than_the_limit() {
        let calls = Calls::default();
        for n in 0..2 * MAX_ERROR_LABELS {
            calls.failed(Code::NotFound, &n.to_string(), "");
        }
        calls.failed(Code::NotFound, "0", "");
        let counts = calls.counts();
        assert_eq!(counts.len(), MAX_ERROR_LABELS + 1);
        assert_eq!(counts[&("NOT_FOUND", "0".to_owned())], 2);
        assert_eq!(counts[&(OTHER, OTHER.to_owned())], MAX_ERROR_LABELS as u64);
    }
}
