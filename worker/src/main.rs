//! The worker daemon.

mod commands;
mod config;
mod kinds;
mod log;
mod notify;
mod print;
mod security;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use asynq_worker::{BuildError, Ready, RunError, Worker};
use clap::{CommandFactory, FromArgMatches};
use config::{Cli, Config, ConfigError};
use mimalloc::MiMalloc;
use tokio_util::sync::CancellationToken;

/// Bad flags, a bad worker.toml: nothing was tried.
const USAGE: u8 = 2;

/// A sixth less processor time for a task than with the system's (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const NO_TASKS: &str = "the worker has no tasks: give it a worker.toml with [task.NAME] by --config, or --builtins";

fn main() -> ExitCode {
    if kinds::is_guard() {
        return kinds::guard_programs().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some(command) = cli.command {
        return match command.run(&matches) {
            Ok(text) => say(&text),
            Err(error) if error.is::<ConfigError>() => complain(&error, USAGE),
            Err(error) => complain(&error, 1),
        };
    }
    let config = match Config::load(cli.flags) {
        Ok((config, _)) => config,
        Err(error) => return complain(&error.into(), USAGE),
    };
    log::start(config.log);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(RunError::Build(_))) => complain(&error, USAGE),
        Err(error) => complain(&error, 1),
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    notify::status("connecting to the broker");
    signals::watch(shutdown.clone()).map_err(|error| anyhow!("failed to watch for signals: {error}"))?;
    let runtime = handlers_runtime().map_err(|error| anyhow!("failed to start the runtime: {error}"))?;
    let worker = worker(config)?;
    // On the thread the handlers run on: to hand each run to another one costs more than many a run.
    let running = runtime.spawn(worker.run_until(shutdown.cancelled_owned()));
    let result = runtime.block_on(running).context("the worker died")?;
    // A handler that blocks its thread must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Err(error @ RunError::Build(BuildError::NoTasks)) => Err(anyhow::Error::new(error).context(NO_TASKS)),
        result => Ok(result?),
    }
}

fn worker(config: Config) -> anyhow::Result<asynq_worker::WorkerBuilder> {
    let mut worker = Worker::builder(&config.broker)
        .credentials(config.credentials)
        .drain_timeout(config.drain_timeout)
        .exit_when_idle(config.exit_when_idle)
        .on_ready(announce);
    if let Some(name) = config.name {
        worker = worker.name(name);
    }
    if let Some(slots) = config.slots {
        worker = worker.slots(slots);
    }
    if config.builtins {
        worker = match config.files {
            Some(folder) => worker.builtins_reading(folder),
            None => worker.builtins(),
        };
    }
    let worker = config.tasks.register(worker, &config.folder);
    worker.map_err(|error| anyhow!("failed to start the guard of programs: {error}"))
}

/// The line that scripts wait for. Nobody may be reading it.
fn announce(ready: &Ready) {
    let line = format!("registered {} tasks with {}", ready.tasks, ready.broker);
    let _ = say(&format!("{line}\n"));
    notify::ready(&line);
}

fn say(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let said = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    said.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// On one or two cores a single thread does more work than two that trade it
/// (measured: 1.4 to 1.6 times).
fn handlers_runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if cores <= 2 { 1 } else { cores };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // Our errors name their cause themselves. With stderr gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "asynq-worker: {error}");
    ExitCode::from(code)
}
