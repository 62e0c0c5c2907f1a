//! `asynqd`, the broker: configure, take the data directory, listen, serve
//! until a signal.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use asynqd::clock::SystemClock;
use asynqd::config::{Config, ConfigError, StoreKind};
use asynqd::lock::DataDirLock;
use asynqd::{Backing, Server, TcpIncoming, logging, process};
use mimalloc::MiMalloc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A fifth less processor time for a task than with the system's (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let config = match Config::load(std::env::args_os()) {
        Ok(config) => config,
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("asynqd: {error}");
            return ExitCode::from(2);
        }
    };
    logging::start(config.log);
    let runtime = process::runtime().context("cannot start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(serve(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("asynqd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    process::raise_descriptor_limit().context("cannot raise the limit of open files")?;
    let shutdown = CancellationToken::new();
    process::stop_on_signals(shutdown.clone())?;
    let (lock, backing) = match config.store {
        StoreKind::Memory => (None, Backing::memory()),
        StoreKind::Sqlite => (
            Some(DataDirLock::take(&config.data_dir)?),
            Backing::sqlite(&config.data_dir)?,
        ),
    };
    let incoming = TcpIncoming::bind(config.listen).await;
    let incoming = incoming.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = incoming.address()?;
    if !address.ip().is_loopback() {
        warn!(%address, "listening beyond this machine without encryption: whoever reaches the port may use it");
    }
    // Held until the store is closed.
    let _lock = lock.map(|lock| lock.note_address(address)).transpose()?;
    let server = Server::open(backing, Arc::new(SystemClock::new())).await?;
    writeln!(std::io::stdout(), "listening on {address}")?;
    Ok(server.serve(incoming.connections(), shutdown).await?)
}
