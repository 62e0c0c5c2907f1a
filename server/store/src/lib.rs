//! What the broker remembers: the seam every store stands behind, and the
//! stores. A store applies the core's changes in order, durably, and decides
//! nothing.

mod batch;
mod codec;
#[cfg(any(test, feature = "conformance"))]
#[doc(hidden)]
pub mod conformance;
mod index;
pub mod limits;
mod listing;
mod memory;
mod sqlite;
mod state;

pub use listing::{Listed, Query};
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

use std::collections::BTreeMap;

use asynq_core::{
    Change, Epoch, Key, Name, Payload, QueueSettings, Seq, SessionRecord, StateName, TaskId, TaskRecord, Timestamp,
};

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another broker has opened the shard since. Nothing was written.
    #[error("deposed: the shard was opened again with epoch {stored}, this broker has {held}", stored = stored.0, held = held.0)]
    Deposed {
        /// The epoch of the newer owner.
        stored: Epoch,
        /// The epoch of this one.
        held: Epoch,
    },
    /// The disk is full. Nothing was written.
    #[error("disk full: {0}")]
    Full(String),
    /// The store is not one this version can read. Nothing was written.
    #[error("{0}")]
    Incompatible(String),
    /// Anything else. What was being written may or may not be there: only a
    /// new open tells. An fsync that failed is never tried again.
    #[error("store failed: {0}")]
    Failed(String),
}

/// What [`Store::open`] found besides the live tasks.
#[derive(Debug)]
pub struct Opened {
    /// This incarnation: max(stored + 1, the wall clock in µs).
    pub epoch: Epoch,
    /// The incarnation before this one; zero for none.
    pub previous: Epoch,
    /// The number of the last batch committed by any owner; 0 for none.
    pub last_batch: u64,
    /// The first unused place in the order.
    pub next_seq: Seq,
    /// Sessions opened and not closed.
    pub sessions: Vec<SessionRecord>,
    /// Terminal tasks still kept, by queue and state, without those that were purged.
    pub finished: BTreeMap<(Name, StateName), u64>,
    /// What queues were told to be: those that are not as by default.
    pub queues: BTreeMap<Name, QueueSettings>,
    /// As [`Store::latest`] has it before this open.
    pub latest: Timestamp,
}

/// What the times are worth that an owner writes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// They go on from those before.
    #[default]
    Believed,
    /// They may be far ahead: none of them counts for [`Store::latest`].
    Doubted,
    /// Somebody vouches for the present one: those before count no more.
    Trusted,
}

/// What [`Store::prune`] did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Tasks forgotten, by queue and state, without those that were purged before.
    pub forgotten: BTreeMap<(Name, StateName), u64>,
    /// Results dropped from tasks still remembered.
    pub results: u64,
    /// The whole store has been gone through since the last call that said so.
    pub complete: bool,
}

/// Space where the store writes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is free, beside what is put by for a full disk.
    pub free: u64,
    /// With less than this free, no new task should be taken in: what is known
    /// already needs it to come to its end.
    pub low: u64,
    /// From here on new tasks may be taken in again.
    pub high: u64,
    /// Space is put by; if not, it is in use.
    pub reserved: bool,
}

/// The writing side of a shard: one owner, one thread. Calls block.
///
/// **A crash** at any point leaves a prefix of the committed batches: every
/// batch whose `commit` returned, and of the one under way all or nothing.
pub trait Store: Send {
    /// The latest time that is durable: in a record, of an open, or of a sweep; of times
    /// that were believed. Zero for an empty shard. By it a clock that was set while
    /// the shard was closed is noticed. Asked before [`Store::open`].
    ///
    /// # Errors
    /// If the store cannot be read.
    fn latest(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::ZERO)
    }

    /// What this owner's times are worth, said before [`Store::open`]; they are
    /// believed unless it is.
    fn believe(&mut self, _clock: Belief) {}

    /// Takes the shard over: from here on older owners' commits fail. Calls
    /// `live` once for each task that has not ended, in the order of `Seq`.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError>;

    /// Makes a batch durable, all of it or nothing. On a full disk it uses what it
    /// has put by. `batch` counts up from
    /// [`Opened::last_batch`] and is stored with it, so that a batch whose fate
    /// is unknown can be read back by opening again.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] if another owner opened the shard;
    /// [`StoreError::Full`] if what was put by is not enough either.
    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError>;

    /// Goes through at most `budget` records from where the last call ended,
    /// drops what is past its time, and begins again at the end. Notes `now` for
    /// [`Store::latest`] where that is an hour ago: a shard in which nothing happens
    /// must not look like one that was closed.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError>;

    /// How much space there is, for a store that a disk limits. Looks each time,
    /// which takes microseconds, and puts space by again where it had been used.
    fn room(&mut self) -> Option<Room> {
        None
    }

    /// A reading side for another thread. It sees every batch whose `commit`
    /// returned before the read began.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// The reading side of a shard. Calls block.
pub trait Reader: Send {
    /// The arguments of tasks that have not ended, in the order asked for;
    /// `None` for one the store does not have.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn payloads(&mut self, tasks: &[Seq]) -> Result<Vec<Option<Payload>>, StoreError>;

    /// What is remembered of a task, ended or not.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn task(&mut self, id: TaskId) -> Result<Option<(Seq, TaskRecord)>, StoreError>;

    /// What is remembered of the last task of a queue that had the key, ended or
    /// not. A task that was replaced has it no more.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn keyed(&mut self, queue: &Name, key: &Key) -> Result<Option<(Seq, TaskRecord)>, StoreError>;

    /// The result of a task, unless it has none or it has been dropped.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn result(&mut self, task: Seq) -> Result<Option<Payload>, StoreError>;

    /// Tasks that fit, the latest in the order first, from one moment. Reads
    /// neither arguments nor results, and holds nothing of the store when it
    /// returns: whoever wants more asks again, from [`Listed::next`] on.
    ///
    /// Tasks are accepted in their order, so that looking ends with the first
    /// one accepted before the filter's `since`.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn tasks(&mut self, query: &Query) -> Result<Listed, StoreError>;
}
