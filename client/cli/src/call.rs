//! `asynq call`: run a task and print its result.

use std::future::{IntoFuture, pending};

use asynq_client::{CancelOutcome, Client, Error, Refusal, TaskId};
use tokio::{
    signal::ctrl_c,
    time::{sleep, timeout},
};

use crate::{
    arguments,
    cli::Format,
    connect::connect,
    failure::{Failure, say},
    limits::{CANCEL_WITHIN, NO_WORKER_AFTER},
    options::TaskOptions,
    report,
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
    pub(crate) async fn run(self, broker: &str) -> Result<(), Failure> {
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
            () = warn_without_worker(client, id, &self.name) => return Ok(()),
            _ = ctrl_c() => return Err(cancel(client, id).await),
        };
        report::outcome(client, id, self.output, result).await
    }
}

/// Tells the user if no worker can run the task. Never ends.
async fn warn_without_worker(client: &Client, id: TaskId, name: &str) {
    sleep(NO_WORKER_AFTER).await;
    if let Ok(explanation) = client.explain(id).await
        && explanation.reason == "no_worker"
    {
        say(
            "NO_WORKER",
            &format!("no worker has registered {name}; the task waits for one"),
        );
    }
    pending::<()>().await;
}

/// Cancels the task after Ctrl-C, and says how that went. A second Ctrl-C does not wait for it.
async fn cancel(client: &Client, id: TaskId) -> Failure {
    let cancelled = tokio::select! {
        cancelled = timeout(CANCEL_WITHIN, client.cancel(id)) => cancelled,
        _ = ctrl_c() => return Failure::new(130, "DETACHED", format!("the task {id} may go on")),
    };
    match cancelled {
        Ok(Ok(cancelled)) => {
            let became = match cancelled.outcome {
                CancelOutcome::Stopping => "is being stopped",
                CancelOutcome::Finished => "had ended before",
                _ => "was cancelled",
            };
            Failure::new(5, "CANCELLED", format!("the task {id} {became}"))
        }
        // Its arguments were still on their way, which ended with the call.
        Ok(Err(Error::Refused {
            kind: Refusal::NotFound,
            ..
        })) => Failure::new(5, "CANCELLED", format!("the task {id} was not enqueued")),
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::new(
            3,
            "NO_BROKER",
            format!("the broker does not answer; the task {id} may go on"),
        ),
    }
}
