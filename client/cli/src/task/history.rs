//! `asynq task history`.

use asynq_client::{TaskId, Transition};

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json,
    limits::HISTORY_COLUMN,
    output,
    time::rfc3339,
};

/// Tell what a task went through: each step with its time, attempt, worker and cause.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  asynq task history \"$id\"\n  asynq task history \"$id\" -o json | jq -r '.[] | select(.cause == \"failed\") | .message'"
)]
pub(crate) struct Args {
    /// The task.
    id: TaskId,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let steps = connect(broker, None).await?.client.history(self.id).await?;
        if self.output == Format::Json {
            let steps: Vec<_> = steps.into_iter().map(json::Transition::from).collect();
            return output::json(&steps);
        }
        let head = ["AT", "STATE", "TRY", "WHAT HAPPENED"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(steps.iter().map(row)).collect();
        output::columns(&rows)
    }
}

fn row(step: &Transition) -> [String; 4] {
    [
        step.at.map_or_else(|| "-".to_owned(), rfc3339),
        step.to.to_string(),
        match step.attempt {
            0 => "-".to_owned(),
            attempt => attempt.to_string(),
        },
        cut(&what_happened(step)),
    ]
}

/// The worker last, where there is a message: so the message is read first.
fn what_happened(step: &Transition) -> String {
    let worker = step.worker.as_deref().unwrap_or("a worker");
    let message = |otherwise: String| match &step.message {
        Some(message) => format!("{} ({worker})", message.replace(char::is_control, " ")),
        None => otherwise,
    };
    let stops = step.to == asynq_client::State::Stopping;
    match step.cause.as_str() {
        "enqueued" => "enqueued".to_owned(),
        "due" => "its time came".to_owned(),
        "granted" => format!("{worker} took it"),
        "completed" => format!("{worker} completed it"),
        "failed" => message(format!("failed on {worker}")),
        "timed_out" if stops => format!("timeout; {worker} told to stop"),
        "timed_out" => message(format!("timed out on {worker}")),
        "lost" => message(format!("{worker} was lost")),
        "crashed" => message(format!("its process died on {worker}")),
        "released" => format!("{worker} gave it back unstarted"),
        "cancelled" if stops => format!("cancel; {worker} told to stop"),
        "cancelled" => "cancelled".to_owned(),
        "expired" if stops => format!("deadline; {worker} told to stop"),
        "expired" => "its time was over".to_owned(),
        "adopted" => format!("broker restarted; {worker} has it"),
        "not_resumed" => format!("broker restarted; {worker} gone"),
        "too_late" => format!("result of {worker} came too late"),
        "retried" => "an operator retried it".to_owned(),
        "left_out" => format!("… {} steps are not kept …", step.left_out),
        // Of a newer broker.
        cause => message(cause.to_owned()),
    }
}

/// So that a row fits into 80 columns; -o json has all of it.
fn cut(text: &str) -> String {
    match text.char_indices().nth(HISTORY_COLUMN) {
        None => text.to_owned(),
        Some(_) => text.chars().take(HISTORY_COLUMN - 1).chain(['…']).collect(),
    }
}
