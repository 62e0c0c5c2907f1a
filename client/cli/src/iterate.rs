//! `asynq iterate`: run a task and print the items it yields as they come.

use std::future::IntoFuture;

use asynq_client::{Items, Payload, TaskId};
use tokio::{signal::ctrl_c, time::timeout};

use crate::{
    arguments,
    connect::{Broker, connect},
    failure::Failure,
    limits::CANCEL_WITHIN,
    options::TaskOptions,
    output::{Lines, hung_up},
    running::{cancel, pass, warn_without_worker},
};

/// Run a task and print the items it yields, one line each, as they come.
///
/// The task is stopped by Ctrl-C, when --wait passes, and when nobody reads the
/// output any more. It runs ahead of the output by no more than the window.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("wait", |wait| wait.help(WAIT)))]
pub(crate) struct Args {
    /// The task's name, as a worker has registered it.
    name: String,
    /// Its argument: JSON, @FILE, or - for stdin [default: null].
    #[arg(allow_negative_numbers = true)]
    json: Option<String>,
    /// How many items the task may run ahead, 1 to 65536 [default: 256, growing to 4096].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: Option<u32>,
    #[command(flatten)]
    options: TaskOptions,
}

const WAIT: &str = "Wait no longer than this; then the task is stopped [default: for ever]";

const EXAMPLES: &str = "\
Examples:
  asynq iterate count '{\"n\":100000}' | wc -l
  asynq iterate count '{\"n\":1000000}' | head -3     stops the task after three
  asynq iterate rows @query.json --window 16 --series reports";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let payload = arguments::read(self.json.as_deref())?;
        let connected = connect(broker, self.options.wait).await?;
        let client = &connected.client;
        let mut iterate = self.options.for_iterate(client.iterate_raw(&self.name, payload));
        if let Some(items) = self.window {
            iterate = iterate.window(items);
        }
        if let Some(left) = connected.left() {
            iterate = iterate.wait_at_most(left);
        }
        let id = iterate.id();
        let mut items = tokio::select! {
            items = iterate.into_future() => items?,
            _ = ctrl_c() => return Err(cancel(client, id).await),
        };
        let why = tokio::select! {
            printed = print(&mut items) => return match printed {
                Ok(()) => Ok(()),
                // Whether the task has ended or the output: it ends.
                Err(failure) => Err(stop(items, failure).await),
            },
            () = hung_up() => Failure::hung_up(),
            _ = ctrl_c() => Failure::new(5, "CANCELLED", format!("the task {id} was cancelled")),
            () = pass(connected.left()) => Failure::new(4, "WAIT_PASSED", wait_passed(id)),
            never = warn_without_worker(client, id, &self.name) => match never {},
        };
        Err(stop(items, why).await)
    }
}

/// Prints all items. What is at hand is written together, but never waits for more.
async fn print(items: &mut Items<Payload>) -> Result<(), Failure> {
    let mut lines = Lines::new();
    loop {
        match lines.before(items.try_next()).await? {
            Ok(Some(item)) => lines.push(&item).await?,
            Ok(None) => return lines.flush().await,
            Err(error) => {
                lines.flush().await?;
                return Err(error.into());
            }
        }
    }
}

/// Stops the task, if it has not ended, and waits for that.
async fn stop(items: Items<Payload>, why: Failure) -> Failure {
    let id = items.id();
    let stopped = tokio::select! {
        stopped = timeout(CANCEL_WITHIN, items.stop()) => matches!(stopped, Ok(Ok(_))),
        _ = ctrl_c() => return Failure::new(130, "DETACHED", format!("the task {id} is being stopped")),
    };
    match why.code() {
        4 | 5 if !stopped => Failure::new(
            3,
            "NO_BROKER",
            format!("the broker does not tell whether the task {id} ended"),
        ),
        _ => why,
    }
}

fn wait_passed(id: TaskId) -> String {
    format!("the time to wait has passed; the task {id} was stopped")
}
