//! `asynq task …`: what there is to do with tasks that were enqueued.

mod cancel;
mod explain;
mod filter;
mod history;
mod ls;
mod many;
mod purge;
mod retry;
mod show;
mod wait;

pub(crate) use filter::Filter;
pub(crate) use many::{Verb, check, sweep};

use crate::{connect::Broker, failure::Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ls(ls::Args),
    Show(show::Args),
    Wait(wait::Args),
    Cancel(cancel::Args),
    Retry(retry::Args),
    Purge(purge::Args),
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
            Self::Retry(args) => args.run(broker).await,
            Self::Purge(args) => args.run(broker).await,
            Self::Explain(args) => args.run(broker).await,
            Self::History(args) => args.run(broker).await,
        }
    }
}
