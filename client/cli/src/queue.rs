//! `asynq queue ls|show|set`.

use asynq_client::{QueueInfo, QueueUpdate};

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
    Show(Show),
    Set(Set),
}

/// List the queues and how many tasks of each state they hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq queue ls\n  asynq queue ls -o json | jq '.[] | select(.dead > 0)'")]
pub(crate) struct Ls {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Print a queue's tasks by state, and its settings.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq queue show default\n  asynq queue show photos -o json | jq .fast_requeue")]
pub(crate) struct Show {
    /// The queue.
    name: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Have a queue serve otherwise, from now on and over restarts.
///
/// The queue need not hold tasks. What is not named stays as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  asynq queue set photos --fast-requeue on\n  asynq queue set photos --fast-requeue off -o json"
)]
pub(crate) struct Set {
    /// The queue.
    name: String,
    #[command(flatten)]
    settings: Settings,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Settings {
    /// Give up what runs as soon as its worker's connection breaks, and run it elsewhere; off: after 5 s
    #[arg(long, value_enum, value_name = "ON|OFF")]
    fast_requeue: Option<Switch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match self {
            Self::Ls(args) => args.run(broker).await,
            Self::Show(args) => args.run(broker).await,
            Self::Set(args) => args.run(broker).await,
        }
    }
}

impl Show {
    async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match connect(broker, None).await?.client.queue(&self.name).await? {
            Some(queue) => show(queue, self.output),
            None => Err(Failure::new(
                6,
                "QUEUE_NOT_FOUND",
                format!("queue {} holds no task and has no settings of its own", self.name),
            )),
        }
    }
}

impl Set {
    async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let mut update = QueueUpdate::new();
        if let Some(switch) = self.settings.fast_requeue {
            update = update.fast_requeue(switch == Switch::On);
        }
        let queue = connect(broker, None)
            .await?
            .client
            .set_queue(&self.name, update)
            .await?;
        show(queue, self.output)
    }
}

fn show(queue: QueueInfo, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(&json::QueueShown::from(queue));
    }
    let switch = |on| if on { "on" } else { "off" };
    let rows = [
        ("name", queue.name),
        ("policy", queue.policy),
        ("durability", queue.durability),
        ("paused", if queue.paused { "yes" } else { "no" }.to_owned()),
        ("fast requeue", switch(queue.fast_requeue).to_owned()),
        ("scheduled", queue.scheduled.to_string()),
        ("ready", queue.ready.to_string()),
        ("running", queue.running.to_string()),
        ("succeeded", queue.succeeded.to_string()),
        ("dead", queue.dead.to_string()),
        ("cancelled", queue.cancelled.to_string()),
        ("expired", queue.expired.to_string()),
        ("oldest ready", queue.oldest_ready.map_or_else(|| "-".to_owned(), brief)),
    ];
    output::columns(&rows.map(|(name, value)| [name.to_owned(), value]))
}

impl Ls {
    async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let queues = connect(broker, None).await?.client.queues().await?;
        if self.output == Format::Json {
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
