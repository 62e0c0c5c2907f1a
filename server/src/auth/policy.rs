//! Which role may call what: the one table. A call that is not in it is refused
//! wherever tokens are asked for, and a test finds it.

use super::role::{Role, Roles};

const CALLERS: Roles = Roles::of(&[Role::Caller, Role::Admin]);
const WORKERS: Roles = Roles::of(&[Role::Worker]);

/// Path of the call, and who may make it. docs/guides/security.md says the same.
const POLICY: &[(&str, Roles)] = &[
    ("/asynq.v1.Tasks/Session", CALLERS),
    ("/asynq.v1.Tasks/Enqueue", CALLERS),
    ("/asynq.v1.Tasks/Wait", CALLERS),
    ("/asynq.v1.Tasks/Cancel", CALLERS),
    ("/asynq.v1.Tasks/Iterate", CALLERS),
    ("/asynq.v1.Tasks/Flow", CALLERS),
    ("/asynq.v1.Tasks/Stop", CALLERS),
    ("/asynq.v1.Tasks/Show", CALLERS),
    ("/asynq.v1.Tasks/Explain", CALLERS),
    ("/asynq.v1.Workers/Work", WORKERS),
    ("/asynq.v1.Workers/FetchPayload", WORKERS),
    ("/asynq.v1.Workers/CompleteLarge", WORKERS),
    ("/asynq.v1.Workers/Emit", WORKERS),
    // These only look.
    ("/asynq.v1.Admin/ListQueues", CALLERS),
    ("/asynq.v1.Admin/ListWorkers", CALLERS),
    ("/asynq.v1.Admin/ListTasks", CALLERS),
];

/// Who may call `path`; `None` for what nobody has thought of.
pub(super) fn allowed(path: &str) -> Option<Roles> {
    let row = POLICY.iter().find(|(known, _)| *known == path);
    row.map(|(_, roles)| *roles)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every call of every `.proto` there is, as `/package.Service/Method`.
    fn calls() -> BTreeSet<String> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
        let files = std::fs::read_dir(format!("{root}/asynq/v1")).unwrap();
        let files = files.map(|file| format!("asynq/v1/{}", file.unwrap().file_name().to_str().unwrap()));
        let set = protox::compile(files, [root]).unwrap();
        let mut calls = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    calls.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        calls
    }

    #[test]
    fn every_call_has_a_policy_and_every_policy_a_call() {
        let planned: BTreeSet<String> = POLICY.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(planned, calls());
        assert_eq!(planned.len(), POLICY.len(), "a call is there twice");
        assert_eq!(allowed("/asynq.v1.Tasks/Drop"), None);
    }

    #[test]
    fn the_guide_tells_the_same() {
        let guide = include_str!("../../../docs/guides/security.md");
        for (path, roles) in POLICY {
            let row = format!("| `{}` | {roles} |", path.trim_start_matches("/asynq.v1."));
            assert!(guide.contains(&row), "docs/guides/security.md lacks {row}");
        }
    }
}
