//! `asynq queue ls`.

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
    time::brief,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ls(Ls),
}

/// List the queues and how many tasks of each state they hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq queue ls\n  asynq queue ls -o json | jq '.[] | select(.dead > 0)'")]
pub(crate) struct Ls {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Self::Ls(args) = self;
        let queues = connect(broker, None).await?.client.queues().await?;
        if args.output == Format::Json {
            return output::json(&queues.into_iter().map(json::Queue::from).collect::<Vec<_>>());
        }
        let head = [
            "NAME",
            "SCHEDULED",
            "READY",
            "RUNNING",
            "SUCCEEDED",
            "DEAD",
            "CANCELLED",
            "EXPIRED",
            "OLDEST",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for queue in queues {
            rows.push([
                if queue.paused {
                    format!("{} (paused)", queue.name)
                } else {
                    queue.name
                },
                queue.scheduled.to_string(),
                queue.ready.to_string(),
                queue.running.to_string(),
                queue.succeeded.to_string(),
                queue.dead.to_string(),
                queue.cancelled.to_string(),
                queue.expired.to_string(),
                queue.oldest_ready.map_or_else(|| "-".to_owned(), brief),
            ]);
        }
        output::columns(&rows)
    }
}
