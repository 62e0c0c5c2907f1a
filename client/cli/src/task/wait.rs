//! `asynq task wait`.

use std::time::Duration;

use asynq_client::TaskId;
use asynq_proto::duration;
use tokio::signal::ctrl_c;

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    report,
};

/// Wait for a task to end; print and exit as `asynq call` does.
///
/// Ctrl-C detaches: the task goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  asynq task wait \"$id\"\n  asynq task wait \"$id\" --wait 5m || echo 'not yet'")]
pub(crate) struct Args {
    /// The task.
    id: TaskId,
    /// Wait no longer than this; the task goes on [default: for ever].
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// json prints the task instead of its result.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let connected = connect(broker, self.wait).await?;
        let handle = connected.client.handle_raw(self.id);
        let waiting = async {
            match connected.left() {
                Some(left) => handle.result_within(left).await,
                None => handle.result().await,
            }
        };
        let result = tokio::select! {
            result = waiting => result,
            _ = ctrl_c() => return Err(Failure::new(130, "DETACHED", format!("the task {} goes on", self.id))),
        };
        report::outcome(&connected.client, self.id, self.output, result).await
    }
}
