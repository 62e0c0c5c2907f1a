//! The thread that writes: one commit at a time, pruning in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use asynq_core::{Change, Epoch, Timestamp};
use asynq_store::{Pruned, Room, Store, StoreError};
use tokio::sync::mpsc;

use super::admission::disk_bytes;
use crate::limits::{LOOK_INTERVAL, LOOK_SHARE, PRUNE_BUDGET, PRUNE_INTERVAL, PRUNE_PER_TASK};

/// What the writer reports.
#[derive(Debug)]
pub(super) enum Written {
    /// The batch handed over last is durable.
    Durable,
    /// How much space there is, with all that was reported durable written.
    Looked(Option<Room>),
    /// Finished tasks were forgotten.
    Pruned(Pruned),
    /// Nothing is certain any more; the thread has ended.
    Failed(StoreError),
}

/// The loop's end of the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    batches: SyncSender<Batch>,
    written: mpsc::Receiver<Written>,
    /// In µs: what is past its time by then may be pruned.
    horizon: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    changes: Vec<Change>,
}

impl Writer {
    pub(super) fn start(store: Box<dyn Store>, epoch: Epoch, now: Timestamp) -> std::io::Result<Self> {
        // The loop hands over one batch at a time, so this never blocks it.
        let (batches, from_loop) = sync_channel(1);
        let (to_loop, written) = mpsc::channel(4);
        let horizon = Arc::new(AtomicU64::new(now.as_micros()));
        let thread = Thread {
            store,
            epoch,
            horizon: horizon.clone(),
            from_loop,
            to_loop,
            looks: Looks::default(),
        };
        thread::Builder::new()
            .name("asynq-writer".into())
            .spawn(move || thread.run())?;
        Ok(Self {
            batches,
            written,
            horizon,
        })
    }

    /// What is past its time by `at` may be pruned from now on.
    pub(super) fn prune_until(&self, at: Timestamp) {
        self.horizon.store(at.as_micros(), Ordering::Relaxed);
    }

    /// Writes a batch. The one before must have been reported durable.
    pub(super) fn write(&self, number: u64, changes: Vec<Change>) {
        // If the thread has ended, `next` says why.
        let _ = self.batches.try_send(Batch { number, changes });
    }

    /// Waits until the thread has closed the store. Call it with nothing under way.
    pub(super) async fn stop(self) {
        let Self {
            batches, mut written, ..
        } = self;
        drop(batches);
        // The thread drops the store, then its end of this channel.
        while written.recv().await.is_some() {}
    }

    /// What the writer did next. Cancel safe.
    pub(super) async fn next(&mut self) -> Written {
        let died = || Written::Failed(StoreError::Failed("the writing thread died".into()));
        self.written.recv().await.unwrap_or_else(died)
    }
}

/// Fields are dropped in order: the store is closed before the channel.
struct Thread {
    store: Box<dyn Store>,
    epoch: Epoch,
    horizon: Arc<AtomicU64>,
    from_loop: Receiver<Batch>,
    to_loop: mpsc::Sender<Written>,
    looks: Looks,
}

/// When space was last looked at, and what has been written since.
#[derive(Debug, Default)]
struct Looks {
    at: Option<Instant>,
    written: u64,
    /// Bytes after which it is worth looking again.
    enough: u64,
}

impl Looks {
    fn is_due(&self) -> bool {
        self.written >= self.enough || self.at.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL)
    }

    fn done(&mut self, room: Option<Room>) {
        *self = Self {
            at: Some(Instant::now()),
            written: 0,
            // Where nothing is taken in, time alone decides.
            enough: room.map_or(u64::MAX, |room| match room.free.saturating_sub(room.low) {
                0 => u64::MAX,
                above => above / LOOK_SHARE,
            }),
        };
    }
}

impl Thread {
    fn run(mut self) {
        let mut debt = 0;
        let mut pruned_at = Instant::now();
        loop {
            let step = match self
                .from_loop
                .recv_timeout(PRUNE_INTERVAL.saturating_sub(pruned_at.elapsed()))
            {
                Ok(batch) => {
                    let tasks = batch
                        .changes
                        .iter()
                        .filter(|change| matches!(change, Change::Insert { .. }))
                        .count();
                    debt += tasks * PRUNE_PER_TASK;
                    self.commit(&batch)
                }
                Err(RecvTimeoutError::Timeout) => {
                    debt = debt.max(PRUNE_BUDGET);
                    Ok(())
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let step = step.and_then(|()| {
                if debt < PRUNE_BUDGET {
                    return Ok(());
                }
                pruned_at = Instant::now();
                self.prune(std::mem::take(&mut debt))?;
                if self.looks.is_due() { self.look() } else { Ok(()) }
            });
            match step {
                Ok(()) => {}
                Err(Stop::LoopGone) => return,
                Err(Stop::Store(error)) => {
                    // The loop may be gone already: then nobody need know.
                    let _ = self.to_loop.blocking_send(Written::Failed(error));
                    return;
                }
            }
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Stop> {
        self.store
            .commit(self.epoch, batch.number, &batch.changes)
            .map_err(Stop::Store)?;
        self.looks.written += batch.changes.iter().map(disk_bytes).sum::<u64>();
        self.report(Written::Durable)?;
        if self.looks.is_due() { self.look() } else { Ok(()) }
    }

    fn look(&mut self) -> Result<(), Stop> {
        let room = self.store.room();
        self.looks.done(room);
        match room {
            Some(_) => self.report(Written::Looked(room)),
            None => Ok(()),
        }
    }

    fn prune(&mut self, budget: usize) -> Result<(), Stop> {
        let until = Timestamp::from_micros(self.horizon.load(Ordering::Relaxed));
        let pruned = self.store.prune(self.epoch, until, budget).map_err(Stop::Store)?;
        if pruned.forgotten.is_empty() {
            Ok(())
        } else {
            self.report(Written::Pruned(pruned))
        }
    }

    fn report(&self, written: Written) -> Result<(), Stop> {
        self.to_loop.blocking_send(written).map_err(|_| Stop::LoopGone)
    }
}

/// Why the thread ends.
enum Stop {
    LoopGone,
    Store(StoreError),
}
