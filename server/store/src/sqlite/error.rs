//! What SQLite's errors mean to the seam, and numbers on their way to it.

use asynq_core::{Seq, Timestamp};
use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            _ if is_full(&error) => Self::Full(format!("{error}; free space on the disk of the data directory")),
            Some(ErrorCode::NotADatabase) => Self::Incompatible(
                "asynq.db is not a SQLite database: move it away, or name another data directory".to_owned(),
            ),
            Some(ErrorCode::DatabaseCorrupt) => Self::Failed(format!(
                "asynq.db is damaged ({error}): put a copy of the data directory in its place, or name another one"
            )),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The log's index is a file as well; that it cannot grow is told in other words.
fn is_full(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error();
    code.is_some_and(|error| error.code == ErrorCode::DiskFull || error.extended_code == SQLITE_IOERR_SHMSIZE)
}

/// The largest place in the order: twice as much must fit into a key of `blobs`.
const MAX_SEQ: u64 = i64::MAX as u64 / 2 - 1;

pub(super) fn seq_to_sql(seq: Seq) -> Result<i64, StoreError> {
    if seq.0 > MAX_SEQ {
        return Err(StoreError::Failed(format!(
            "place {} in the order is beyond {MAX_SEQ}",
            seq.0
        )));
    }
    Ok(seq.0.cast_signed())
}

pub(super) fn seq_from_sql(seq: i64) -> Seq {
    Seq(seq.cast_unsigned())
}

/// Never later than SQLite can hold: 292,000 years.
pub(super) fn time_to_sql(at: Timestamp) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn time_from_sql(at: i64) -> Timestamp {
    Timestamp::from_micros(u64::try_from(at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi::{self, SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE};

    use super::*;

    #[test]
    fn only_a_lack_of_space_is_a_full_disk() {
        let told = |code| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for full in [SQLITE_FULL, SQLITE_IOERR_SHMSIZE] {
            assert!(matches!(told(full), StoreError::Full(_)), "{full}");
        }
        for other in [SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE] {
            assert!(matches!(told(other), StoreError::Failed(_)), "{other}");
        }
    }
}
