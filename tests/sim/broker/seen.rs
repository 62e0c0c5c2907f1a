//! What the broker's side puts on record.

use asynq_core::{Cause, Change, Finished, LeaseToken, State, TaskRecord};
use asynq_tests::history::{Asker, End, Record};

use super::process::Process;
use crate::dice::fingerprint;
use crate::env::Env;
use crate::net::ConnId;

impl Process {
    /// What is left where nothing should be in the end.
    pub(super) fn record_leftovers(&self, env: &mut Env) {
        let busy: u32 = self.core.workers().iter().map(|worker| worker.busy).sum();
        let leaked: u32 = self.core.workers().iter().map(|worker| worker.leaked).sum();
        let places = [
            ("slots taken", u64::from(busy)),
            ("slots leaked", u64::from(leaked)),
            ("requests without an answer", self.requests.len() as u64),
            ("lookups", self.resolving.len() as u64),
            ("lookups of keys", self.resolving_keys.len() as u64),
            ("streams", self.streams.len() as u64),
            ("runs whose arguments are read", self.sessions.reading.len() as u64),
            ("verdicts waited for", self.sessions.expected.len() as u64),
            ("waits", self.waiters.len() as u64),
            ("arguments in memory", self.arguments.len() as u64),
        ];
        for (place, count) in places {
            env.record(Record::Left { place, count });
        }
    }
}

/// Puts on record what durable changes say of sessions, and of who holds which run.
pub(super) fn record_claims(changes: Vec<Change>, env: &mut Env) {
    if changes.is_empty() {
        return;
    }
    for change in changes {
        if let Change::Insert { record, .. } = &change {
            env.record(Record::Made(record.id));
            if let Some(key) = &record.options.key {
                env.record(Record::HasKey(record.id, key.clone(), record.digest));
            }
        }
        let record = match change {
            Change::Insert { record, .. } | Change::Update { record, .. } => record,
            Change::SessionOpened(session) => {
                env.record(Record::Known(session.id));
                continue;
            }
            Change::SessionClosed(session) => {
                env.record(Record::Forgotten(session));
                continue;
            }
            Change::Purge { record, .. } => {
                env.record(Record::Purged(record.id));
                continue;
            }
            Change::Finish { record, .. } => {
                let token = LeaseToken {
                    task: record.id,
                    grant: record.grant,
                };
                env.record(Record::Closed(token, record.state.name()));
                continue;
            }
            Change::QueueSet { .. } => continue,
        };
        if let Some(by) = &record.called_by {
            env.record(Record::Called(record.id, by.run));
        }
        if is_revived(&record) {
            env.record(Record::Revived(record.id));
        }
        let token = LeaseToken {
            task: record.id,
            grant: record.grant,
        };
        if let State::Running(run) = &record.state
            && let Some(time) = run.extended
        {
            env.record(Record::HasUntil(token, (run.started_at + time).as_micros()));
        }
        env.record(match record.state {
            State::Running(run) | State::Stopping(run, _) => Record::Claimed(token, run.session),
            _ => Record::GivenUp(record.id),
        });
        if matches!(record.state, State::Stopping(..)) {
            env.record(Record::Stopping(record.id));
        }
    }
    env.record(Record::Committed);
}

/// An operator has had it run again, and nothing has come of it yet.
fn is_revived(record: &TaskRecord) -> bool {
    let notes = record.notes.as_ref().map(|notes| notes.as_slice());
    let last = notes.and_then(<[_]>::last).map(|note| note.step.cause);
    record.state == State::Ready && last == Some(Cause::Retried)
}

/// Who asks over a connection.
pub(super) fn asker(id: ConnId) -> Asker {
    Asker(id.0)
}

/// The end as histories have it.
pub(crate) fn end_of(finished: &Finished) -> End {
    End {
        state: finished.outcome.state_name(),
        value: finished.result.as_ref().map(|result| fingerprint(&result.data)),
    }
}
