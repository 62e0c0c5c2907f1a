//! `asynq task explain`.

use asynq_client::TaskId;

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
};

/// Say why a task is where it is, and what it waits for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq task explain \"$id\"\n  asynq task explain \"$id\" -o json | jq -r .reason")]
pub(crate) struct Args {
    /// The task.
    id: TaskId,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let explanation = connect(broker, None).await?.client.explain(self.id).await?;
        if self.output == Format::Json {
            return output::json(&json::Explanation::from(explanation));
        }
        output::line(&format!(
            "{}, {}: {}",
            explanation.state, explanation.reason, explanation.message
        ))?;
        let details: Vec<_> = explanation
            .details
            .into_iter()
            .map(|(name, value)| [format!("  {name}"), value])
            .collect();
        output::columns(&details)
    }
}
