//! `asynq`, the command: reads the command line, runs one subcommand, ends with its exit code.

mod arguments;
mod call;
mod cli;
mod compact;
mod connect;
mod enqueue;
mod failure;
mod json;
mod limits;
mod options;
mod output;
mod queue;
mod report;
mod task;
mod time;
mod worker;

use std::process::ExitCode;

use crate::failure::Failure;

fn main() -> ExitCode {
    let result = cli::parse().and_then(|cli| runtime()?.block_on(cli.run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// One thread does: the command waits, the broker works.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(1, "RUNTIME", format!("failed to start: {error}")))
}
