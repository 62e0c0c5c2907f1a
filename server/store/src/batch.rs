//! What every store notes of a batch beside its changes.

use asynq_core::{Change, Seq, State, TaskRecord, Timestamp};

use crate::Belief;

/// What is noted of a batch.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Summary {
    /// One more than the largest place in the order; 0 if nothing is inserted.
    pub(crate) next_seq: Seq,
    /// The latest time at which something in it happened; zero if times are doubted.
    pub(crate) latest: Timestamp,
}

impl Summary {
    pub(crate) fn of(changes: &[Change], clock: Belief) -> Self {
        let mut summary = Self::default();
        for change in changes {
            let at = match change {
                Change::Insert { seq, record, .. } => {
                    summary.next_seq = summary.next_seq.max(Seq(seq.0 + 1));
                    happened(record)
                }
                Change::Update { record, .. } | Change::Finish { record, .. } | Change::Purge { record, .. } => {
                    happened(record)
                }
                Change::SessionOpened(session) => session.opened_at,
                Change::QueueSet { .. } | Change::SessionClosed(_) => Timestamp::ZERO,
            };
            summary.latest = summary.latest.max(at);
        }
        if clock == Belief::Doubted {
            summary.latest = Timestamp::ZERO;
        }
        summary
    }
}

/// The latest time in a record that is not a plan.
fn happened(record: &TaskRecord) -> Timestamp {
    let state = match &record.state {
        State::Scheduled { .. } | State::Ready => Timestamp::ZERO,
        State::Running(run) | State::Stopping(run, _) => run.started_at,
        State::Finished(finish) => finish.at,
    };
    record.enqueued_at.max(state)
}
