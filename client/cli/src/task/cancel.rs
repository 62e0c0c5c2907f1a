//! `asynq task cancel`.

use asynq_client::{CancelOutcome, TaskId};

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
};

/// Cancel tasks: those that wait will not start, those that run are stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq task cancel \"$id\"\n  xargs asynq task cancel < ids")]
pub(crate) struct Args {
    /// The tasks.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,
    /// How to print; json prints one object to a line.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Args {
    /// Goes through all of them; the first that cannot be cancelled gives the exit code.
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = connect(broker, None).await?.client;
        let mut first_failure = None;
        for id in self.ids {
            let cancelled = match client.cancel(id).await {
                Ok(cancelled) => cancelled,
                Err(error) => {
                    let failure = Failure::from(error);
                    first_failure.get_or_insert(Failure::silent(failure.code()));
                    failure.report();
                    continue;
                }
            };
            match self.output {
                Format::Json => output::json(&json::Cancel::from(cancelled))?,
                Format::Text => {
                    let became = match cancelled.outcome {
                        CancelOutcome::Finished => format!("had ended before: {}", cancelled.state),
                        outcome => outcome.as_str().to_owned(),
                    };
                    output::line(&format!("{id} {became}"))?;
                }
            }
        }
        first_failure.map_or(Ok(()), Err)
    }
}
