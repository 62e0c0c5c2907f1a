//! SIGTERM and SIGINT, watched from a thread of their own: a handler that
//! blocks the runtime must not make the daemon deaf. SIGHUP is ignored.

use std::{io, process, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The first signal cancels `shutdown`, the second ends the process at once.
pub(crate) fn watch(shutdown: CancellationToken) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // There is nothing to reload. Once taken it no longer ends the process, heard or not.
    drop(signal(SignalKind::hangup())?);
    // Whoever started us may have had it ignored: then nobody could wait for a program's end.
    drop(signal(SignalKind::child())?);
    drop(guard);
    thread::Builder::new().name("asynq-signals".into()).spawn(move || {
        runtime.block_on(async {
            either(&mut term, &mut int).await;
            tracing::info!("draining; a second signal exits at once");
            crate::notify::stopping();
            shutdown.cancel();
            either(&mut term, &mut int).await;
            process::exit(1);
        });
    })?;
    Ok(())
}

/// SIGTERM, SIGINT and SIGHUP do nothing to this process from now on.
pub(crate) fn ignore() -> io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        // Once taken it no longer ends the process, heard or not.
        drop(signal(kind)?);
    }
    drop(guard);
    Ok(runtime)
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
