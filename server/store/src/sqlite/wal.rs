//! When the write-ahead log is copied into the database: after a commit, once
//! the log is long, and never inside one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, ErrorCode};

use crate::StoreError;
use crate::limits::{CHECKPOINT_PAGES, TRUNCATE_PAGES};

/// Follows the length of the log.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Pages from which a copy that waits for readers is tried. Moves on after
    /// one that did not get there, so that a stuck reader delays few commits.
    truncate_at: u32,
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
        })
    }

    /// Copies the log if it is time.
    pub(super) fn after_commit(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < CHECKPOINT_PAGES {
            return Ok(());
        }
        let whole = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        if whole {
            // The next commit begins the log anew, unless a reader is still in it.
            self.pages.store(0, Ordering::Relaxed);
        }
        if pages < self.truncate_at {
            return Ok(());
        }
        if checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)")? {
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

/// Whether all of the log has been copied. What has been committed stays
/// committed if not: then a reader still needs it, or the disk is full.
fn checkpoint(connection: &Connection, pragma: &str) -> Result<bool, StoreError> {
    let result = connection.query_row(pragma, (), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    match result {
        Ok((busy, log, copied)) => Ok(busy == 0 && log == copied),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::warn!("the disk is full: the write-ahead log grows until there is space for the database");
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}
