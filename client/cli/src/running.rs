//! What goes on beside a task that is waited for: the warning that nobody can run it, and its cancelling.

use std::{convert::Infallible, future::pending, time::Duration};

use asynq_client::{CancelOutcome, Client, Error, Refusal, TaskId, WorkerInfo};
use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    time::{sleep, timeout},
};

use crate::{
    failure::{Failure, say},
    limits::{CANCEL_WITHIN, NO_WORKER_AFTER},
    progress::Progress,
};

/// Tells the user if no worker can run the task. Never ends.
pub(crate) async fn warn_without_worker(client: &Client, id: TaskId, name: &str) -> Infallible {
    sleep(NO_WORKER_AFTER).await;
    say_if_no_worker(client, id, name).await;
    pending().await
}

/// Tells the user if no worker can run the task.
pub(crate) async fn say_if_no_worker(client: &Client, id: TaskId, name: &str) {
    if let Ok(explanation) = client.explain(id).await
        && explanation.reason == "no_worker"
    {
        say(
            "NO_WORKER",
            &format!("no worker has registered {name}; the task waits for one"),
        );
    }
}

/// Waits until somebody ends the command: Ctrl-C, SIGTERM, or a terminal that hangs up.
pub(crate) async fn interrupted() {
    tokio::select! {
        () = one(SignalKind::interrupt()) => {}
        () = terminated() => {}
    }
}

/// Waits until somebody who is not at the keyboard ends the command: SIGTERM, or a terminal that hangs up.
pub(crate) async fn terminated() {
    tokio::select! {
        () = one(SignalKind::terminate()) => {}
        () = one(SignalKind::hangup()) => {}
    }
}

async fn one(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => drop(signals.recv().await),
        // Then it ends the process by itself.
        Err(_) => pending().await,
    }
}

/// Waits for a time, for ever if it is none.
pub(crate) async fn pass(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

/// Cancels the task after Ctrl-C, and says how that went. A second Ctrl-C does not wait for it.
pub(crate) async fn cancel(client: &Client, id: TaskId) -> Failure {
    let cancelled = tokio::select! {
        cancelled = timeout(CANCEL_WITHIN, client.cancel(id)) => cancelled,
        _ = ctrl_c() => return Failure::new(130, "DETACHED", format!("the task {id} may go on")),
    };
    match cancelled {
        Ok(Ok(cancelled)) => {
            let became = match cancelled.outcome {
                CancelOutcome::Stopping => "is being stopped",
                CancelOutcome::Finished => "had ended before",
                _ => "was cancelled",
            };
            Failure::new(5, "CANCELLED", format!("the task {id} {became}"))
        }
        // Its arguments were still on their way, which ended with the call.
        Ok(Err(Error::Refused {
            kind: Refusal::NotFound,
            ..
        })) => Failure::new(5, "CANCELLED", format!("the task {id} was not enqueued")),
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::new(
            3,
            "NO_BROKER",
            format!("the broker does not answer; the task {id} may go on"),
        ),
    }
}

/// The workers that take a task of this name.
pub(crate) async fn able(client: &Client, name: &str) -> Result<Vec<WorkerInfo>, Failure> {
    let mut workers = client.workers().await?;
    workers.retain(|worker| worker.state == "active" && worker.tasks.iter().any(|task| task == name));
    Ok(workers)
}

/// Tells the user if nobody takes the tasks of a builtin. Never ends.
pub(crate) async fn warn_without_workers(client: &Client, name: &str, progress: &Progress) -> Infallible {
    sleep(NO_WORKER_AFTER).await;
    // The work itself fails if there is no broker to be asked.
    let _said = say_without_workers(client, name, progress).await;
    pending().await
}

/// Tells the user at once if nobody takes the tasks of a builtin; they wait then.
pub(crate) async fn say_without_workers(client: &Client, name: &str, progress: &Progress) -> Result<(), Failure> {
    if able(client, name).await?.is_empty() {
        progress.say(
            "NO_WORKER",
            &format!("no worker has registered {name}; start one with: asynq-worker --builtins"),
        );
    }
    Ok(())
}
