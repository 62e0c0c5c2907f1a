//! `asynq`, the command: reads the command line, runs one subcommand, ends with its exit code.

mod arguments;
mod bench;
mod call;
mod cli;
mod compact;
mod connect;
mod demo;
mod doctor;
mod enqueue;
mod failure;
mod iterate;
mod json;
mod jsonl;
mod limits;
mod map;
mod options;
mod output;
mod progress;
mod queue;
mod report;
mod running;
mod series;
mod task;
mod terminal;
mod time;
mod worker;

use std::process::ExitCode;

use mimalloc::MiMalloc;

use crate::{cli::Cli, failure::Failure};

/// As the daemons: with the system's, `asynq bench` would measure that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(cli.run());
    // A read of stdin or a write to stdout that hangs must not keep us.
    runtime.shutdown_background();
    result
}

/// One thread does: the command waits, the broker works.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(1, "RUNTIME", format!("failed to start: {error}")))
}
