//! The one history checker: what was seen to happen, and the rules it must obey.
//!
//! A [`History`] is a plain list of what callers, workers and the broker saw, in
//! order. [`History::check`] knows nothing of who wrote it: the simulator does,
//! and process tests can. What was not seen is not judged, so a history that
//! holds only what callers saw is checked for what callers may rely on.

mod answers;
#[cfg(test)]
mod call_tests;
mod calls;
#[cfg(test)]
mod key_tests;
mod keys;
mod leases;
mod readers;
mod spawned;
mod streams;
mod tasks;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;
use std::time::Duration;

use asynq_core::{DeadReason, Epoch, Grant, Key, LeaseToken, OnKey, SessionId, StateName, TaskId};

/// One thing somebody saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, from the beginning of the history.
    pub at: Duration,
    /// What.
    pub what: Record,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The terminal state.
    pub state: StateName,
    /// A fingerprint of the result, where there is one and it was seen.
    pub value: Option<u64>,
}

/// An enqueue under a key, where all are of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The task, if it becomes one.
    pub task: TaskId,
    /// The key.
    pub key: Key,
    /// What is to become of it if another has the key.
    pub mode: OnKey,
    /// The fingerprint of what is asked for.
    pub words: u64,
    /// When it was first sent.
    pub since: Duration,
}

/// What can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A caller sends an enqueue: from now on the task may exist.
    Asked(TaskId),
    /// A caller sends an enqueue under a key.
    AsksKey(Keyed),
    /// The answer to that: the other task that has the key. If it was refused for that
    /// one's sake, whether both ask for the same.
    KeyAnswered(Keyed, TaskId, Option<bool>),
    /// The broker durably has a new task under a key, with the fingerprint of what it
    /// was asked for.
    HasKey(TaskId, Key, u64),
    /// A caller was told that the task is accepted, which it asked for in these
    /// words (their fingerprint).
    Acknowledged(TaskId, u64),
    /// A caller was told that the task, which runs, is being cancelled.
    Cancelling(TaskId),
    /// A caller was told how the task ended.
    Told(TaskId, End),
    /// A caller was told that there is no such task.
    Missing(TaskId),
    /// The broker serves, under this epoch.
    Opened(Epoch),
    /// The broker made a grant.
    Granted(LeaseToken, SessionId),
    /// The broker has a durable claim of the run.
    Claimed(LeaseToken, SessionId),
    /// The broker knows the session durably.
    Known(SessionId),
    /// It has durably forgotten it.
    Forgotten(SessionId),
    /// The broker durably remembers the task, and no run of it.
    GivenUp(TaskId),
    /// A worker resumed its session with these runs.
    Resumed(SessionId, Vec<LeaseToken>),
    /// The broker ended a session because its lease was over.
    LeaseOver(SessionId),
    /// The broker told a worker that its message about a run is accepted, and
    /// what state the task is in now.
    Accepted(LeaseToken, StateName),
    /// The broker made the end of a task known: it is durable.
    Ended(TaskId, End),
    /// The broker durably has a dead task run again, as an operator asked.
    Revived(TaskId),
    /// The broker has durably forgotten a task that had ended, but for its id, as an
    /// operator asked.
    Purged(TaskId),
    /// A task that must not begin twice is asked for.
    Once(TaskId),
    /// The broker durably knows a task that the run has called.
    Called(TaskId, LeaseToken),
    /// The broker heard that a run wants no more what it has called, and which lives.
    Withdrew(TaskId),
    /// The broker durably has the task's run stop.
    Stopping(TaskId),
    /// The broker durably knows the end of a task, by that grant if any was made.
    Closed(LeaseToken, StateName),
    /// The broker durably has a new task.
    Made(TaskId),
    /// A run returns, and these tasks are to begin with that.
    Spawns {
        /// The run.
        token: LeaseToken,
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// What was put on record of durable things since the last of these became durable
    /// at once.
    Committed,
    /// A run was told how the task ended that it had called as its `n`-th.
    Heard {
        /// The run.
        token: LeaseToken,
        /// Which of the tasks it has made.
        n: u32,
        /// The task it was told of.
        task: TaskId,
    },
    /// The broker heard that a run which goes on is to have time up to then, by its clock
    /// in microseconds.
    Extended(LeaseToken, u64),
    /// The broker durably knows that.
    HasUntil(LeaseToken, u64),
    /// The broker has a run stop because it took too long; what its clock reads.
    TookTooLong(LeaseToken, u64),
    /// A worker began a run.
    Began(LeaseToken, SessionId),
    /// A run is no more, however it went.
    Quit(LeaseToken),
    /// A run returned a value with this fingerprint.
    Returned(LeaseToken, u64),
    /// A worker's process was stopped, or was slow, for longer than it can
    /// notice: no lease can see that.
    Stalled(SessionId),
    /// A reader has room up to these totals.
    Credit {
        /// Of which task.
        task: TaskId,
        /// Items, from the beginning.
        items: u64,
        /// Bytes, from the beginning.
        bytes: u64,
    },
    /// A worker sent an item.
    Sent {
        /// From which run.
        token: LeaseToken,
        /// Its index.
        index: u64,
        /// Where its last byte lies among all bytes.
        end: u64,
        /// A fingerprint of its content.
        value: u64,
    },
    /// A reader got an item.
    Received {
        /// Of which task.
        task: TaskId,
        /// Its index.
        index: u64,
        /// A fingerprint of its content.
        value: u64,
    },
    /// A reader asks for a stream from this item on: for the first time, or again after
    /// it or its connection was gone. What it had of these it compares.
    Reads {
        /// Of which task.
        task: TaskId,
        /// The first item asked for.
        index: u64,
    },
    /// A reader was told that the stream is over.
    Over {
        /// Of which task.
        task: TaskId,
        /// Items in all.
        count: u64,
        /// Without an error: there are no more.
        whole: bool,
    },
    /// A reader of a stream that is there was told that it does not go on, which is
    /// never right.
    Broken {
        /// Of which task.
        task: TaskId,
        /// What it was told.
        why: String,
    },
    /// The items of a task that is asked for cannot be yielded a second time.
    OneRun(TaskId),
    /// The broker takes a reader of a stream in. Without one the stream lives on for
    /// that long.
    Attached(TaskId, Duration),
    /// The reader's connection broke, as far as the broker knows.
    Detached(TaskId),
    /// Somebody does not want a task to go on, and says so or is about to.
    Stops(TaskId),
    /// The broker made known why a task is dead, with the kind of its last failure.
    Died(TaskId, DeadReason, String),
    /// Somebody asks something that is to be answered once.
    Question(Asker, u64),
    /// An answer; `true` if nothing more follows.
    Answer(Asker, u64, bool),
    /// Nobody waits for the answer any more; one may still come.
    Withdrawn(Asker, u64),
    /// Nobody listens there any more.
    Gone(Asker),
    /// All faults are over. What is asked from now on must be done.
    Healed,
    /// With nothing left to write, the store remembered another thing of a task than
    /// the broker knew.
    Differs(TaskId),
    /// At the end: a task the broker knows, and how it ended, if it has.
    Found(TaskId, Option<End>),
    /// At the end: what is left somewhere that should be empty.
    Left {
        /// Where.
        place: &'static str,
        /// How many.
        count: u64,
    },
}

