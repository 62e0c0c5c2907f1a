//! Which role may call what: the one table. A call that is not in it is refused
//! wherever tokens are asked for, and a test finds it.

use std::fmt;

use super::role::{Role, Roles};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Whoever got a connection, where that takes a certificate with one.
    Anyone,
    /// Whoever has a token that is known, with whatever roles.
    Holders,
    /// Who has one of these roles.
    Roles(Roles),
}

/// As docs/guides/security.md says it.
impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone, without a token"),
            Self::Holders => f.write_str("any"),
            Self::Roles(roles) => roles.fmt(f),
        }
    }
}

const CALLERS: Allowed = Allowed::Roles(Roles::of(&[Role::Caller, Role::Admin]));
const ADMINS: Allowed = Allowed::Roles(Roles::of(&[Role::Admin]));
const WORKERS: Allowed = Allowed::Roles(Roles::of(&[Role::Worker]));

/// Path of the call, and who may make it. docs/guides/security.md says the same.
const POLICY: &[(&str, Allowed)] = &[
    ("/asynq.v1.Tasks/Session", CALLERS),
    ("/asynq.v1.Tasks/Enqueue", CALLERS),
    ("/asynq.v1.Tasks/Wait", CALLERS),
    ("/asynq.v1.Tasks/Cancel", CALLERS),
    ("/asynq.v1.Tasks/Iterate", CALLERS),
    ("/asynq.v1.Tasks/Flow", CALLERS),
    ("/asynq.v1.Tasks/Stop", CALLERS),
    ("/asynq.v1.Tasks/Show", CALLERS),
    ("/asynq.v1.Tasks/Explain", CALLERS),
    ("/asynq.v1.Tasks/History", CALLERS),
    ("/asynq.v1.Workers/Work", WORKERS),
    ("/asynq.v1.Workers/FetchPayload", WORKERS),
    ("/asynq.v1.Workers/CompleteLarge", WORKERS),
    ("/asynq.v1.Workers/CallLarge", WORKERS),
    ("/asynq.v1.Workers/FetchResult", WORKERS),
    ("/asynq.v1.Workers/Emit", WORKERS),
    // These only look.
    ("/asynq.v1.Admin/ListQueues", CALLERS),
    ("/asynq.v1.Admin/ListWorkers", CALLERS),
    ("/asynq.v1.Admin/ListTasks", CALLERS),
    // These undo what was decided, or destroy it.
    ("/asynq.v1.Admin/RetryTasks", ADMINS),
    ("/asynq.v1.Admin/PurgeTasks", ADMINS),
    // This is for all who use the queue.
    ("/asynq.v1.Admin/SetQueue", ADMINS),
    // Load balancers and supervisors have no tokens, and learn no more than
    // that a broker is there.
    ("/grpc.health.v1.Health/Check", Allowed::Anyone),
    ("/grpc.health.v1.Health/Watch", Allowed::Anyone),
    // What is on the wire is no secret, but only for those who belong here.
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Allowed::Holders,
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Allowed::Holders,
    ),
];

/// Who may call `path`; `None` for what nobody has thought of.
pub(super) fn allowed(path: &str) -> Option<Allowed> {
    let row = POLICY.iter().find(|(known, _)| *known == path);
    row.map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::descriptors;

    #[test]
    fn every_call_has_a_policy_and_every_policy_a_call() {
        let planned: BTreeSet<&str> = POLICY.iter().map(|(path, _)| *path).collect();
        // All that is served: `Api` refuses other paths before it looks for a service.
        assert_eq!(planned, descriptors::paths().collect());
        assert_eq!(planned.len(), POLICY.len(), "a call is there twice");
        assert_eq!(allowed("/asynq.v1.Tasks/Drop"), None);
    }

    #[test]
    fn the_guide_tells_the_same() {
        let guide = include_str!("../../../docs/guides/security.md");
        for (path, allowed) in POLICY {
            let call = path.trim_start_matches("/asynq.v1.").trim_start_matches('/');
            let row = format!("| `{call}` | {allowed} |");
            assert!(guide.contains(&row), "docs/guides/security.md lacks {row}");
        }
    }
}
