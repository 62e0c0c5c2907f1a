//! What every worker can offer, to try things out: `echo`, `sleep`, `fail`,
//! `sha256`, and the iterators `count`, `mandelbrot` and `scan`.

mod count;
mod mandelbrot;
mod scan;
mod sha256;

use std::sync::Arc;
use std::time::Duration;

use asynq_proto::{Payload, Task, TaskError};
use serde::Deserialize;
use tokio::time::sleep;

use self::count::{COUNT, count};
use self::mandelbrot::{MANDELBROT, mandelbrot};
use self::scan::{SCAN, scan};
use self::sha256::{SHA256_TASK, sha256};
use crate::builder::WorkerBuilder;
use crate::context::Context;
use crate::files::Files;

const SLEEP: Task<Pause, ()> = Task::new("sleep");
const FAIL: Task<Option<Fail>, ()> = Task::new("fail");

/// Adds them all. Those that read files read those of `files` only.
pub(crate) fn register(builder: WorkerBuilder, files: Files) -> WorkerBuilder {
    let files = Arc::new(files);
    let digested = Arc::clone(&files);
    builder
        .raw("echo", echo)
        .task(SLEEP, pause)
        .task(FAIL, fail)
        .iter(COUNT, count)
        .blocking_iter(MANDELBROT, mandelbrot)
        .blocking(SHA256_TASK, move |context, file| sha256(&digested, &context, file))
        .blocking_iter(SCAN, move |context, args| scan(&files, context, args))
}

/// Returns its arguments, byte for byte.
async fn echo(_: Context, args: Payload) -> Result<Payload, TaskError> {
    Ok(args)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    ms: u64,
}

async fn pause(_: Context, Pause { ms }: Pause) -> Result<(), TaskError> {
    sleep(Duration::from_millis(ms)).await;
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    /// What the failure says.
    message: Option<String>,
    /// Fails while the attempt is at most this; for ever without it.
    times: Option<u32>,
}

async fn fail(context: Context, args: Option<Fail>) -> Result<(), TaskError> {
    let Fail { message, times } = args.unwrap_or_default();
    if times.is_none_or(|times| context.attempt() <= times) {
        return Err(TaskError::retryable(
            message.unwrap_or_else(|| "failed as asked".into()),
        ));
    }
    Ok(())
}