/// Names who asks: a connection, or a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker(pub u64);

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What was acknowledged is known in the end, and whoever asks is told so.
    Lost,
    /// Nothing exists that nobody asked for.
    Phantom,
    /// One id is one task.
    TwoInOne,
    /// A task ends once, the same for all, and by one completion at most; one that
    /// an operator has run again, once more.
    SecondEnd,
    /// What is being cancelled does not succeed.
    CancelLost,
    /// What must not begin twice does not.
    BegunTwice,
    /// After its end was told, a task is granted no more.
    GrantAfterEnd,
    /// Of one task, each grant is higher than the one before.
    TokensFall,
    /// A completion is accepted of the newest grant only.
    Stale,
    /// The result told is what the accepted run returned.
    WrongResult,
    /// Once a silent worker's lease is over, none of its runs goes on.
    Overlap,
    /// A claimed run is not granted again after a restart while its session has
    /// neither come back nor used up a whole lease.
    ClaimLost,
    /// Nor is any run that goes on, while its session may come back in the grace
    /// after a restart.
    RunAgain,
    /// A reader gets items 0, 1, 2 … once each, and all of them by the end.
    StreamOrder,
    /// An item is what its run sent, and the same each time it comes.
    StreamContent,
    /// A stream goes on until it is whole, its run fails, somebody stops it, or nobody
    /// reads it for its grace. Only one that cannot be run again is lost with its worker.
    StreamCut,
    /// No item is sent beyond the credit its reader gave.
    Overrun,
    /// A called task lives no longer than the attempt that called it, but to be stopped.
    Orphan,
    /// What a run has called and wants no more does not succeed.
    Unwanted,
    /// A call is answered with the end of the task it called.
    WrongCall,
    /// What a run spawns is there once, by the commit that has its success, and by no
    /// other.
    Spawned,
    /// A key has one task, unless one that has not started is replaced.
    KeyTwice,
    /// Who comes with the key of another task is answered as its mode says.
    KeyAnswer,
    /// A run has the time that it has asked for.
    TimeCut,
    /// The store remembers what the broker knows.
    Differs,
    /// After the faults every task ends.
    Stuck,
    /// Every question is answered once.
    Answers,
    /// In the end nothing is left behind.
    Leak,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "what was acknowledged is not lost",
            Self::Phantom => "nothing exists that nobody asked for",
            Self::TwoInOne => "one id is one task",
            Self::SecondEnd => "a task ends once",
            Self::CancelLost => "what is being cancelled does not succeed",
            Self::BegunTwice => "what must not begin twice does not",
            Self::GrantAfterEnd => "no grant after the end",
            Self::TokensFall => "grants rise",
            Self::Stale => "only the newest grant completes",
            Self::WrongResult => "the result is what the accepted run returned",
            Self::Overlap => "no run outlives the lease of a silent worker",
            Self::ClaimLost => "a claimed run is not granted again at a restart",
            Self::RunAgain => "no run is granted again while its session may come back",
            Self::StreamOrder => "items come once each, in order, and all by the end",
            Self::StreamContent => "an item is what its run sent",
            Self::StreamCut => "a stream goes on whoever is lost",
            Self::Overrun => "no item beyond the credit",
            Self::Orphan => "a called task ends with the attempt that called it",
            Self::Unwanted => "what a run wants no more does not succeed",
            Self::WrongCall => "a call is answered with the end of what it called",
            Self::Spawned => "what is spawned comes with a success, once",
            Self::KeyTwice => "a key has one task",
            Self::KeyAnswer => "a key that is taken is answered as its mode says",
            Self::TimeCut => "a run has the time it has asked for",
            Self::Differs => "the store remembers what the broker knows",
            Self::Stuck => "after the faults every task ends",
            Self::Answers => "every question is answered once",
            Self::Leak => "nothing is left behind",
        })
    }
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By which entry, counted from 0.
    pub entry: usize,
    /// What was wrong.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)
    }
}

