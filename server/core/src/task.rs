//! What there is to know of one task: how it was asked for, where it stands.
//! [`TaskRecord`] is the durable form; the store keeps it and decides nothing.

use std::time::Duration;

use bytes::Bytes;

use crate::history::Notes;
use crate::ids::{Grant, LeaseToken, Name, Niceness, SessionId, TaskId};
use crate::keys::{Key, OnKey};
use crate::limits;
use crate::streams::Checkpoint;
use crate::time::Timestamp;

/// A value on its way: arguments or a result. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// A media type; empty means `application/json`.
    pub content_type: Box<str>,
    /// The bytes.
    pub data: Bytes,
}

/// Order within a queue apart from fairness.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// Before all fair tasks, first in first out.
    Next,
    /// By the fair share of its series.
    #[default]
    Fair,
    /// Only when nothing else can run.
    Last,
}

/// How a task is to be run. `None` means the default.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// Smaller runs sooner.
    pub niceness: Niceness,
    /// Order apart from fairness.
    pub placement: Placement,
    /// Not started by then: expired.
    pub start_before: Option<Timestamp>,
    /// Longest time of one attempt.
    pub timeout: Option<Duration>,
    /// Not finished by then: expired.
    pub deadline: Option<Timestamp>,
    /// Failures allowed.
    pub max_attempts: Option<u32>,
    /// Timeouts allowed.
    pub max_timeouts: Option<u32>,
    /// How long the result is kept; zero drops it at once.
    pub result_ttl: Option<Duration>,
    /// A caller reads its items as they come.
    pub stream: bool,
    /// It may end without having run to its end, but never begins twice.
    pub at_most_once: bool,
    /// In its queue no other task has it.
    pub key: Option<Key>,
}

/// A task as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpec {
    /// Chosen by the caller.
    pub id: TaskId,
    /// What to run.
    pub name: Name,
    /// The lane it waits in.
    pub queue: Name,
    /// Its fair-share key inside the queue.
    pub series: Name,
    /// How to run it.
    pub options: Options,
    /// Not ready before this.
    pub start_at: Option<Timestamp>,
    /// What is to become of it if another task has its key.
    pub on_key: OnKey,
    /// Its arguments.
    pub payload: Payload,
}

/// What has gone wrong with a task so far. Never mixed: each has its own budget.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Runs that failed and may be retried.
    pub failures: u32,
    /// Runs that took longer than their timeout.
    pub timeouts: u32,
    /// Runs whose own process died.
    pub crashes: u32,
    /// Sessions that ended under the task.
    pub losses: u32,
    /// Grants given back before the start; no budget.
    pub releases: u32,
}

/// What has gone wrong with all tasks together since the broker started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Runs that failed.
    pub failures: u64,
    /// Runs that took longer than their timeout.
    pub timeouts: u64,
    /// Runs whose process died.
    pub crashes: u64,
    /// Runs whose session ended under them.
    pub losses: u64,
    /// Grants given back before the start.
    pub releases: u64,
    /// Tasks put off to run again after a failure or a timeout.
    pub retries: u64,
}

/// What a run that failed says of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A short word: `error`, `panic`, `rejected`, …
    pub kind: String,
    /// For people.
    pub message: String,
    /// Trace or tail of standard error.
    pub trace: String,
    /// Another attempt may go better.
    pub retryable: bool,
}

/// Why a dead task is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadReason {
    /// Its failures used up the budget.
    Error,
    /// It failed in a way no retry can mend.
    Rejected,
    /// Its timeouts used up the budget.
    Timeout,
    /// It took too many processes or sessions down with it.
    Poison,
    /// Its worker went away and it may not run again.
    WorkerLost,
    /// Run again, it yielded other items than before.
    NonDeterministic,
}

/// Who runs a task, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The session that holds the lease.
    pub session: SessionId,
    /// When the grant was made.
    pub started_at: Timestamp,
    /// Longest time of this attempt, if its handler asked for more than it had.
    pub extended: Option<Duration>,
    /// What becomes of its stream if it is lost.
    pub on_loss: OnLoss,
}

