//! Tasks of kind `exec`: each run is a program started for it. `definition` is
//! what worker.toml says; `template` and `arguments` make the command line;
//! `program` starts it, `supervise` ends its `process`; `stdout`, `items` and `stderr`
//! read what it writes; `failure` says what its end means.

mod arguments;
mod definition;
mod failure;
mod find;
mod items;
mod process;
mod program;
mod stderr;
mod stdout;
mod supervise;
mod template;

use std::path::PathBuf;
use std::sync::Arc;

use asynq_proto::OCTET_STREAM;
use asynq_worker::{Context, Declaration, OnLoss, Payload, TaskError, WorkerBuilder};
use serde_json::value::RawValue;

pub(crate) use definition::Definition;
use definition::Stdout;
use failure::bad_output;
use find::NotFound;
use items::Format;
use program::Program;

use super::guard::Guard;

/// A task that runs a program.
pub(super) struct Exec {
    definition: Definition,
    /// Where relative programs lie, and where programs run.
    folder: PathBuf,
    /// Kills the programs if the daemon cannot.
    guard: Option<Arc<Guard>>,
}

impl Exec {
    pub(super) fn new(definition: Definition, folder: PathBuf, guard: Option<Arc<Guard>>) -> Self {
        Self {
            definition,
            folder,
            guard,
        }
    }

    /// Where its program is now.
    pub(super) fn find(&self) -> Result<PathBuf, NotFound> {
        let own = self.definition.env.get("PATH").map(Into::into);
        let path = own.or_else(|| std::env::var_os("PATH"));
        find::find(&self.definition.cmd.program, &self.folder, path.as_deref())
    }

    /// Adds the task to a worker.
    pub(super) fn register(self, name: String, worker: WorkerBuilder) -> WorkerBuilder {
        let mut task = Declaration::new(name).on_loss(self.definition.on_loss);
        if let Some(timeout) = self.definition.timeout {
            task = task.timeout(timeout);
        }
        if let Some(attempts) = self.definition.max_attempts {
            task = task.max_attempts(attempts);
        }
        let exec = Arc::new(self);
        match exec.definition.stdout {
            Stdout::Json => worker.raw(task, move |context, args| {
                let exec = exec.clone();
                async move {
                    let (output, stderr) = exec.output(&context, &args).await?;
                    json(output).map_err(|error| error.with_trace(stderr))
                }
            }),
            Stdout::Raw => worker.raw(task, move |context, args| {
                let exec = exec.clone();
                async move { Ok(Payload::bytes(OCTET_STREAM, exec.output(&context, &args).await?.0)) }
            }),
            Stdout::Lines => exec.register_iterator(task, Format::Lines, worker),
            Stdout::Jsonl => {
                let checkpoints = exec.definition.on_loss == OnLoss::Checkpoint;
                exec.register_iterator(task, Format::Jsonl { checkpoints }, worker)
            }
        }
    }

    fn register_iterator(self: Arc<Self>, task: Declaration, format: Format, worker: WorkerBuilder) -> WorkerBuilder {
        let called = self.clone();
        worker.raw_iter_or_call(
            task,
            move |context, args| items::iterate(&self, format, &context, &args),
            move |context, args| {
                let exec = called.clone();
                async move { items::call(&exec, format, &context, &args).await }
            },
        )
    }

    /// Runs the program to its end; gives what it has written, and the end of what it
    /// said on stderr.
    async fn output(&self, context: &Context, payload: &Payload) -> Result<(Vec<u8>, String), TaskError> {
        let (program, stdout) = Program::start(self, context, payload)?;
        let output = stdout.all().await?;
        let stderr = program.end().await?;
        Ok((output, stderr))
    }
}

/// A program's whole output as one JSON value.
fn json(output: Vec<u8>) -> Result<Payload, TaskError> {
    if output.trim_ascii().is_empty() {
        return Err(bad_output(
            "stdout is empty, and one JSON value is due; print null if there is nothing to say, \
             or set stdout = \"raw\"",
        ));
    }
    let value: &RawValue = serde_json::from_slice(&output)
        .map_err(|error| bad_output(format!("stdout is not one JSON value: {error}")))?;
    Ok(Payload::bytes(asynq_proto::JSON, value.get().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_json_value_is_a_result() {
        assert_eq!(json(b" {\"a\" : 1.50}\n".to_vec()).unwrap().data(), "{\"a\" : 1.50}");
        for (output, said) in [
            (&b""[..], "stdout is empty"),
            (b" \n", "stdout is empty"),
            (b"1 2", "not one JSON value: trailing characters"),
            (b"{\"a\":", "not one JSON value: EOF"),
            (b"done", "not one JSON value"),
            (b"\"\xff\"", "not one JSON value"),
        ] {
            let error = json(output.to_vec()).unwrap_err();
            assert!(error.message.contains(said), "{}", error.message);
            assert_eq!((error.kind.as_str(), error.retryable), ("bad_output", false));
        }
    }
}
