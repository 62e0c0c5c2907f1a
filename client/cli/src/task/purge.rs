//! `asynq task purge`.

use asynq_client::State;

use super::{
    filter::Filter,
    many::{Verb, check, sweep},
};
use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
};

/// Forget tasks that have ended, with their arguments and results.
///
/// They are gone at once and for good: nobody can show, wait for or retry them. A
/// task that ends after it began is left alone. Where tokens are asked for, it
/// takes the role admin.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  asynq task purge --state dead
  asynq task purge --state succeeded,cancelled --series photos")]
pub(crate) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// How to print; json prints an object with counts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

const ENDED: [State; 4] = [State::Succeeded, State::Dead, State::Cancelled, State::Expired];

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        if self.filter.state.is_empty() {
            return Err(Failure::usage(
                "purge which tasks? Give --state: succeeded, dead, cancelled, expired",
            ));
        }
        check(&self.filter, "purge", &ENDED)?;
        let client = connect(broker, None).await?.client;
        sweep(Verb::Purge, &client, self.filter.listing(&client), self.output).await
    }
}