/// What becomes of a stream whose worker is lost, or whose run fails and has
/// attempts left. Declared with the iterator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// It is dead.
    #[default]
    Fail,
    /// It runs again, and what has come is left out.
    Replay,
    /// It runs again from a place it has named, and what has come since is left out.
    Checkpoint,
}

/// Why a run is being stopped, and so how its task ends or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopIntent {
    /// The attempt took too long: retried or dead.
    Timeout,
    /// The whole task took too long: expired.
    Deadline,
    /// A caller asked: cancelled.
    Cancel,
}

/// Which run called a task and waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalledBy {
    /// The run.
    pub run: LeaseToken,
    /// Which of the tasks the run has made, from 1.
    pub n: u32,
    /// How many runs wait for each other from there on: 1 where the run's own task
    /// was not called.
    pub depth: u32,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A completion was accepted.
    Succeeded,
    /// It will not run again unless an operator says so.
    Dead(DeadReason),
    /// A caller did not want it any more.
    Cancelled,
    /// Its deadline, or its time to start, passed.
    Expired,
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// When its last run began, if any did.
    pub started_at: Option<Timestamp>,
    /// Who had that run, if it had one when it ended.
    pub worker: Option<Name>,
    /// Bytes and content type of the result, if there is one.
    pub result: Option<ResultInfo>,
    /// The task that took its key before it had started.
    pub replaced_by: Option<Box<TaskId>>,
    /// An operator had it forgotten: what is left tells its id and its key from
    /// ones that were never used.
    pub purged: bool,
}

/// What is known of a result without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultInfo {
    /// Its size.
    pub bytes: u64,
    /// Its media type.
    pub content_type: Box<str>,
    /// Until when it is kept.
    pub until: Timestamp,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not before a time: delayed, or waiting to be retried.
    Scheduled {
        /// When it becomes ready.
        at: Timestamp,
    },
    /// Waiting for a slot.
    Ready,
    /// Held by a session under the current grant.
    Running(Run),
    /// Still held, told to stop.
    Stopping(Run, StopIntent),
    /// Over.
    Finished(Finish),
}

/// [`State`] without what hangs on it, as users see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// See [`State::Scheduled`].
    Scheduled,
    /// See [`State::Ready`].
    Ready,
    /// See [`State::Running`].
    Running,
    /// See [`State::Stopping`].
    Stopping,
    /// See [`Outcome::Succeeded`].
    Succeeded,
    /// See [`Outcome::Dead`].
    Dead,
    /// See [`Outcome::Cancelled`].
    Cancelled,
    /// See [`Outcome::Expired`].
    Expired,
}

impl StateName {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Ready,
        Self::Running,
        Self::Stopping,
        Self::Succeeded,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// No event but an operator's retry leads out of it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled | Self::Expired)
    }
}

impl State {
    /// The state's name.
    #[must_use]
    pub const fn name(&self) -> StateName {
        match self {
            Self::Scheduled { .. } => StateName::Scheduled,
            Self::Ready => StateName::Ready,
            Self::Running(_) => StateName::Running,
            Self::Stopping(..) => StateName::Stopping,
            Self::Finished(finish) => finish.outcome.state_name(),
        }
    }
}

impl Outcome {
    /// Whether what a stream has yielded is still to be read.
    #[must_use]
    pub(crate) const fn keeps_items(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead(_))
    }

    /// The state a task with this outcome is in.
    #[must_use]
    pub const fn state_name(&self) -> StateName {
        match self {
            Self::Succeeded => StateName::Succeeded,
            Self::Dead(_) => StateName::Dead,
            Self::Cancelled => StateName::Cancelled,
            Self::Expired => StateName::Expired,
        }
    }
}

