//! `asynq task show`.

use asynq_client::{TaskId, TaskInfo};

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
    time::rfc3339,
};

/// Print everything about a task but its values.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  asynq task show 019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1\n  asynq task show \"$id\" -o json | jq -r .state"
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
        let task = connect(broker, None).await?.client.show(self.id).await?;
        match self.output {
            Format::Json => output::json(&json::Task::from(task)),
            Format::Text => output::columns(&rows(task)),
        }
    }
}

/// What is worth a person's look: what is none or zero is left out.
fn rows(task: TaskInfo) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: Option<String>| rows.extend(value.map(|value| [name.to_owned(), value]));
    let count = |count: u32| (count > 0).then(|| count.to_string());
    row("id", Some(task.id.to_string()));
    row("name", Some(task.name));
    row("state", Some(task.state.to_string()));
    row("reason", task.reason);
    row("cancel requested", task.cancel_requested.then(|| "yes".to_owned()));
    row("queue", Some(task.queue));
    row("series", Some(task.series).filter(|series| !series.is_empty()));
    row("key", task.key);
    row("niceness", (task.niceness != 0).then(|| task.niceness.to_string()));
    row("attempt", count(task.attempt));
    row("failures", count(task.failures));
    row("timeouts", count(task.timeouts));
    row("crashes", count(task.crashes));
    row("losses", count(task.losses));
    row("releases", count(task.releases));
    row("enqueued at", task.enqueued_at.map(rfc3339));
    row("start at", task.start_at.map(rfc3339));
    row("started at", task.started_at.map(rfc3339));
    row("finished at", task.finished_at.map(rfc3339));
    row("worker", task.worker);
    row(
        "arguments",
        Some(format!("{} bytes of {}", task.payload_bytes, task.content_type)),
    );
    row(
        "result",
        (task.result_bytes > 0).then(|| format!("{} bytes", task.result_bytes)),
    );
    row("checkpoint", task.checkpoint.map(|index| format!("at item {index}")));
    if let Some(error) = task.error {
        row("error", Some(error.to_string()));
        row("trace", Some(error.trace).filter(|trace| !trace.is_empty()));
    }
    rows
}
