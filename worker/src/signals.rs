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
    drop(guard);
    thread::Builder::new().name("asynq-signals".into()).spawn(move || {
        runtime.block_on(async {
            either(&mut term, &mut int).await;
            tracing::info!("draining; a second signal exits at once");
            shutdown.cancel();
            either(&mut term, &mut int).await;
            process::exit(1);
        });
    })?;
    Ok(())
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
