//! What a batch comes to. A task that comes in with it is written once, as it
//! stands at its end: under load most tasks end in the batch that brings them.

use asynq_core::{Change, Payload, Seq, State, TaskRecord, Timestamp};

/// A task's row.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) seq: Seq,
    pub(super) record: &'a TaskRecord,
    /// `None` if they are needed no more.
    pub(super) payload: Option<&'a Payload>,
    pub(super) end: Option<End<'a>>,
}

/// What is kept of a task that has ended.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub(super) result: Option<&'a Payload>,
    pub(super) forget_at: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fold<'a> {
    /// Tasks that come in, in the order of their places.
    pub(super) new: Vec<Row<'a>>,
    /// All changes of what was there before, in their order.
    pub(super) rest: Vec<&'a Change>,
}

impl<'a> Fold<'a> {
    pub(super) fn of(changes: &'a [Change]) -> Self {
        let mut new: Vec<_> = changes.iter().filter_map(Row::new).collect();
        new.sort_by_key(|row| row.seq);
        let mut rest = Vec::with_capacity(changes.len() - new.len());
        for change in changes {
            let row = match change {
                Change::Insert { .. } => continue,
                Change::Update { seq, .. } | Change::Finish { seq, .. } => find(&mut new, *seq),
                Change::Purge { .. }
                | Change::QueueSet { .. }
                | Change::SessionOpened(_)
                | Change::SessionClosed(_) => None,
            };
            match row {
                Some(row) => row.change(change),
                None => rest.push(change),
            }
        }
        Self { new, rest }
    }
}

/// The row of a task, if it came with the batch.
fn find<'r, 'a>(rows: &'r mut [Row<'a>], seq: Seq) -> Option<&'r mut Row<'a>> {
    let first = rows.first()?.seq;
    let offset = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
    // Places are given one after the other, so there are no gaps but after a failed batch.
    let at = match rows.get(offset) {
        Some(row) if row.seq == seq => offset,
        _ => rows.binary_search_by_key(&seq, |row| row.seq).ok()?,
    };
    rows.get_mut(at)
}

impl<'a> Row<'a> {
    fn new(change: &'a Change) -> Option<Self> {
        match change {
            Change::Insert { seq, record, payload } => Some(Self {
                seq: *seq,
                record,
                payload: Some(payload),
                end: None,
            }),
            _ => None,
        }
    }

    /// The row of a task that has ended otherwise than dead, for good.
    pub(super) fn ended(seq: Seq, record: &'a TaskRecord, end: End<'a>) -> Self {
        Self {
            seq,
            record,
            payload: None,
            end: Some(end),
        }
    }

    fn change(&mut self, change: &'a Change) {
        match change {
            Change::Update { record, .. } => {
                self.record = record;
                self.end = None;
            }
            Change::Finish {
                record,
                result,
                forget_at,
                ..
            } => {
                self.record = record;
                self.payload = self.payload.filter(|_| is_dead(record));
                self.end = Some(End {
                    result: result.as_ref(),
                    forget_at: *forget_at,
                });
            }
            Change::Insert { .. }
            | Change::Purge { .. }
            | Change::QueueSet { .. }
            | Change::SessionOpened(_)
            | Change::SessionClosed(_) => {}
        }
    }
}

impl End<'_> {
    /// Until when there is a result, if there is one.
    pub(super) fn drop_result_at(&self, record: &TaskRecord) -> Option<Timestamp> {
        self.result?;
        Some(result_until(record).unwrap_or(self.forget_at))
    }
}

/// An operator can have it run again, with the same arguments.
pub(super) fn is_dead(record: &TaskRecord) -> bool {
    record.state.name() == asynq_core::StateName::Dead
}

/// Until when the record says that a result is kept.
pub(super) fn result_until(record: &TaskRecord) -> Option<Timestamp> {
    match &record.state {
        State::Finished(finish) => finish.result.as_ref().map(|result| result.until),
        _ => None,
    }
}
