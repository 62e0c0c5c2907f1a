//! `asynq call`: run a task and print its result.

use std::future::IntoFuture;

use tokio::signal::ctrl_c;

use crate::{
    arguments,
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    options::TaskOptions,
    report,
    running::{cancel, warn_without_worker},
};

/// Run a task, wait for it, print its result as one line.
///
/// Ctrl-C cancels the task.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The task's name, as a worker has registered it.
    name: String,
    /// Its argument: JSON, @FILE, or - for stdin [default: null].
    #[arg(allow_negative_numbers = true)]
    json: Option<String>,
    #[command(flatten)]
    options: TaskOptions,
    /// json prints the task instead of its result.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  asynq call echo '{\"a\":1}'
  asynq call resize @job.json --timeout 30s --retries 2
  jq -c .job big.json | asynq call resize - --series photos --niceness -5";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let payload = arguments::read(self.json.as_deref())?;
        let connected = connect(broker, self.options.wait).await?;
        let client = &connected.client;
        let mut call = self.options.for_call(client.call_raw(&self.name, payload));
        if let Some(left) = connected.left() {
            call = call.wait_at_most(left);
        }
        let id = call.id();
        let result = tokio::select! {
            result = call.into_future() => result,
            never = warn_without_worker(client, id, &self.name) => match never {},
            _ = ctrl_c() => return Err(cancel(client, id).await),
        };
        report::outcome(client, id, self.output, result).await
    }
}
