//! When the write-ahead log is copied into the database: after a commit, once
//! the log is long, and never inside one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, ErrorCode};

use super::reserve::Reserve;
use crate::StoreError;
use crate::limits::{PAGE_BYTES, TRUNCATE_PAGES};

/// Follows the length of the log.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Pages from which a copy that waits for readers is tried. Moves on after
    /// one that did not get there, so that a stuck reader delays few commits.
    truncate_at: u32,
    /// The log has said that the disk is full.
    told_full: bool,
}

impl Schedule {
    /// Follows the log of the one connection that writes.
    pub(super) fn begin(connection: &mut Connection) -> Result<Self, StoreError> {
        let pages = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, length| {
            seen.store(u32::try_from(length).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            pages,
            truncate_at: TRUNCATE_PAGES,
            told_full: false,
        })
    }

    /// Bytes of log that are yet to be copied, at most.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.pages.load(Ordering::Relaxed)) * u64::from(PAGE_BYTES)
    }

    /// Copies the log if it is time.
    pub(super) fn after_commit(&mut self, connection: &Connection, reserve: &mut Reserve) -> Result<(), StoreError> {
        self.copy_from(reserve.checkpoint_pages(), connection, reserve)
    }

    /// Copies the log if it has so many pages. A copy is written over what stands in
    /// the database or at its end, and the log stays until all is copied: where the
    /// disk is full, it can be tried again.
    pub(super) fn copy_from(
        &mut self,
        least: u32,
        connection: &Connection,
        reserve: &mut Reserve,
    ) -> Result<(), StoreError> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < least {
            return Ok(());
        }
        let mut copied = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        if copied == Copied::DiskFull && reserve.give_up() {
            copied = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        }
        if copied == Copied::DiskFull {
            if !std::mem::replace(&mut self.told_full, true) {
                tracing::warn!("the disk is full: the write-ahead log grows until there is space for the database");
            }
            return Ok(());
        }
        self.told_full = false;
        let whole = copied == Copied::Whole;
        if whole {
            // The next commit begins the log anew, unless a reader is still in it.
            self.pages.store(0, Ordering::Relaxed);
        }
        if pages < self.truncate_at {
            return Ok(());
        }
        if checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)")? == Copied::Whole {
            self.pages.store(0, Ordering::Relaxed);
            self.truncate_at = TRUNCATE_PAGES;
        } else {
            tracing::warn!(
                pages,
                "the write-ahead log cannot be shortened: something reads an old state of asynq.db"
            );
            self.truncate_at = pages.saturating_add(TRUNCATE_PAGES);
        }
        Ok(())
    }
}

/// How far a copy got. What has been committed stays committed in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// All of the log.
    Whole,
    /// A reader needs some of it still.
    Part,
    DiskFull,
}

fn checkpoint(connection: &Connection, pragma: &str) -> Result<Copied, StoreError> {
    let result = connection.query_row(pragma, (), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    match result {
        Ok((busy, log, copied)) if busy == 0 && log == copied => Ok(Copied::Whole),
        Ok(_) => Ok(Copied::Part),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(Copied::DiskFull),
        Err(e) => Err(e.into()),
    }
}
