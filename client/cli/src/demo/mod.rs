//! `asynq demo`: real work on the cluster that is there.

mod logs;
mod mandelbrot;
mod part;

use crate::{connect::Broker, failure::Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Mandelbrot(mandelbrot::Args),
    Logs(logs::Args),
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match self {
            Self::Mandelbrot(args) => args.run(broker).await,
            Self::Logs(args) => args.run(broker).await,
        }
    }
}
