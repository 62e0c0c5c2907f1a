//! `asynqd`, the broker: configure, take the data directory, listen, serve
//! until a signal.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use asynqd::clock::SystemClock;
use asynqd::config::{Config, ConfigError, HttpAddress, Run, StoreKind};
use asynqd::health::Health;
use asynqd::http::HttpPort;
use asynqd::lock::DataDirLock;
use asynqd::{Access, Backing, Metrics, Server, TcpIncoming, logging, notify, process};
use mimalloc::MiMalloc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A sixth less processor time for a task than with the system's (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let config = match Run::load(std::env::args_os()) {
        Ok(Run::Serve(config)) => config,
        Ok(Run::Print(text)) => return end(print(&text).context("cannot write to standard output")),
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

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    process::raise_descriptor_limit().context("cannot raise the limit of open files")?;
    let shutdown = CancellationToken::new();
    let enough = config.security.is_enough();
    let access = Access::open(config.security)?;
    process::heed_signals(shutdown.clone(), access.clone())?;
    let health = Health::new(shutdown.clone());
    notify::opening();
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
    let http = listen_http(config.http).await?;
    let http_address = http.as_ref().map(HttpPort::address).transpose()?;
    // Probes are answered while the store is opened, and until it is closed.
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    if let Some(http) = http {
        let dir = (config.store == StoreKind::Sqlite).then_some(config.data_dir);
        let metrics = Metrics::new(config.store, dir, &access);
        tokio::spawn(http.serve(health.clone(), metrics, over));
    }
    // Held until the store is closed.
    let _lock = lock.map(|lock| lock.note_address(address)).transpose()?;
    let server = Server::open(backing, Arc::new(SystemClock::new().trusted(config.trust_clock)))
        .await?
        .access(access);
    health.opened(&server);
    tokio::spawn(notify::feed_watchdog(health));
    let http = http_address.map_or_else(String::new, |http| format!(" (http {http})"));
    let ready = format!("listening on {address}{http}");
    print(&format!("{ready}\n"))?;
    notify::ready(&ready);
    Ok(server.serve(incoming.connections(), shutdown).await?)
}

async fn listen_http(address: HttpAddress) -> anyhow::Result<Option<HttpPort>> {
    let HttpAddress::At(address) = address else {
        return Ok(None);
    };
    let port = HttpPort::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for HTTP; give another address by --http ADDR:PORT, or --http none")
    })?;
    if !port.address()?.ip().is_loopback() {
        warn!(%address, "--insecure: /metrics can be read beyond this machine");
    }
    Ok(Some(port))
}
