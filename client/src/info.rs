//! What a broker tells about tasks, queues and workers, in types of our own.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use asynq_proto::v1;

use crate::{Error, Failure, State, TaskId};

/// Where the time of a call went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// From acceptance to the last start.
    pub queued: Duration,
    /// From the last start to the end, as the broker saw it.
    pub run: Duration,
    /// How often it was started.
    pub attempts: u32,
}

impl From<v1::CallStats> for CallStats {
    fn from(stats: v1::CallStats) -> Self {
        Self {
            queued: Duration::from_micros(stats.queued_us),
            run: Duration::from_micros(stats.run_us),
            attempts: stats.attempts,
        }
    }
}

/// What a cancel has achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// The task.
    pub id: TaskId,
    /// What became of it.
    pub outcome: CancelOutcome,
    /// Where it stands now.
    pub state: State,
}

/// How a cancel found its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelOutcome {
    /// It had not started, and will not.
    Cancelled,
    /// It runs; its worker has been told to stop.
    Stopping,
    /// It had ended before.
    Finished,
}

impl CancelOutcome {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

impl TryFrom<v1::Cancelled> for Cancellation {
    type Error = Error;

    fn try_from(wire: v1::Cancelled) -> Result<Self, Error> {
        use v1::cancelled::Outcome;
        let outcome = match wire.outcome() {
            Outcome::Cancelled => CancelOutcome::Cancelled,
            Outcome::Stopping => CancelOutcome::Stopping,
            Outcome::Finished => CancelOutcome::Finished,
            Outcome::Unspecified => return Err(Error::unexpected("an unknown outcome of a cancel")),
        };
        Ok(Self {
            id: TaskId::from_wire(&wire.id)?,
            outcome,
            state: State::from_wire(wire.state),
        })
    }
}

/// Everything the broker knows of a task but its values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the names are the field's standard words; docs/glossary.md explains them"
)]
pub struct TaskInfo {
    pub id: TaskId,
    pub name: String,
    pub queue: String,
    pub series: String,
    pub niceness: i32,
    pub state: State,
    /// Of a dead task why it is dead, of another why it is where it is.
    pub reason: Option<String>,
    pub cancel_requested: bool,
    /// The number of the last attempt, 0 before the first.
    pub attempt: u32,
    pub failures: u32,
    pub timeouts: u32,
    pub crashes: u32,
    pub losses: u32,
    pub releases: u32,
    pub enqueued_at: Option<SystemTime>,
    pub start_at: Option<SystemTime>,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// The worker that has or had the last attempt.
    pub worker: Option<String>,
    pub error: Option<Failure>,
    pub payload_bytes: u64,
    pub result_bytes: u64,
    /// Of the arguments.
    pub content_type: String,
    /// The idempotency key it came with.
    pub key: Option<String>,
    /// Of a stream that has not ended and whose iterator has checkpoints: the item at
    /// which it can begin again, of those whose items its reader has acknowledged.
    pub checkpoint: Option<u64>,
}

impl TryFrom<v1::TaskInfo> for TaskInfo {
    type Error = Error;

    fn try_from(wire: v1::TaskInfo) -> Result<Self, Error> {
        Ok(Self {
            id: TaskId::from_wire(&wire.id)?,
            name: wire.name,
            queue: wire.queue,
            series: wire.series,
            niceness: wire.niceness,
            state: State::from_wire(wire.state),
            reason: some(wire.reason),
            cancel_requested: wire.cancel_requested,
            attempt: wire.attempt,
            failures: wire.failures,
            timeouts: wire.timeouts,
            crashes: wire.crashes,
            losses: wire.losses,
            releases: wire.releases,
            enqueued_at: time(wire.enqueued_at_ms),
            start_at: time(wire.start_at_ms),
            started_at: time(wire.started_at_ms),
            finished_at: time(wire.finished_at_ms),
            worker: some(wire.worker),
            error: wire.error.map(Failure::from),
            payload_bytes: wire.payload_bytes,
            result_bytes: wire.result_bytes,
            content_type: some(wire.content_type).unwrap_or_else(|| "application/json".to_owned()),
            key: some(wire.key),
            checkpoint: Some(wire.checkpoint).filter(|&index| index > 0),
        })
    }
}

/// A step of a task's life.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// When.
    pub at: Option<SystemTime>,
    /// Where the task stood; none before it was enqueued.
    pub from: Option<State>,
    /// Where it stands since; it may be the same.
    pub to: State,
    /// The attempt this was about, 0 before the first.
    pub attempt: u32,
    /// The worker this was about.
    pub worker: Option<String>,
    /// Why, in one word: `enqueued`, `granted`, `failed`, … docs/lifecycle.md has them all.
    pub cause: String,
    /// What more there is to say, for people.
    pub message: Option<String>,
    /// Where the cause is `left_out`, for how many steps that are not kept this stands.
    pub left_out: u32,
}

