//! Tasks that need no Rust: what worker.toml says of them, one room for each kind.

mod exec;
mod guard;
mod limits;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use asynq_worker::WorkerBuilder;
use serde::Deserialize;

use exec::{Definition, Exec};
use guard::Guard;
pub(crate) use guard::{guard_programs, is_guard};

/// The tables `[task.NAME]` of a worker.toml.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tasks(BTreeMap<String, Definition>);

impl Tasks {
    /// Adds the tasks to a worker. Their programs run in `folder`, which is
    /// worker.toml's. One whose program is missing now is added with a warning:
    /// it may be installed by the time it is called, and others can run.
    ///
    /// # Errors
    /// When the guard that outlives the daemon cannot be started.
    pub(crate) fn register(self, mut worker: WorkerBuilder, folder: &Path) -> io::Result<WorkerBuilder> {
        if self.0.is_empty() {
            return Ok(worker);
        }
        let folder = absolute(folder)?;
        let guard = Arc::new(Guard::start()?);
        for (name, definition) in self.0 {
            let exec = Exec::new(definition, folder.clone(), Some(guard.clone()));
            if let Err(error) = exec.find() {
                tracing::warn!(task = name, "{error}; until that is mended, the task fails");
            }
            worker = exec.register(name, worker);
        }
        Ok(worker)
    }
}

/// The folder as it is reached from anywhere.
fn absolute(folder: &Path) -> io::Result<PathBuf> {
    // The parent of a bare `worker.toml` is empty.
    std::path::absolute(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    })
}
