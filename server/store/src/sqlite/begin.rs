//! Begins transactions that write. Another program, such as the `sqlite3` shell,
//! may hold the lock; as nothing has been written by then, trying again is safe.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::StoreError;
use crate::limits::BUSY_PATIENCE;

/// A transaction that has the right to write.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    begin_within(connection, BUSY_PATIENCE)
}

/// Each try waits as long as the connection's busy timeout, so that is how
/// often the log says what is waited for.
fn begin_within(connection: &mut Connection, patience: Duration) -> Result<Transaction<'_>, StoreError> {
    let connection = &*connection;
    let begun = Instant::now();
    loop {
        // The exclusive borrow above keeps a second transaction out.
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                let waited = begun.elapsed();
                if waited >= patience {
                    return Err(StoreError::Failed(format!(
                        "another program has held a lock on asynq.db for {} s ({e}): \
                         end it, and start the broker again",
                        waited.as_secs()
                    )));
                }
                tracing::warn!(
                    waited_s = waited.as_secs(),
                    "another program holds a lock on asynq.db: nothing can be written until it lets go"
                );
            }
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_never_given_back_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let connect = || Connection::open(dir.path().join("asynq.db")).expect("the database opens");
        let other = connect();
        other.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
        let mut own = connect();
        let tries = Duration::from_millis(1);
        own.busy_timeout(tries).expect("set");
        let error = begin_within(&mut own, 10 * tries)
            .expect_err("the lock is held")
            .to_string();
        assert!(error.contains("another program has held a lock"), "{error}");
        drop(other);
        begin_within(&mut own, Duration::ZERO).expect("the lock is free again");
    }
}
