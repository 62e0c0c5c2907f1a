//! One program from its start until nothing is left of it. Whoever wants its
//! output holds a [`Program`](super::program::Program); this task holds the
//! process, so that it is watched and reaped also while nobody asks for output.

use std::time::Duration;

use asynq_worker::{Context, Linger, StopCause};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::failure::Ended;
use super::process::Process;
use super::stderr::Stderr;
use crate::kinds::guard::Watched;
use crate::kinds::limits::{KILL_GRACE, SHUTDOWN_GRACE};

/// When the worker itself ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) at: Instant,
    /// How long the run may take, to be told.
    pub(super) after: Duration,
}

/// What comes with a process until its end.
pub(super) struct Attached {
    pub(super) stderr: Stderr,
    /// Arguments still being written to it.
    pub(super) stdin: Option<AbortOnDropHandle<()>>,
    /// Nobody outlives the daemon …
    pub(super) watched: Option<Watched>,
    /// … nor the run.
    pub(super) linger: Linger,
}

/// Waits for a program's end, or brings it about: when its run is over without
/// it (`unwanted`), or its time is up. `gone` is cancelled once the group is.
pub(super) async fn supervise(
    mut process: Process,
    attached: Attached,
    context: Context,
    limit: Option<Limit>,
    (unwanted, gone): (CancellationToken, CancellationToken),
    tell: oneshot::Sender<Ended>,
) {
    let Attached {
        stderr,
        stdin,
        watched,
        linger,
    } = attached;
    let mut timed_out = None;
    tokio::select! {
        biased;
        // What it has left behind in its group goes as well.
        () = process.ended() => process.clear(),
        () = unwanted.cancelled() => process.end(grace(context.stop_cause())).await,
        limit = reached(limit) => {
            timed_out = Some(limit.after);
            process.end(KILL_GRACE).await;
        }
    }
    drop((watched, stdin));
    gone.cancel();
    process.bury().await;
    if let Some(status) = process.status() {
        let ended = Ended {
            status,
            timed_out,
            stderr: stderr.last().await,
        };
        let _ = tell.send(ended); // nobody may want to know any more
    }
    drop(linger);
}

async fn reached(limit: Option<Limit>) -> Limit {
    match limit {
        Some(limit) => {
            sleep_until(limit.at).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// How long a program that is not wanted any more has to end itself.
fn grace(cause: Option<StopCause>) -> Duration {
    match cause {
        // Somebody else may be running the task by now.
        Some(StopCause::LeaseLost) => Duration::ZERO,
        Some(StopCause::Shutdown) => SHUTDOWN_GRACE,
        _ => KILL_GRACE,
    }
}
