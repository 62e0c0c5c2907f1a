//! The disk under the broker: a real store behind a layer that knows what has
//! been synced. The seam promises that a crash leaves every batch whose commit
//! returned, and of the one under way all or nothing; this layer takes it at its
//! word, at the worst moment.

use asynq_core::{Change, Epoch, Key, Name, Payload, Seq, State, TaskId, TaskRecord, Timestamp};
use asynq_store::{MemoryStore, Opened, Pruned, Reader, Store, StoreError};

use super::bug::Bug;

/// A batch and where it goes.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) epoch: Epoch,
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
}

/// See the module.
pub(crate) struct Disk {
    store: Box<dyn Store>,
    reader: Box<dyn Reader>,
    /// Handed over, not synced.
    under_way: Option<Batch>,
    bug: Option<Bug>,
    /// All that was done, for a disk that lies.
    log: Vec<Done>,
}

/// Something done to a store.
enum Done {
    Opened(Timestamp),
    Written(Batch),
}

impl Disk {
    /// # Errors
    /// If the store has no reading side.
    pub(crate) fn new(store: Box<dyn Store>, bug: Option<Bug>) -> Result<Self, StoreError> {
        Ok(Self {
            reader: store.reader()?,
            store,
            under_way: None,
            bug,
            log: Vec::new(),
        })
    }

    /// As [`Store::open`].
    pub(crate) fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        self.log.push(Done::Opened(now));
        self.store.open(now, live)
    }

    /// A batch goes to the disk.
    pub(crate) fn begin(&mut self, batch: Batch) {
        self.under_way = Some(batch);
    }

    /// It has arrived: gives its changes.
    pub(crate) fn sync(&mut self) -> Result<Vec<Change>, StoreError> {
        self.under_way.take().map_or(Ok(Vec::new()), |batch| self.write(batch))
    }

    fn write(&mut self, batch: Batch) -> Result<Vec<Change>, StoreError> {
        let changes = batch.changes.clone();
        let written = match self.bug {
            Some(Bug::ClaimsNotWritten) => changes.iter().filter(|change| !is_claim(change)).cloned().collect(),
            Some(Bug::CallersNotWritten) => changes.iter().cloned().map(of_nobody).collect(),
            Some(Bug::ExtensionsNotWritten) => changes.iter().cloned().map(without_extension).collect(),
            _ => batch.changes,
        };
        self.store.commit(batch.epoch, batch.number, &written)?;
        if self.bug == Some(Bug::DiskLies) {
            self.log.push(Done::Written(Batch {
                changes: written,
                ..batch
            }));
        }
        Ok(changes)
    }

    /// The machine stops: of the batch under way all is there, or nothing. Gives
    /// the changes that are.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn crash(&mut self, whole: bool) -> Result<Vec<Change>, StoreError> {
        if self.bug == Some(Bug::DiskLies) {
            self.under_way = None;
            return self.lose_the_last().map(|()| Vec::new());
        }
        match self.under_way.take().filter(|_| whole) {
            Some(batch) => self.write(batch),
            None => Ok(Vec::new()),
        }
    }

    /// All but the last batch was really on the disk.
    fn lose_the_last(&mut self) -> Result<(), StoreError> {
        if matches!(self.log.last(), Some(Done::Written(_))) {
            self.log.pop();
        }
        self.store = Box::new(MemoryStore::new());
        self.reader = self.store.reader()?;
        for done in &self.log {
            match done {
                Done::Opened(at) => drop(self.store.open(*at, &mut |_, _| {})?),
                Done::Written(batch) => self.store.commit(batch.epoch, batch.number, &batch.changes)?,
            }
        }
        Ok(())
    }

    /// As [`Store::prune`].
    pub(crate) fn prune(&mut self, epoch: Epoch, now: Timestamp) -> Result<Pruned, StoreError> {
        const BUDGET: usize = 64;
        self.store.prune(epoch, now, BUDGET)
    }

    /// As [`Reader::task`].
    pub(crate) fn task(&mut self, id: TaskId) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        self.reader.task(id)
    }

    /// As [`Reader::keyed`].
    pub(crate) fn keyed(&mut self, queue: &Name, key: &Key) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        self.reader.keyed(queue, key)
    }

    /// As [`Reader::result`].
    pub(crate) fn result(&mut self, seq: Seq) -> Result<Option<Payload>, StoreError> {
        self.reader.result(seq)
    }

    /// As [`Reader::payloads`], for one task.
    pub(crate) fn arguments(&mut self, seq: Seq) -> Result<Option<Payload>, StoreError> {
        Ok(self.reader.payloads(&[seq])?.pop().flatten())
    }
}

/// Whether a change notes that a session holds a run.
fn is_claim(change: &Change) -> bool {
    matches!(change, Change::Update { record, .. } if matches!(record.state, State::Running(_)))
}

/// The change without whose call it was.
fn of_nobody(mut change: Change) -> Change {
    if let Change::Insert { record, .. } | Change::Update { record, .. } | Change::Finish { record, .. } = &mut change {
        record.called_by = None;
    }
    change
}

/// The change without the time that a run has asked for.
fn without_extension(mut change: Change) -> Change {
    if let Change::Update { record, .. } = &mut change
        && let State::Running(run) = &mut record.state
    {
        run.extended = None;
    }
    change
}
