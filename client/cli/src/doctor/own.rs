//! What this process itself may do.

use std::time::SystemTime;

use rustix::process::{Resource, getrlimit};

use super::verdict::Verdict;

/// Connections, files and pipes a caller or a small worker gets by with.
const FEW_FILES: u64 = 1024;

/// This machine's clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock that is looked at")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// How many files may be open, if there is a limit.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

pub(super) fn open_files(limit: Option<u64>) -> Verdict {
    match limit {
        None => Verdict::ok("no limit"),
        Some(limit) if limit < FEW_FILES => Verdict::warn(
            format!("at most {limit}"),
            format!("allow {FEW_FILES} or more where workers or many callers run: ulimit -n {FEW_FILES}"),
        ),
        Some(limit) => Verdict::ok(format!("at most {limit}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_warned_of() {
        assert_eq!(open_files(None), Verdict::ok("no limit"));
        assert_eq!(open_files(Some(1024)), Verdict::ok("at most 1024"));
        assert!(matches!(open_files(Some(256)), Verdict::Warn(_)));
    }
}