impl From<v1::Transition> for Transition {
    fn from(wire: v1::Transition) -> Self {
        let from = (wire.from != v1::TaskState::Unspecified as i32).then(|| State::from_wire(wire.from));
        Self {
            at: time(wire.at_ms),
            from,
            to: State::from_wire(wire.to),
            attempt: wire.attempt,
            worker: some(wire.worker),
            cause: wire.cause,
            message: some(wire.message),
            left_out: wire.left_out,
        }
    }
}

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The task.
    pub id: TaskId,
    /// Where it stands.
    pub state: State,
    /// One word: `no_worker`, `no_free_slot`, `behind`, `not_due`, …
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The figures behind it.
    pub details: BTreeMap<String, String>,
}

impl TryFrom<v1::Explanation> for Explanation {
    type Error = Error;

    fn try_from(wire: v1::Explanation) -> Result<Self, Error> {
        Ok(Self {
            id: TaskId::from_wire(&wire.id)?,
            state: State::from_wire(wire.state),
            reason: wire.reason,
            message: wire.message,
            details: wire.details.into_iter().collect(),
        })
    }
}

/// A queue and how many tasks it holds. Terminal states count what is still kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the counts are named after the states of a task")]
pub struct QueueInfo {
    pub name: String,
    /// In what order it serves: `fair`.
    pub policy: String,
    /// What an acknowledgement is worth: `sync`, or `memory` where the store is.
    pub durability: String,
    pub paused: bool,
    pub scheduled: u64,
    pub ready: u64,
    /// Those that are stopping included.
    pub running: u64,
    pub succeeded: u64,
    pub dead: u64,
    pub cancelled: u64,
    pub expired: u64,
    /// How long the oldest ready task has waited.
    pub oldest_ready: Option<Duration>,
    /// What runs is given up at once where its worker's connection breaks, not after 5 s.
    pub fast_requeue: bool,
}

/// What is to be different about a queue; all else stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it does nothing unless it is given to `set_queue`"]
pub struct QueueUpdate {
    fast_requeue: Option<bool>,
}

impl QueueUpdate {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether what runs is given up at once where its worker's connection breaks, and run
    /// elsewhere; without, it has 5 s to come back. A short cut then makes a task run twice.
    pub fn fast_requeue(mut self, on: bool) -> Self {
        self.fast_requeue = Some(on);
        self
    }

    pub(crate) fn into_request(self, queue: &str) -> v1::SetQueueRequest {
        v1::SetQueueRequest {
            queue: queue.to_owned(),
            fast_requeue: self.fast_requeue,
        }
    }
}

impl From<v1::QueueInfo> for QueueInfo {
    fn from(wire: v1::QueueInfo) -> Self {
        Self {
            name: wire.name,
            policy: wire.policy,
            durability: wire.durability,
            paused: wire.paused,
            scheduled: wire.scheduled,
            ready: wire.ready,
            running: wire.running,
            succeeded: wire.succeeded,
            dead: wire.dead,
            cancelled: wire.cancelled,
            expired: wire.expired,
            oldest_ready: wire.oldest_ready_ms.map(Duration::from_millis),
            fast_requeue: wire.fast_requeue,
        }
    }
}

/// A worker's session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The worker's name.
    pub name: String,
    /// The session, in hexadecimal.
    pub session: String,
    /// `active`, `draining`, or `lost` (no connection; its lease still runs).
    pub state: String,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How many it runs now.
    pub busy: u32,
    /// Slots taken by runs that were told to stop and did not, on threads that nobody
    /// can end. They are free again when those return, or the worker ends.
    pub leaked: u32,
    /// The task names it has registered.
    pub tasks: Vec<String>,
    /// When the session began.
    pub connected_at: Option<SystemTime>,
}

impl From<v1::WorkerInfo> for WorkerInfo {
    fn from(wire: v1::WorkerInfo) -> Self {
        Self {
            name: wire.name,
            session: wire.session.iter().map(|byte| format!("{byte:02x}")).collect(),
            state: wire.state,
            slots: wire.slots,
            busy: wire.busy,
            leaked: wire.leaked,
            tasks: wire.tasks,
            connected_at: time(wire.connected_at_ms),
        }
    }
}

/// Empty text means "none" on the wire.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Zero means "none" on the wire.
fn time(ms: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).filter(|_| ms != 0)
}
