//! What the process `asynqd` has and a broker in a test has not: a runtime of
//! its own, and signals.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{Access, notify};

/// On one or two cores a single thread measured 1.4 to 1.6 times the rate of
/// the default: the broker loop and its connections need no wake-ups across
/// threads. (The store has threads of its own.)
///
/// # Errors
/// If the system refuses what it needs.
pub fn runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = if cores <= 2 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder.enable_all().build()
}

/// Takes as many descriptors as the system lets it: every connection needs one,
/// and the usual soft limit is for programs that use `select`.
///
/// # Errors
/// If the system refuses.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    Ok(())
}

/// The first SIGTERM or SIGINT drains, the second ends the process at once.
/// SIGHUP reads certificates and tokens again.
///
/// # Errors
/// If signals cannot be watched.
pub fn heed_signals(shutdown: CancellationToken, access: Access) -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hangup.recv() => {
                    reload(&access);
                    continue;
                }
            }
            if shutdown.is_cancelled() {
                std::process::exit(1);
            }
            info!("a signal asks to stop; another one stops at once");
            notify::stopping();
            shutdown.cancel();
        }
    });
    Ok(())
}

/// A few small files: no work for another thread.
fn reload(access: &Access) {
    notify::reloading();
    let status = match access.reload() {
        Ok(()) if access.is_anyone() => "there are no certificates or tokens to read again".to_owned(),
        Ok(()) => "certificates and tokens were read again".to_owned(),
        Err(error) => {
            error!(%error, "SIGHUP: everything stays as it was");
            return notify::reloaded(&format!("everything stays as it was: {error}"));
        }
    };
    info!("SIGHUP: {status}");
    notify::reloaded(&status);
}
