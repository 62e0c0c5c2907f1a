//! What is on disk, all of it. One database, `asynq.db`, with its write-ahead
//! log beside it (`asynq.db-wal`, `asynq.db-shm`: part of the data).
//!
//! A task is one row, found by its place in the order, packed, and finished in
//! place: two row writes in its life, no index on its id (see `index`). Rows are
//! written in the order of `seq`, so commits append and a sweep reads and frees
//! whole pages.

/// Version of what this file describes. A newer one is refused, an older one is
/// brought up to date at open.
pub(super) const VERSION: i64 = 3;

/// `PRAGMA application_id`: "asnq", so that no other program's database is taken over.
pub(super) const APPLICATION_ID: i64 = 0x6173_6e71;

/// The tables, but for [`KEYS`] and [`QUEUE_SETTINGS`].
///
/// Times are µs since the Unix epoch, cut at 2^63 − 1.
pub(super) const TABLES: &str = "
-- One row: who owns the shard and how far it is.
CREATE TABLE meta (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    version    INTEGER NOT NULL,  -- of the schema
    epoch      INTEGER NOT NULL,  -- of the latest owner
    last_batch INTEGER NOT NULL,  -- number of the last batch committed
    next_seq   INTEGER NOT NULL,  -- first place in the order never used
    latest     INTEGER NOT NULL   -- latest time, of those that were believed
);
INSERT INTO meta VALUES (1, 3, 0, 0, 1, 0);

-- Names of queues, for tasks.queue. Never deleted.
CREATE TABLE queues (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE tasks (
    seq            INTEGER PRIMARY KEY,  -- place in the order of acceptance
    state          INTEGER NOT NULL,     -- 1 scheduled 2 ready 3 running 4 stopping, ended: 16 succeeded 17 dead 18 cancelled 19 expired 20 purged
    queue          INTEGER NOT NULL,     -- queues.id
    drop_result_at INTEGER,              -- there is a result, until then
    forget_at      INTEGER,              -- ended, and remembered until then
    record         BLOB NOT NULL,        -- see codec; of a new task longer than need be, so that its end fits
    payload        BLOB,                 -- arguments; NULL: dropped, or in blobs
    result         BLOB                  -- NULL with drop_result_at: in blobs
);
CREATE INDEX dead_tasks ON tasks (queue) WHERE state = 17;

-- Arguments and results too large to be written again with each new record.
CREATE TABLE blobs (
    key  INTEGER PRIMARY KEY,  -- 2 * seq for arguments, 2 * seq + 1 for a result
    data BLOB NOT NULL
);

-- Worker sessions that have not ended.
CREATE TABLE sessions (
    id     BLOB PRIMARY KEY,
    record BLOB NOT NULL       -- see codec
) WITHOUT ROWID;
";

/// What version 1 had not.
pub(super) const KEYS: &str = "
-- Of tasks that came with a key: the last one with each. Goes with its task.
CREATE TABLE keys (
    seq   INTEGER PRIMARY KEY,  -- tasks.seq
    queue INTEGER NOT NULL,     -- queues.id
    key   TEXT NOT NULL
);
CREATE UNIQUE INDEX keys_by_key ON keys (queue, key);
";

/// What version 2 had not.
pub(super) const QUEUE_SETTINGS: &str = "
-- What queues were told to be: those that are not as by default.
CREATE TABLE queue_settings (
    name   TEXT PRIMARY KEY,
    record BLOB NOT NULL       -- see codec
) WITHOUT ROWID;
";

/// Up to version 2 an epoch was a time at which the shard had been open; now `latest`
/// has that of each open.
pub(super) const EPOCHS_AS_TIMES: &str = "UPDATE meta SET latest = max(latest, epoch)";

/// `blobs.key` of a task's arguments.
pub(super) const fn payload_key(seq: i64) -> i64 {
    2 * seq
}

/// `blobs.key` of a task's result.
pub(super) const fn result_key(seq: i64) -> i64 {
    2 * seq + 1
}

/// Drops the tasks of a stretch of places.
pub(super) const DELETE_TASKS: &str = "DELETE FROM tasks WHERE seq BETWEEN ?1 AND ?2";

/// Drops the keys of tasks of a stretch of places.
pub(super) const DELETE_KEYS: &str = "DELETE FROM keys WHERE seq BETWEEN ?1 AND ?2";

/// Drops the large values of a stretch of `blobs.key`.
pub(super) const DELETE_BLOBS: &str = "DELETE FROM blobs WHERE key BETWEEN ?1 AND ?2";
