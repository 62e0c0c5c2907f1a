//! A worker with three kinds of handler; the client's examples call it.
//!
//! ```text
//! asynqd &
//! cargo run -p asynq-worker --example texts
//! ```

use std::time::Duration;

use asynq_worker::{Context, Iter, OnLoss, Task, TaskError, Worker};

/// What a worker and its callers both know. Two attempts of at most 10 s, unless a caller says otherwise.
const CLEAN: Task<String, String> = Task::new("text.clean").timeout(Duration::from_secs(10)).max_attempts(2);
const COUNT: Task<String, usize> = Task::new("text.count");
const WORDS: Iter<String, String> = Iter::new("text.words", OnLoss::Replay);

/// An async handler: for what waits, for a database or another server. It is dropped at its next await when it is
/// to stop.
async fn clean(_: Context, text: String) -> Result<String, TaskError> {
    if text.contains('\0') {
        // No attempt can work with this; `TaskError::retryable`, or `?`, would have it tried again.
        return Err(TaskError::rejected("the text holds a NUL"));
    }
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
}

/// A blocking handler: for what computes, or reads files. It has a thread of its own and looks now and then whether
/// it is to stop.
#[expect(clippy::needless_pass_by_value, reason = "handlers own what they are given")]
fn count(context: Context, text: String) -> Result<usize, TaskError> {
    let mut words = 0;
    for _ in text.split_whitespace() {
        if context.is_stopped() {
            return Err(TaskError::retryable("stopped before the end"));
        }
        words += 1;
    }
    Ok(words)
}

/// An iterator: its items stream to the caller, and it runs ahead of it by no more than the caller's window.
fn words(_: Context, text: String) -> impl Iterator<Item = Result<String, TaskError>> {
    let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    words.into_iter().map(Ok)
}

#[tokio::main]
async fn main() -> Result<(), asynq_worker::RunError> {
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    Worker::builder(&broker)
        .slots(4)
        .task(CLEAN, clean)
        .blocking(COUNT, count)
        .blocking_iter(WORDS, words)
        .on_ready(|ready| println!("ready with {} tasks", ready.tasks))
        .run_until(ctrl_c) // takes nothing new then, and finishes what it has
        .await
}