impl DeadReason {
    /// All of them, as they are numbered.
    pub const ALL: [Self; 6] = [
        Self::Error,
        Self::Rejected,
        Self::Timeout,
        Self::Poison,
        Self::WorkerLost,
        Self::NonDeterministic,
    ];

    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Poison => "poison",
            Self::WorkerLost => "worker_lost",
            Self::NonDeterministic => "non_deterministic",
        }
    }
}

/// A task as the store keeps it: all but the bytes of its arguments and result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// Identity.
    pub id: TaskId,
    /// What to run.
    pub name: Name,
    /// The lane it waits in.
    pub queue: Name,
    /// Its fair-share key inside the queue.
    pub series: Name,
    /// How to run it.
    pub options: Options,
    /// When it was accepted.
    pub enqueued_at: Timestamp,
    /// The delay or start time asked for.
    pub start_at: Option<Timestamp>,
    /// Size of its arguments.
    pub payload_bytes: u64,
    /// Media type of its arguments.
    pub content_type: Box<str>,
    /// Fingerprint of what was asked for (name, queue, series, content type,
    /// arguments), to tell a resend from a conflict.
    pub digest: u64,
    /// Where it stands.
    pub state: State,
    /// The latest grant made, current or not.
    pub grant: Grant,
    /// What has gone wrong so far.
    pub counters: Counters,
    /// The last failure.
    pub failure: Option<Box<Failure>>,
    /// What was out of the ordinary, if anything was.
    pub notes: Option<Box<Notes>>,
    /// The run that called it, if one did: it ends with that run.
    pub called_by: Option<Box<CalledBy>>,
    /// Of a stream that has not ended: where its generator can begin again, as far as
    /// its reader had acknowledged its items.
    pub checkpoint: Option<Box<Checkpoint>>,
}

impl TaskRecord {
    /// Bytes of what it tells of its runs: the last failure, the notes and the checkpoint.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let failure = self.failure.as_ref();
        let failure = failure.map_or(0, |it| it.kind.len() + it.message.len() + it.trace.len());
        let checkpoint = self.checkpoint.as_ref().map_or(0, |it| it.token.len());
        failure + checkpoint + self.notes.as_ref().map_or(0, |notes| notes.text_bytes())
    }

    /// When all memory of a task that has ended may go.
    #[must_use]
    pub fn forget_at(&self) -> Option<Timestamp> {
        let State::Finished(finish) = &self.state else {
            return None;
        };
        let ttl = self.options.result_ttl.unwrap_or(limits::DEFAULT_RESULT_TTL);
        let keep = match (&finish.outcome, &finish.result) {
            _ if finish.purged && self.options.key.is_none() => Duration::ZERO,
            (Outcome::Dead(_), _) if !finish.purged => limits::DEAD_TTL,
            (_, Some(result)) => result.until.since(finish.at),
            (_, None) => ttl,
        };
        Some(finish.at + keep.max(limits::MIN_DEDUP_TTL))
    }

    /// Its key, with the queue in which it has it.
    #[must_use]
    pub fn key(&self) -> Option<(Name, Key)> {
        let key = self.options.key.clone()?;
        Some((self.queue.clone(), key))
    }

    /// Whether this is all that is left of a task that was purged.
    #[must_use]
    pub fn is_purged(&self) -> bool {
        matches!(&self.state, State::Finished(finish) if finish.purged)
    }

    /// What is left of a task that has ended when it is purged: its id, its key,
    /// what was asked for as a digest, and how it ended.
    pub(crate) fn purged(self) -> Self {
        let state = match self.state {
            State::Finished(finish) => State::Finished(Finish {
                started_at: None,
                worker: None,
                result: None,
                purged: true,
                ..finish
            }),
            state => state,
        };
        Self {
            options: Options {
                key: self.options.key,
                result_ttl: self.options.result_ttl,
                ..Options::default()
            },
            start_at: None,
            payload_bytes: 0,
            content_type: Box::default(),
            state,
            failure: None,
            notes: None,
            ..self
        }
    }
}
