//! A task that calls itself, on a worker with one slot, and one that leaves a task behind.
//!
//! ```text
//! asynqd &
//! cargo run -p asynq-worker --example fibonacci
//! asynq call fibonacci 10
//! ```

use asynq_worker::{CallError, Context, Task, TaskError, Worker};

const FIBONACCI: Task<u32, u64> = Task::new("fibonacci");
const REPORT: Task<u32, u64> = Task::new("fibonacci.report");
const NOTE: Task<String, ()> = Task::new("fibonacci.note");

/// While it waits, its slot runs what it waits for.
async fn fibonacci(context: Context, n: u32) -> Result<u64, TaskError> {
    if n < 2 {
        return Ok(n.into());
    }
    let (one, two) = (n - 1, n - 2);
    let (one, two) = tokio::try_join!(context.call(FIBONACCI, &one), context.call(FIBONACCI, &two))?;
    Ok(one + two)
}

/// A blocking handler waits with `wait`. What it leaves behind begins with its success.
#[expect(clippy::needless_pass_by_value, reason = "handlers own what they are given")]
fn report(context: Context, n: u32) -> Result<u64, TaskError> {
    let number = match context.call(FIBONACCI, &n).niceness(5).retries(2).wait() {
        // What is called may end in other ways than with a result.
        Err(CallError::Dead { reason, failure, .. }) => {
            return Err(TaskError::terminal(format!("{reason}: {}", failure.message)));
        }
        called => called?,
    };
    context
        .spawn(NOTE, &format!("fibonacci({n}) = {number}"))
        .on_success()?;
    Ok(number)
}

async fn note(_: Context, text: String) -> Result<(), TaskError> {
    eprintln!("{text}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), asynq_worker::RunError> {
    let broker = std::env::var("ASYNQ_BROKER").unwrap_or_else(|_| "http://127.0.0.1:7740".to_owned());
    let ctrl_c = async { drop(tokio::signal::ctrl_c().await) };
    Worker::builder(&broker)
        .slots(1)
        .task(FIBONACCI, fibonacci)
        .blocking(REPORT, report)
        .task(NOTE, note)
        .on_ready(|ready| println!("ready with {} tasks", ready.tasks))
        .run_until(ctrl_c)
        .await
}
