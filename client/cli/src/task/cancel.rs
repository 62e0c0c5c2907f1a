//! `asynq task cancel`.

use asynq_client::{CancelOutcome, Client, State, TaskId};

use super::many::{Tasks, Verb, Which, Worst, sweep};
use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
};

/// Cancel tasks: those that wait will not start, those that run are stopped.
///
/// By filters or --all it takes the tasks that have not ended, newest first; those
/// enqueued after it began are left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  asynq task cancel \"$id\"
  xargs asynq task cancel < ids
  asynq task cancel --state ready,scheduled --name resize --since 1h")]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// How to print; json prints one object to a line, of filters one with counts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Args {
    /// Goes through all of them; the worst that comes of one gives the exit code.
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let tasks = self.which.tasks("cancel", &State::LIVE)?;
        let client = connect(broker, None).await?.client;
        match tasks {
            Tasks::Ids(ids) => each(&client, ids, self.output).await,
            Tasks::Fitting(filter) => sweep(Verb::Cancel, &client, filter.listing(&client), self.output).await,
        }
    }
}

async fn each(client: &Client, ids: Vec<TaskId>, format: Format) -> Result<(), Failure> {
    let mut worst = Worst::default();
    for id in ids {
        match (client.cancel(id).await, format) {
            (Ok(cancelled), Format::Json) => output::json(&json::Cancel::from(cancelled))?,
            (Ok(cancelled), Format::Text) => {
                let became = match cancelled.outcome {
                    CancelOutcome::Finished => format!("had ended before: {}", cancelled.state),
                    outcome => outcome.as_str().to_owned(),
                };
                output::line(&format!("{id} {became}"))?;
            }
            (Err(error), _) => worst.note(error),
        }
    }
    worst.end()
}
