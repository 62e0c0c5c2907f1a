//! What can be seen of the core: plain data for `show`, `ls` and `explain`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{Name, SessionId, TaskId};
use crate::queues::QueueSettings;
use crate::task::{StateName, TaskRecord};
use crate::time::Timestamp;

/// A task as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// All that is remembered of it.
    pub record: TaskRecord,
    /// The worker that runs it, or ran it last.
    pub worker: Option<Name>,
    /// Why it is where it is, in one word.
    pub reason: Reason,
}

impl TaskView {
    /// A task that has ended: all there is to say is in its record.
    #[must_use]
    pub fn ended(record: TaskRecord) -> Self {
        Self {
            worker: record.last_worker().cloned(),
            record,
            reason: Reason::Finished,
        }
    }
}

/// Why a task is where it is. docs/lifecycle.md explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No connected worker has registered its name.
    NoWorker,
    /// Every slot of the workers that could run it is taken.
    NoFreeSlot,
    /// Others are served first.
    Behind,
    /// Nobody reads its items.
    WaitingReader,
    /// Its time has not come.
    NotDue,
    /// The broker has restarted and waits for the worker that may hold it.
    Resuming,
    /// Its worker has been told to stop.
    Stopping,
    /// A worker runs it.
    Running,
    /// It is over.
    Finished,
}

impl Reason {
    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoWorker => "no_worker",
            Self::NoFreeSlot => "no_free_slot",
            Self::Behind => "behind",
            Self::WaitingReader => "waiting_reader",
            Self::NotDue => "not_due",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
            Self::Running => "running",
            Self::Finished => "finished",
        }
    }
}

/// Why a task is where it is, in words and in data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Which task.
    pub task: TaskId,
    /// Where it stands.
    pub state: StateName,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence.
    pub message: String,
    /// The figures behind the sentence.
    pub details: BTreeMap<&'static str, String>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its name.
    pub name: Name,
    /// Tasks in each state; terminal states count what is still kept. Stopping
    /// counts as running.
    pub counts: BTreeMap<StateName, u64>,
    /// How long its oldest ready task has waited.
    pub oldest_ready: Option<Duration>,
    /// How it serves.
    pub settings: QueueSettings,
}

/// A worker session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its name.
    pub name: Name,
    /// The session.
    pub session: SessionId,
    /// Whether it takes tasks.
    pub state: WorkerState,
    /// Runs it takes at a time.
    pub slots: u32,
    /// Runs it holds.
    pub busy: u32,
    /// Slots taken by runs that were told to stop and go on for nobody.
    pub leaked: u32,
    /// What it can run.
    pub tasks: Vec<Name>,
    /// Since when it is connected.
    pub connected_at: Timestamp,
}

/// Whether a worker takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It does.
    Active,
    /// It finishes what it has.
    Draining,
    /// It has no connection; its lease still runs.
    Lost,
}
