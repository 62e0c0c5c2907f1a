//! Every maximum of the stores, with its unit.

use std::time::Duration;

/// Bytes of arguments or a result kept beside the record. Larger ones have a
/// row of their own, so that a new record does not write them again.
pub const INLINE_BYTES: usize = 2 * 1024;
/// Tasks per block of the id index.
pub const BLOCK_TASKS: u64 = 1_024;
/// An id whose time is further than this from when its task was accepted is
/// kept exactly, so that it does not widen what its block may hold.
pub const ID_DRIFT: Duration = Duration::from_secs(60);
/// Records one transaction of a sweep looks at.
pub const SWEEP_RECORDS: usize = 16 * 1024;
/// Distinct names kept for sharing while records are decoded.
pub const SHARED_NAMES: usize = 64 * 1024;

/// Rows one statement writes: any number of rows is a sum of these. The last is 1.
pub const STATEMENT_ROWS: [usize; 4] = [64, 16, 4, 1];
/// Prepared statements the writer keeps; more than there are, so that none is made twice.
pub const STATEMENTS: usize = 48;
/// Bytes of a database page.
pub const PAGE_BYTES: u32 = 8 * 1024;
/// Bytes of database pages the writer caches.
pub const WRITER_CACHE_BYTES: u32 = 64 * 1024 * 1024;
/// Bytes of database pages each reader caches.
pub const READER_CACHE_BYTES: u32 = 8 * 1024 * 1024;
/// Pages of write-ahead log after which a commit is followed by a checkpoint (16 MiB).
pub const CHECKPOINT_PAGES: u32 = 2_048;
/// Pages of write-ahead log after which it is worth waiting for readers, to
/// begin the log anew (256 MiB).
pub const TRUNCATE_PAGES: u32 = 32_768;
/// Bytes of write-ahead log file kept for use again once it has been copied.
pub const WAL_FILE_BYTES: u32 = 64 * 1024 * 1024;
/// Bytes put by for a full disk: enough to copy a log of [`CHECKPOINT_PAGES`] and
/// to write as much again.
pub const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// The share of a small file system that is put by: one part of so many.
pub const RESERVE_SHARE: u64 = 8;
/// Free pages kept for use again before the file is made smaller (64 MiB).
pub const FREE_PAGES: u64 = 8_192;
/// Pages given back to the file system after one sweep.
pub const VACUUM_PAGES: u32 = 512;
/// How long one try waits for a lock another program holds on the database.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a transaction that writes is tried to be begun, before the store
/// has failed. Nobody is answered meanwhile; heartbeats are.
pub const BUSY_PATIENCE: Duration = Duration::from_secs(30);
/// A shard in which nothing happens notes the time that often.
pub const NOTE_INTERVAL: Duration = Duration::from_hours(1);
