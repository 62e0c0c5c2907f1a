//! `asynq demo`: real work on the cluster that is there.

mod mandelbrot;

use crate::{connect::Broker, failure::Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Mandelbrot(mandelbrot::Args),
}

impl Command {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let Self::Mandelbrot(args) = self;
        args.run(broker).await
    }
}
