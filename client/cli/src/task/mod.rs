//! `asynq task …`: what there is to do with a task that was enqueued.

mod cancel;
mod explain;
mod history;
mod ls;
mod show;
mod wait;

use crate::{connect::Broker, failure::Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ls(ls::Args),
    Show(show::Args),
    Wait(wait::Args),
    Cancel(cancel::Args),
    Explain(explain::Args),
    History(history::Args),
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match self {
            Self::Ls(args) => args.run(broker).await,
            Self::Show(args) => args.run(broker).await,
            Self::Wait(args) => args.run(broker).await,
            Self::Cancel(args) => args.run(broker).await,
            Self::Explain(args) => args.run(broker).await,
            Self::History(args) => args.run(broker).await,
        }
    }
}
