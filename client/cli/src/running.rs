//! What goes on beside a task that is waited for: the warning that nobody can run it, and its cancelling.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    convert::Infallible,
    future::{pending, ready},
    time::Duration,
};

use asynq_client::{CancelOutcome, Client, Error, Refusal, TaskId, WorkerInfo};
use futures_util::{StreamExt, stream};
use tokio::{
    signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    },
    time::{sleep, timeout},
};

use crate::{
    failure::{Failure, say},
    limits::{CANCEL_WITHIN, CANCELS, NO_WORKER_AFTER},
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
        Ok(Err(error)) if is_unknown(&error) => Failure::new(5, "CANCELLED", format!("the task {id} was not enqueued")),
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::new(
            3,
            "NO_BROKER",
            format!("the broker does not answer; the task {id} may go on"),
        ),
    }
}

/// The tasks a command has under way: what is cancelled when it ends before them. To
/// drop them is not enough, for what a drop asks for may not be sent before the
/// process has ended.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(RefCell<BTreeSet<TaskId>>);

impl UnderWay {
    pub(crate) fn begun(&self, id: TaskId) {
        self.0.borrow_mut().insert(id);
    }

    pub(crate) fn ended(&self, id: TaskId) {
        self.0.borrow_mut().remove(&id);
    }

    /// Does the work. If that fails, or somebody ends the command, what is under way
    /// is cancelled; `cancelled` says so to whoever ended it.
    pub(crate) async fn until_done<T>(
        &self,
        client: &Client,
        work: impl Future<Output = Result<T, Failure>>,
        cancelled: impl FnOnce(usize) -> String,
    ) -> Result<T, Failure> {
        let failed = tokio::select! {
            done = work => match done {
                Ok(done) => return Ok(done),
                // Nobody is there to be told.
                Err(failure) if failure.code() == 3 => return Err(failure),
                Err(failure) => Some(failure),
            },
            () = interrupted() => None,
        };
        let count = self.0.borrow().len();
        let may_go_on = match self.cancel(client).await {
            Ok(()) => return Err(failed.unwrap_or_else(|| Failure::new(5, "CANCELLED", cancelled(count)))),
            Err(failure) => failure,
        };
        Err(failed.unwrap_or(may_go_on))
    }

    /// Cancels them all. A second Ctrl-C does not wait for it.
    async fn cancel(&self, client: &Client) -> Result<(), Failure> {
        let ids = self.0.take();
        let count = ids.len();
        let failures = stream::iter(ids)
            .map(|id| client.cancel(id))
            .buffer_unordered(CANCELS)
            // It may have ended, or never have been sent.
            .filter_map(|cancelled| ready(cancelled.err().filter(|error| !is_unknown(error))))
            .collect::<Vec<_>>();
        tokio::select! {
            failures = timeout(CANCEL_WITHIN, failures) => match failures.map(|failures| (failures.len(), failures.into_iter().next())) {
                Ok((_, None)) => Ok(()),
                Ok((failed, Some(error))) => Err(Failure::from(error).at(&format!("{failed} tasks may go on"))),
                Err(_) => Err(Failure::new(
                    3,
                    "NO_BROKER",
                    format!("the broker does not answer; {count} tasks may go on"),
                )),
            },
            () = interrupted() => Err(Failure::new(130, "DETACHED", format!("{count} tasks may go on"))),
        }
    }
}

fn is_unknown(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused {
            kind: Refusal::NotFound,
            ..
        }
    )
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
