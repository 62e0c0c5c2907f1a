//! `asynq enqueue`: put a task in its queue and print its id.

use crate::{arguments, connect::connect, failure::Failure, options::TaskOptions, output};

/// Put a task in its queue and print its id once it is durable.
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
}

const EXAMPLES: &str = "\
Examples:
  id=$(asynq enqueue resize @job.json)
  asynq enqueue report '{\"day\":\"monday\"}' --at 2030-01-07T06:00:00Z --retries 3
  asynq enqueue cleanup --last --delay 5m";

impl Args {
    pub(crate) async fn run(self, broker: &str) -> Result<(), Failure> {
        let payload = arguments::read(self.json.as_deref())?;
        let connected = connect(broker, self.options.wait).await?;
        let mut enqueue = self
            .options
            .for_enqueue(connected.client.enqueue_raw(&self.name, payload));
        if let Some(left) = connected.left() {
            enqueue = enqueue.wait_at_most(left);
        }
        output::line(&enqueue.await?.id().to_string())
    }
}
