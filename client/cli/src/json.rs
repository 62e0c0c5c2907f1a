//! The objects of `-o json`. Their names are stable; a field that has no value is null.

use std::{collections::BTreeMap, time::SystemTime};

use asynq_client::{Cancellation, Error, Failure, QueueInfo, TaskInfo, WorkerInfo};
use serde::Serialize;

use crate::{failure, time::rfc3339};

#[derive(Debug, Serialize)]
pub(crate) struct Task {
    id: String,
    name: String,
    queue: String,
    series: String,
    niceness: i32,
    state: &'static str,
    reason: Option<String>,
    cancel_requested: bool,
    attempt: u32,
    failures: u32,
    timeouts: u32,
    crashes: u32,
    losses: u32,
    releases: u32,
    enqueued_at: Option<String>,
    start_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    worker: Option<String>,
    labels: [(); 0], // tasks cannot ask for labels yet
    error: Option<TaskError>,
    payload_bytes: u64,
    result_bytes: u64,
    content_type: String,
    key: Option<String>,
    checkpoint: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TaskError {
    kind: String,
    message: String,
    trace: Option<String>,
}

impl From<TaskInfo> for Task {
    fn from(task: TaskInfo) -> Self {
        Self {
            id: task.id.to_string(),
            name: task.name,
            queue: task.queue,
            series: task.series,
            niceness: task.niceness,
            state: task.state.as_str(),
            reason: task.reason,
            cancel_requested: task.cancel_requested,
            attempt: task.attempt,
            failures: task.failures,
            timeouts: task.timeouts,
            crashes: task.crashes,
            losses: task.losses,
            releases: task.releases,
            enqueued_at: time(task.enqueued_at),
            start_at: time(task.start_at),
            started_at: time(task.started_at),
            finished_at: time(task.finished_at),
            worker: task.worker,
            labels: [],
            error: task.error.map(TaskError::from),
            payload_bytes: task.payload_bytes,
            result_bytes: task.result_bytes,
            content_type: task.content_type,
            key: task.key,
            checkpoint: task.checkpoint,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct TaskPage {
    tasks: Vec<Task>,
    next: Option<String>,
}

impl From<asynq_client::TaskPage> for TaskPage {
    fn from(page: asynq_client::TaskPage) -> Self {
        Self {
            tasks: page.tasks.into_iter().map(Task::from).collect(),
            next: page.next,
        }
    }
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message, trace } = failure;
        Self {
            kind,
            message,
            trace: Some(trace).filter(|trace| !trace.is_empty()),
        }
    }
}

/// `{"error":{…}}` for a task that gave no result.
pub(crate) fn failed(error: Error) -> Result<String, failure::Failure> {
    #[derive(Debug, Serialize)]
    struct Failed {
        error: TaskError,
    }
    let error = match error {
        Error::Dead { failure, .. } => failure.into(),
        error => TaskError {
            kind: error.reason().to_ascii_lowercase(),
            message: error.to_string(),
            trace: None,
        },
    };
    text(&Failed { error })
}

/// An object as text.
pub(crate) fn text(value: &impl Serialize) -> Result<String, failure::Failure> {
    let text = serde_json::to_string(value);
    text.map_err(|error| failure::Failure::new(1, "OUTPUT", format!("failed to write JSON: {error}")))
}

#[derive(Debug, Serialize)]
pub(crate) struct Cancel {
    id: String,
    outcome: &'static str,
    state: &'static str,
}

impl From<Cancellation> for Cancel {
    fn from(cancelled: Cancellation) -> Self {
        Self {
            id: cancelled.id.to_string(),
            outcome: cancelled.outcome.as_str(),
            state: cancelled.state.as_str(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Retry {
    id: String,
    outcome: &'static str,
    state: &'static str,
}

impl From<asynq_client::Retry> for Retry {
    fn from(retried: asynq_client::Retry) -> Self {
        Self {
            id: retried.id.to_string(),
            outcome: if retried.revived { "retried" } else { "alive" },
            state: retried.state.as_str(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    id: String,
    state: &'static str,
    reason: String,
    message: String,
    details: BTreeMap<String, String>,
}

impl From<asynq_client::Explanation> for Explanation {
    fn from(explanation: asynq_client::Explanation) -> Self {
        Self {
            id: explanation.id.to_string(),
            state: explanation.state.as_str(),
            reason: explanation.reason,
            message: explanation.message,
            details: explanation.details,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Transition {
    at: Option<String>,
    from: Option<&'static str>,
    to: &'static str,
    attempt: u32,
    worker: Option<String>,
    cause: String,
    message: Option<String>,
    left_out: u32,
}

impl From<asynq_client::Transition> for Transition {
    fn from(step: asynq_client::Transition) -> Self {
        Self {
            at: time(step.at),
            from: step.from.map(asynq_client::State::as_str),
            to: step.to.as_str(),
            attempt: step.attempt,
            worker: step.worker,
            cause: step.cause,
            message: step.message,
            left_out: step.left_out,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Queue {
    name: String,
    policy: String,
    durability: String,
    paused: bool,
    scheduled: u64,
    ready: u64,
    running: u64,
    succeeded: u64,
    dead: u64,
    cancelled: u64,
    expired: u64,
    oldest_ready_ms: Option<u64>,
}

impl From<QueueInfo> for Queue {
    fn from(queue: QueueInfo) -> Self {
        Self {
            name: queue.name,
            policy: queue.policy,
            durability: queue.durability,
            paused: queue.paused,
            scheduled: queue.scheduled,
            ready: queue.ready,
            running: queue.running,
            succeeded: queue.succeeded,
            dead: queue.dead,
            cancelled: queue.cancelled,
            expired: queue.expired,
            oldest_ready_ms: queue
                .oldest_ready
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// A queue with its settings.
#[derive(Debug, Serialize)]
pub(crate) struct QueueShown {
    #[serde(flatten)]
    queue: Queue,
    fast_requeue: bool,
}

impl From<QueueInfo> for QueueShown {
    fn from(queue: QueueInfo) -> Self {
        Self {
            fast_requeue: queue.fast_requeue,
            queue: queue.into(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Worker {
    name: String,
    session: String,
    state: String,
    slots: u32,
    busy: u32,
    leaked: u32,
    tasks: Vec<String>,
    labels: [(); 0], // workers cannot carry labels yet …
    series: [(); 0], // … nor be told which series to serve: they serve all
    connected_at: Option<String>,
}

impl From<WorkerInfo> for Worker {
    fn from(worker: WorkerInfo) -> Self {
        Self {
            name: worker.name,
            session: worker.session,
            state: worker.state,
            slots: worker.slots,
            busy: worker.busy,
            leaked: worker.leaked,
            tasks: worker.tasks,
            labels: [],
            series: [],
            connected_at: time(worker.connected_at),
        }
    }
}

fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(rfc3339)
}
