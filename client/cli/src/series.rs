//! `asynq series …`: what there is to do with all tasks of a series.

use asynq_client::State;

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    task::{Filter, Verb, check, sweep},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Cancel(Cancel),
}

/// Cancel all tasks of a series: those that wait will not start, those that run
/// are stopped.
///
/// Those enqueued after it began are left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq series cancel photos\n  asynq series cancel photos --queue nightly")]
pub(crate) struct Cancel {
    /// The series.
    series: String,
    /// Only in this queue [default: in all].
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// How to print; json prints an object with counts.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Self::Cancel(args) = self;
        if args.series.is_empty() {
            let hint = "tasks of no series are cancelled with asynq task cancel --series ''";
            return Err(Failure::usage(format!("the series is empty; {hint}")));
        }
        let filter = Filter {
            series: Some(args.series),
            queue: args.queue,
            ..Filter::default()
        };
        check(&filter, "cancel", &State::LIVE)?;
        let client = connect(broker, None).await?.client;
        sweep(Verb::Cancel, &client, filter.listing(&client), args.output).await
    }
}