/// What was seen, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct History {
    entries: Vec<Entry>,
}

/// One side of the rules: it looks at each entry, in order.
trait Judge {
    /// Takes one entry in.
    ///
    /// # Errors
    /// Names the rule it breaks, and how.
    fn see(&mut self, entry: &Entry) -> Verdict;

    /// After the last entry.
    ///
    /// # Errors
    /// As [`Judge::see`].
    fn close(&mut self) -> Verdict {
        Ok(())
    }
}

type Verdict = Result<(), (Rule, String)>;

fn broken(rule: Rule, message: impl Into<String>) -> Verdict {
    Err((rule, message.into()))
}

impl History {
    /// Adds what was seen at `at`.
    pub fn push(&mut self, at: Duration, what: Record) {
        self.entries.push(Entry { at, what });
    }

    /// All of it.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Holds the history against every rule.
    ///
    /// # Errors
    /// The first entry that breaks one.
    pub fn check(&self) -> Result<(), Violation> {
        let mut judges: [Box<dyn Judge>; 9] = [
            Box::<tasks::Tasks>::default(),
            Box::<leases::Leases>::default(),
            Box::<streams::Streams>::default(),
            Box::<readers::Readers>::default(),
            Box::<calls::Calls>::default(),
            Box::<spawned::Spawned>::default(),
            Box::<keys::Keys>::default(),
            Box::<time::Time>::default(),
            Box::<answers::Answers>::default(),
        ];
        let violation = |entry, (rule, message)| Violation { rule, entry, message };
        for (n, entry) in self.entries.iter().enumerate() {
            for judge in &mut judges {
                judge.see(entry).map_err(|broken| violation(n, broken))?;
            }
        }
        let last = self.entries.len().saturating_sub(1);
        for judge in &mut judges {
            judge.close().map_err(|broken| violation(last, broken))?;
        }
        Ok(())
    }
}

/// A token, short enough to read.
fn show(token: LeaseToken) -> String {
    let LeaseToken { task, grant } = token;
    let Grant { epoch, attempt } = grant;
    format!("attempt {attempt} (epoch {}) of task {task}", epoch.0)
}
