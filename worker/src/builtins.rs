//! Tasks every worker can offer, to try things out: `echo`, `sleep`, `fail`.

use std::time::Duration;

use asynq_proto::{Payload, Task, TaskError};
use serde::Deserialize;

use crate::builder::WorkerBuilder;
use crate::context::Context;

const SLEEP: Task<Sleep, ()> = Task::new("sleep");
const FAIL: Task<Option<Fail>, ()> = Task::new("fail");

pub(crate) fn register(builder: WorkerBuilder) -> WorkerBuilder {
    builder.raw("echo", echo).task(SLEEP, sleep).task(FAIL, fail)
}

/// Returns its arguments, byte for byte.
async fn echo(_: Context, args: Payload) -> Result<Payload, TaskError> {
    Ok(args)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    ms: u64,
}

async fn sleep(_: Context, Sleep { ms }: Sleep) -> Result<(), TaskError> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
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
