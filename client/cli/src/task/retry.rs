//! `asynq task retry`.

use asynq_client::{Client, State, TaskId};

use super::many::{Tasks, Verb, Which, Worst, sweep};
use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
};

/// Have dead tasks run again, with their whole budget of attempts.
///
/// Each keeps its id, its arguments and its place in the order. By filters or
/// --all it takes dead tasks only. Those asked for with --at-most-once begin a
/// second time then: look at them first. Where tokens are asked for, it takes the role
/// admin.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  asynq task retry \"$id\"
  asynq task retry --name resize --since 1h
  asynq task retry --all")]
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
        let tasks = self.which.tasks("retry", &[State::Dead])?;
        let client = connect(broker, None).await?.client;
        match tasks {
            Tasks::Ids(ids) => each(&client, ids, self.output).await,
            Tasks::Fitting(filter) => sweep(Verb::Retry, &client, filter.listing(&client), self.output).await,
        }
    }
}

async fn each(client: &Client, ids: Vec<TaskId>, format: Format) -> Result<(), Failure> {
    let mut worst = Worst::default();
    for id in ids {
        match (client.retry(id).await, format) {
            (Ok(retried), Format::Json) => output::json(&json::Retry::from(retried))?,
            (Ok(retried), Format::Text) if retried.revived => output::line(&format!("{id} retried"))?,
            (Ok(retried), Format::Text) => output::line(&format!("{id} lives already: {}", retried.state))?,
            (Err(error), _) => worst.note(error),
        }
    }
    worst.end()
}
