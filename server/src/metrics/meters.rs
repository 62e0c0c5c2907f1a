//! What the loop counts: plain numbers, which only the loop touches.

use std::time::Duration;

use asynq_core::{
    Assignment, Change, DeadReason, ItemBatch, Outcome, QueueView, State, Tally, TaskRecord, Timestamp, WorkerView,
};
use asynq_store::Room;
use tokio::time::Instant;

use super::histogram::Histogram;

/// Microseconds of a commit: a fast disk needs 100 µs, a bad day seconds.
const COMMIT: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];
/// Microseconds of a turn of the loop.
const TURN: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
];
/// Microseconds tasks wait and run: from 1 ms to 6 h.
const TASK: &[u64] = &[
    1_000,
    5_000,
    25_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
    600_000_000,
    3_600_000_000,
    21_600_000_000,
];
/// Changes of a commit.
const CHANGES: &[u64] = &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// What has been counted since the broker started.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(super) enqueued: u64,
    pub(super) runs: u64,
    pub(super) succeeded: u64,
    pub(super) dead: [u64; DeadReason::ALL.len()],
    pub(super) cancelled: u64,
    pub(super) expired: u64,
    pub(super) items: u64,
    pub(super) item_bytes: u64,
    /// From acceptance to the first run.
    pub(super) wait: Histogram,
    /// The last run of a task that ended.
    pub(super) run: Histogram,
    pub(super) commit: Histogram,
    pub(super) commit_changes: Histogram,
    pub(super) turn: Histogram,
    /// When the commit under way began.
    committing: Option<Instant>,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            enqueued: 0,
            runs: 0,
            succeeded: 0,
            dead: [0; DeadReason::ALL.len()],
            cancelled: 0,
            expired: 0,
            items: 0,
            item_bytes: 0,
            wait: Histogram::new(TASK),
            run: Histogram::new(TASK),
            commit: Histogram::new(COMMIT),
            commit_changes: Histogram::new(CHANGES),
            turn: Histogram::new(TURN),
            committing: None,
        }
    }
}

impl Meters {
    pub(crate) fn change(&mut self, change: &Change) {
        match change {
            Change::Insert { .. } => self.enqueued += 1,
            Change::Finish { record, .. } => self.finished(record),
            Change::Update { .. }
            | Change::Purge { .. }
            | Change::QueueSet { .. }
            | Change::SessionOpened(_)
            | Change::SessionClosed(_) => {}
        }
    }

    fn finished(&mut self, record: &TaskRecord) {
        let State::Finished(finish) = &record.state else {
            return;
        };
        match finish.outcome {
            Outcome::Succeeded => self.succeeded += 1,
            Outcome::Dead(reason) => self.dead[reason as usize] += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Expired => self.expired += 1,
        }
        if let Some(started_at) = finish.started_at {
            self.run.observe(micros(finish.at.since(started_at)));
        }
    }

    pub(crate) fn assigned(&mut self, now: Timestamp, run: &Assignment) {
        self.runs += 1;
        // Later ones would count the runs before.
        if run.token.grant.attempt == 1 {
            self.wait.observe(micros(now.since(run.enqueued_at)));
        }
    }

    pub(crate) fn items(&mut self, batch: &ItemBatch) {
        self.items += batch.lengths.len() as u64;
        self.item_bytes += batch.data.len() as u64;
    }

    /// A batch is on its way to the store.
    pub(crate) fn commit_begins(&mut self, changes: usize) {
        self.commit_changes.observe(changes as u64);
        self.committing = Some(Instant::now());
    }

    /// The loop knows that it is durable.
    pub(crate) fn commit_ends(&mut self) {
        if let Some(began) = self.committing.take() {
            self.commit.observe(micros(began.elapsed()));
        }
    }

    /// The loop has done what was ready.
    pub(crate) fn turn(&mut self, took: Duration) {
        self.turn.observe(micros(took));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A copy of all the loop knows, for who asks.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) meters: Meters,
    pub(crate) tally: Tally,
    pub(crate) queues: Vec<QueueView>,
    pub(crate) workers: Vec<WorkerView>,
    /// Streams whose end is not durable yet.
    pub(crate) streams: usize,
    /// Sessions of callers.
    pub(crate) callers: usize,
    /// Space on the store's disk, as it was last seen.
    pub(crate) room: Option<Room>,
    /// New tasks are refused for want of it.
    pub(crate) disk_full: bool,
    /// Nothing expires and nothing is forgotten: see `--trust-clock`.
    pub(crate) clock_doubted: bool,
}
