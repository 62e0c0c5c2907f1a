//! The embedded default: one SQLite database per shard, written by one thread.
//!
//! Write-ahead log, `synchronous=FULL`: a commit returns once the log is on the
//! disk. The log is copied into the database between commits, on our own
//! schedule (`wal`).

mod begin;
mod error;
mod fold;
mod list;
mod open;
mod prune;
mod read;
mod reserve;
mod rows;
mod schema;
mod wal;
mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use asynq_core::{Change, Epoch, Seq, TaskRecord, Timestamp};
use rusqlite::Connection;

use crate::index::Index;
use crate::limits::FREE_PAGES;
use crate::{Belief, Opened, Pruned, Reader, Room, Store, StoreError};

/// The database's name in the data directory.
const FILE: &str = "asynq.db";

/// A shard in a SQLite database.
///
/// It does not lock the data directory: an older owner notices a newer one by
/// its epoch. After [`StoreError::Failed`] it refuses everything, because a
/// failed fsync must not be tried again by the same process.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    file: PathBuf,
    wal: wal::Schedule,
    writer: write::Writer,
    index: Arc<RwLock<Index>>,
    sweep: prune::Sweep,
    reserve: reserve::Reserve,
    /// There was little room at the last look: space is given back rather than kept.
    is_tight: bool,
    belief: Belief,
    /// What failed, for good.
    failed: Option<String>,
}

impl SqliteStore {
    /// Opens the shard in `dir`, having made both if they are not there.
    ///
    /// # Errors
    /// If the directory cannot be made or the database cannot be opened;
    /// [`StoreError::Incompatible`] if the database is not ours or newer.
    pub fn create_or_open(dir: &Path) -> Result<Self, StoreError> {
        create_dir(dir).map_err(|e| StoreError::Failed(format!("cannot create {}: {e}", dir.display())))?;
        let reserve = reserve::Reserve::begin(dir);
        let file = dir.join(FILE);
        let mut connection = open::connect(&file)?;
        open::create(&mut connection, &file)?;
        let wal = wal::Schedule::begin(&mut connection)?;
        Ok(Self {
            connection,
            file,
            wal,
            writer: write::Writer::default(),
            index: Arc::default(),
            sweep: prune::Sweep::default(),
            reserve,
            is_tight: false,
            belief: Belief::default(),
            failed: None,
        })
    }

    /// Runs one step, unless an earlier one failed for good.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(cause) = &self.failed {
            return Err(StoreError::Failed(format!("{cause} (earlier): start the broker again")));
        }
        let done = step(self);
        if let Err(StoreError::Failed(cause)) = &done {
            self.failed = Some(cause.clone());
        }
        done
    }
}

impl Store for SqliteStore {
    fn latest(&mut self) -> Result<Timestamp, StoreError> {
        self.guarded(|store| Ok(open::read_meta(&store.connection)?.latest))
    }

    fn believe(&mut self, clock: Belief) {
        self.belief = clock;
    }

    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        self.guarded(|store| {
            let taken = open::take_over(&mut store.connection, now, store.belief)?;
            let (opened, index) = open::scan(&mut store.connection, taken, live)?;
            store.sweep = prune::Sweep::default();
            *store.index.write().unwrap_or_else(PoisonError::into_inner) = index;
            Ok(opened)
        })
    }

    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError> {
        self.guarded(|store| {
            let index = store.index.read().unwrap_or_else(PoisonError::into_inner);
            let writer = &mut store.writer;
            // Space runs out before any fsync, and all is rolled back: it may be tried again.
            let mut commit = || writer.commit(&mut store.connection, &index, epoch, batch, changes, store.belief);
            store.reserve.helps(&mut commit)?;
            drop(index);
            let mut index = store.index.write().unwrap_or_else(PoisonError::into_inner);
            write::index_changes(&mut index, changes);
            drop(index);
            store.wal.after_commit(&store.connection, &mut store.reserve)
        })
    }

    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        self.guarded(|store| {
            let free_pages = if store.is_tight { 0 } else { FREE_PAGES };
            let (connection, index) = (&mut store.connection, &store.index);
            let (sweep, mut pruned) = (&mut store.sweep, Pruned::default());
            let notes = store.belief != Belief::Doubted;
            let mut sweep = || {
                if notes {
                    open::note_time(connection, epoch, now)?;
                }
                sweep.run(connection, index, epoch, now, budget, &mut pruned)?;
                if pruned.complete {
                    prune::shrink(connection, free_pages)
                } else {
                    Ok(())
                }
            };
            match store.reserve.helps(&mut sweep) {
                // Nothing is lost by forgetting later.
                Ok(()) | Err(StoreError::Full(_)) => {}
                Err(error) => return Err(error),
            }
            // The file becomes shorter only by a copy of the log.
            let least = if store.is_tight {
                1
            } else {
                store.reserve.checkpoint_pages()
            };
            store.wal.copy_from(least, &store.connection, &mut store.reserve)?;
            Ok(pruned)
        })
    }

    fn room(&mut self) -> Option<Room> {
        let room = self.reserve.room(self.wal.bytes())?;
        self.is_tight = !room.reserved || room.free < room.high;
        Some(room)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(read::SqliteReader::connect(
            &self.file,
            Arc::clone(&self.index),
        )?))
    }
}

/// Makes a directory and its way there, durably.
fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    create_dir(parent)?;
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests;
