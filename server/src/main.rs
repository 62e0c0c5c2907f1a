//! `asynqd`, the broker: configure, take the data directory, listen, serve
//! until a signal.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use asynqd::clock::SystemClock;
use asynqd::config::{Config, ConfigError, Run, StoreKind};
use asynqd::lock::DataDirLock;
use asynqd::{Access, Backing, Server, TcpIncoming, logging, process};
use mimalloc::MiMalloc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A sixth less processor time for a task than with the system's (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let config = match Run::load(std::env::args_os()) {
        Ok(Run::Serve(config)) => config,
        Ok(Run::Command(command)) => return end(command.run().map_err(anyhow::Error::from)),
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("asynqd: {error}");
            return ExitCode::from(2);
        }
    };
    logging::start(config.log);
    let runtime = process::runtime().context("cannot start the runtime");
    end(runtime.and_then(|runtime| runtime.block_on(serve(config))))
}

fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
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
    let enough = config.security.is_enough();
    let access = Access::open(config.security)?;
    process::heed_signals(shutdown.clone(), access.clone())?;
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
    if !address.ip().is_loopback() && !enough {
        warn!(%address, "--insecure: listening beyond this machine without TLS, or without asking who is there");
    }
    // Held until the store is closed.
    let _lock = lock.map(|lock| lock.note_address(address)).transpose()?;
    let server = Server::open(backing, Arc::new(SystemClock::new()))
        .await?
        .access(access);
    writeln!(std::io::stdout(), "listening on {address}")?;
    Ok(server.serve(incoming.connections(), shutdown).await?)
}
