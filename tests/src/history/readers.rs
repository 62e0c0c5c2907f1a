//! What must hold of who reads a stream: readers, workers and brokers go away and
//! come back, and the stream goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use asynq_core::{DeadReason, Grant, LeaseToken, StateName, TaskId};

use super::{Entry, Judge, Record, Rule, Verdict, broken};

#[derive(Debug, Default)]
pub(super) struct Readers {
    streams: BTreeMap<TaskId, Stream>,
    /// Runs that go on and are not to stop, as far as was claimed.
    running: BTreeMap<TaskId, Grant>,
}

#[derive(Debug, Default)]
struct Stream {
    /// The broker was watched, and took a reader in; how long it does without one.
    grace: Option<Duration>,
    /// Since when nobody reads it.
    away: Option<Duration>,
    /// It may have been given up: somebody asked for that, or nobody came in time.
    may_end: bool,
    /// It may be lost with its worker.
    is_fragile: bool,
    /// Nothing is kept of it any more.
    purged: bool,
    /// It ends with the run that called it.
    called_by: Option<LeaseToken>,
}

impl Stream {
    /// Nobody has read it until now.
    fn notice_grace(&mut self, now: Duration) {
        let lapsed = |(away, grace): (Duration, Duration)| away + grace <= now;
        self.may_end |= self.away.zip(self.grace).is_some_and(lapsed);
    }

    fn leave(&mut self, now: Duration) {
        self.notice_grace(now);
        self.away = Some(now);
    }
}

impl Judge for Readers {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::OneRun(task) | Record::Once(task) => self.of(*task).is_fragile = true,
            Record::Called(task, by) => self.of(*task).called_by = Some(*by),
            Record::Claimed(token, _) => _ = self.running.insert(token.task, token.grant),
            Record::GivenUp(task) | Record::Stopping(task) => _ = self.running.remove(task),
            Record::Closed(token, _) => _ = self.running.remove(&token.task),
            Record::Stops(task) => self.of(*task).may_end = true,
            Record::Purged(task) => self.of(*task).purged = true,
            Record::Attached(task, grace) => {
                let stream = self.of(*task);
                stream.notice_grace(entry.at);
                (stream.grace, stream.away) = (Some(*grace), None);
            }
            Record::Detached(task) | Record::Revived(task) => self.of(*task).leave(entry.at),
            // It knows nobody yet.
            Record::Opened(_) => self.streams.values_mut().for_each(|stream| stream.leave(entry.at)),
            Record::Ended(task, end) => {
                let stream = self.streams.entry(*task).or_default();
                stream.notice_grace(entry.at);
                let by = stream.called_by;
                stream.may_end |= by.is_some_and(|by| self.running.get(&by.task) != Some(&by.grant));
                let given_up = end.state == StateName::Cancelled && stream.grace.is_some();
                if given_up && !stream.may_end {
                    let message =
                        format!("task {task} was cancelled, which nobody asked for, before its grace was over");
                    return broken(Rule::StreamCut, message);
                }
            }
            Record::Died(task, reason, kind) => return self.died(*task, *reason, kind),
            Record::Broken { task, why } if !self.of(*task).purged => {
                return broken(Rule::StreamCut, format!("the reader of task {task} was told: {why}"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Readers {
    fn of(&mut self, task: TaskId) -> &mut Stream {
        self.streams.entry(task).or_default()
    }

    fn died(&mut self, task: TaskId, reason: DeadReason, kind: &str) -> Verdict {
        let stream = self.of(task);
        let is_right = match reason {
            DeadReason::NonDeterministic => false,
            DeadReason::WorkerLost => stream.is_fragile,
            _ => kind != "protocol",
        };
        if stream.grace.is_some() && !is_right {
            return broken(Rule::StreamCut, format!("task {task} died: {reason:?}, {kind}"));
        }
        Ok(())
    }
}
