//! `asynq call`: run a task and print its result.

use std::future::IntoFuture;

use asynq_client::Payload;
use tokio::signal::ctrl_c;

use crate::{
    arguments,
    cli::Format,
    connect::{Broker, Connected, connect},
    failure::Failure,
    options::{KeyOptions, TaskOptions},
    report,
    running::{cancel, warn_without_worker},
};

/// Run a task, wait for it, print its result as one line.
///
/// Ctrl-C cancels the task, unless it is one that was there before with the same key.
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
    #[command(flatten)]
    key: KeyOptions,
    /// json prints the task instead of its result.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  asynq call echo '{\"a\":1}'
  asynq call resize @job.json --timeout 30s --retries 2
  asynq call charge @order.json --key order-4711
  jq -c .job big.json | asynq call resize - --series photos --niceness -5";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let payload = arguments::read(self.json.as_deref())?;
        let connected = connect(broker, self.options.wait).await?;
        if self.key.is_given() {
            return self.run_keyed(&connected, payload).await;
        }
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

    /// Whose result it is about is known once it is enqueued.
    async fn run_keyed(&self, connected: &Connected, payload: Payload) -> Result<(), Failure> {
        let client = &connected.client;
        let enqueue = client.enqueue_raw(&self.name, payload);
        let mut enqueue = self.key.for_enqueue(self.options.for_enqueue(enqueue));
        if let Some(left) = connected.left() {
            enqueue = enqueue.wait_at_most(left);
        }
        let sent = enqueue.id();
        let handle = tokio::select! {
            handle = enqueue.into_future() => handle?,
            _ = ctrl_c() => return Err(cancel(client, sent).await),
        };
        let id = handle.id();
        let waiting = async {
            match connected.left() {
                Some(left) => handle.result_within(left).await,
                None => handle.result().await,
            }
        };
        let result = tokio::select! {
            result = waiting => result,
            never = warn_without_worker(client, id, &self.name) => match never {},
            // What others have begun is theirs.
            _ = ctrl_c() => return Err(if id == sent {
                cancel(client, id).await
            } else {
                Failure::new(130, "DETACHED", format!("the task {id}, which has the key, goes on"))
            }),
        };
        report::outcome(client, id, self.output, result).await
    }
}
