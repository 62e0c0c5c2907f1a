//! `asynq worker ls`.

use asynq_client::WorkerInfo;

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    json, output,
    time::rfc3339,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ls(Ls),
}

/// List the workers, how busy they are and what they can run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq worker ls\n  asynq worker ls -o json | jq -r '.[].tasks[]' | sort -u")]
pub(crate) struct Ls {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

fn busy(worker: &WorkerInfo) -> String {
    let of_all = format!("{}/{}", worker.busy, worker.slots);
    match worker.leaked {
        0 => of_all,
        leaked => format!("{of_all} ({leaked} leaked)"),
    }
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Self::Ls(args) = self;
        let workers = connect(broker, None).await?.client.workers().await?;
        if args.output == Format::Json {
            return output::json(&workers.into_iter().map(json::Worker::from).collect::<Vec<_>>());
        }
        let mut rows = vec![["NAME", "STATE", "BUSY", "CONNECTED", "TASKS"].map(str::to_owned)];
        for worker in workers {
            let busy = busy(&worker);
            rows.push([
                worker.name,
                worker.state,
                busy,
                worker.connected_at.map_or_else(|| "-".to_owned(), rfc3339),
                worker.tasks.join(" "),
            ]);
        }
        output::columns(&rows)
    }
}
