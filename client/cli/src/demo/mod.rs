//! `asynq demo`: real work on the cluster that is there.

mod mandelbrot;

use crate::failure::Failure;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Mandelbrot(mandelbrot::Args),
}

impl Command {
    pub(crate) async fn run(self, broker: &str) -> Result<(), Failure> {
        let Self::Mandelbrot(args) = self;
        args.run(broker).await
    }
}
