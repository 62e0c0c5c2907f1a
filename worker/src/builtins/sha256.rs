//! The builtin `sha256`: the digest of a file on the worker.

use std::io::{ErrorKind, Read};

use asynq_proto::{Task, TaskError};
use ring::digest::{self, SHA256};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::files::{Files, unreadable};
use crate::limits::DIGEST_READ_BYTES;

pub(super) const SHA256_TASK: Task<File, Digest> = Task::new("sha256");

/// What to read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Under the worker's folder of files.
    path: String,
}

/// What was read.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Digest {
    path: String,
    bytes: u64,
    /// In hexadecimal.
    sha256: String,
}

/// Reads the whole file, and looks between reads whether it should stop.
pub(super) fn sha256(files: &Files, context: &Context, File { path }: File) -> Result<Digest, TaskError> {
    let mut file = files.open(&path)?;
    let mut digest = digest::Context::new(&SHA256);
    let mut buffer = vec![0; DIGEST_READ_BYTES];
    let mut bytes = 0;
    while !context.is_stopped() {
        match file.read(&mut buffer) {
            Ok(0) => {
                let sha256 = digest
                    .finish()
                    .as_ref()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                return Ok(Digest { path, bytes, sha256 });
            }
            Ok(read) => {
                digest.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    // Nobody hears it.
    Err(TaskError::retryable("stopped"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::calls::OfRun;
    use crate::context::{Control, LeaseToken, Run, StopCause};

    fn context(control: &Control) -> Context {
        Context::new(Run {
            token: LeaseToken {
                task_id: uuid::Uuid::nil(),
                epoch: 1,
                attempt: 1,
            },
            name: "sha256".into(),
            queue: "default".into(),
            series: String::new(),
            time: crate::extend::RunTime::default(),
            at_most_once: false,
            control: control.clone(),
            calls: OfRun::default(),
            start: crate::emit::Start::default(),
        })
    }

    fn of(content: &[u8], control: &Control) -> Result<Digest, TaskError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), content).unwrap();
        let files = Files::under(folder.path()).unwrap();
        sha256(&files, &context(control), File { path: "a".into() })
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        let control = Control::default();
        for (content, sha256) in [
            (
                &b""[..],
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                b"abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            // A million times: more than one read.
            (
                &b"a".repeat(1_000_000)[..],
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ),
        ] {
            let digest = of(content, &control).unwrap();
            assert_eq!(digest.sha256, sha256);
            assert_eq!((digest.path.as_str(), digest.bytes), ("a", content.len() as u64));
        }
    }

    #[test]
    fn a_stop_is_heard() {
        let control = Control::default();
        control.stop(StopCause::Cancelled);
        assert_eq!(of(b"abc", &control).unwrap_err().message, "stopped");
    }
}
