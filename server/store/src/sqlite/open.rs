//! Opens the database: checks that it is ours, takes it over, reads it once.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use asynq_core::{Epoch, Name, Seq, StateName, TaskId, TaskRecord, Timestamp};
use rusqlite::Connection;

use super::begin::begin;
use super::error::{seq_from_sql, time_from_sql, time_to_sql};
use super::schema::{APPLICATION_ID, EPOCHS_AS_TIMES, KEYS, QUEUE_SETTINGS, TABLES, VERSION};
use crate::codec::{self, Decoder};
use crate::index::Index;
use crate::limits::{BUSY_TIMEOUT, NOTE_INTERVAL, PAGE_BYTES, STATEMENTS, WAL_FILE_BYTES, WRITER_CACHE_BYTES};
use crate::{Belief, Opened, StoreError, state};

/// The writing connection. What is not ours is refused before anything is changed in it.
pub(super) fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open(file).map_err(|e| StoreError::Failed(format!("cannot open {}: {e}", file.display())))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    is_empty(&connection, file)?;
    // The first two only matter to a database without tables. Foreign keys: the
    // core's order of changes is the only rule there is. Temporary store: what undoes
    // a statement of many rows is never a file elsewhere, whose disk may be full.
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES};
         PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {WAL_FILE_BYTES};
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{};",
        WRITER_CACHE_BYTES / 1024
    ))?;
    let mode: String = connection.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!(
            "{} cannot have a write-ahead log: put the data directory on a local file system",
            file.display()
        )));
    }
    Ok(connection)
}

/// Makes the tables in an empty database, and what is missing in an older one.
pub(super) fn create(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let transaction = begin(connection)?;
    if is_empty(&transaction, file)? {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(KEYS)?;
        transaction.execute_batch(QUEUE_SETTINGS)?;
        transaction.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}"))?;
    } else {
        let version = read_meta(&transaction)?.version;
        if version == 1 {
            transaction.execute_batch(KEYS)?;
        }
        if version < 3 {
            transaction.execute_batch(EPOCHS_AS_TIMES)?;
            transaction.execute_batch(QUEUE_SETTINGS)?;
        }
        transaction.execute("UPDATE meta SET version = ?1", [VERSION])?;
    }
    Ok(transaction.commit()?)
}

/// Whether a database has yet to be made; one that is not, is checked to be one of ours.
fn is_empty(connection: &Connection, file: &Path) -> Result<bool, StoreError> {
    let application: i64 = connection.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if tables == 0 && application == 0 {
        return Ok(true);
    }
    let file = file.display();
    if application != APPLICATION_ID {
        return Err(StoreError::Incompatible(format!(
            "{file} belongs to another program: move it away, or name another data directory"
        )));
    }
    let version = read_meta(connection)?.version;
    if !(1..=VERSION).contains(&version) {
        return Err(StoreError::Incompatible(format!(
            "{file} has schema version {version}, this asynqd knows {VERSION}: \
             start the asynqd that wrote it, or name another data directory"
        )));
    }
    Ok(false)
}

/// The row of `meta`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) version: i64,
    pub(super) epoch: Epoch,
    pub(super) last_batch: u64,
    pub(super) next_seq: Seq,
    pub(super) latest: Timestamp,
}

impl Meta {
    pub(super) fn owned_by(&self, held: Epoch) -> Result<(), StoreError> {
        if self.epoch == held {
            Ok(())
        } else {
            Err(StoreError::Deposed {
                stored: self.epoch,
                held,
            })
        }
    }
}

pub(super) fn read_meta(connection: &Connection) -> Result<Meta, StoreError> {
    let mut select = connection.prepare_cached("SELECT version, epoch, last_batch, next_seq, latest FROM meta")?;
    let meta = select.query_row((), |row| {
        Ok(Meta {
            version: row.get(0)?,
            epoch: Epoch(row.get::<_, i64>(1)?.cast_unsigned()),
            last_batch: row.get::<_, i64>(2)?.cast_unsigned(),
            next_seq: seq_from_sql(row.get(3)?),
            latest: time_from_sql(row.get(4)?),
        })
    })?;
    Ok(meta)
}

/// Writes a new epoch, so that older owners' commits fail, before anything is read.
/// Returns it and what was there before.
/// Notes the time as well, as far as it is believed.
pub(super) fn take_over(
    connection: &mut Connection,
    now: Timestamp,
    clock: Belief,
) -> Result<(Epoch, Meta), StoreError> {
    let transaction = begin(connection)?;
    let before = read_meta(&transaction)?;
    let epoch = Epoch(now.as_micros().max(before.epoch.0 + 1));
    let latest = match clock {
        Belief::Believed => before.latest.max(now),
        Belief::Doubted => before.latest,
        Belief::Trusted => now,
    };
    transaction.execute(
        "UPDATE meta SET epoch = ?1, latest = ?2",
        [epoch.0.cast_signed(), time_to_sql(latest)],
    )?;
    transaction.commit()?;
    Ok((epoch, before))
}

/// Notes a time at which the owner was there and nothing happened.
pub(super) fn note_time(connection: &mut Connection, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
    if now <= read_meta(connection)?.latest + NOTE_INTERVAL {
        return Ok(());
    }
    let transaction = begin(connection)?;
    read_meta(&transaction)?.owned_by(epoch)?;
    transaction.execute("UPDATE meta SET latest = max(latest, ?1)", [time_to_sql(now)])?;
    Ok(transaction.commit()?)
}

/// Reads every task once: the live ones whole, of the others what the index needs.
pub(super) fn scan(
    connection: &mut Connection,
    (epoch, before): (Epoch, Meta),
    live: &mut dyn FnMut(Seq, TaskRecord),
) -> Result<(Opened, Index), StoreError> {
    let snapshot = connection.transaction()?;
    let meta = read_meta(&snapshot)?;
    meta.owned_by(epoch)?;
    let mut decoder = Decoder::default();

    let mut select = snapshot.prepare("SELECT record FROM sessions ORDER BY id")?;
    let mut rows = select.query(())?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(decoder.session(blob(row, 0)?)?);
    }

    let mut select = snapshot.prepare("SELECT name, record FROM queue_settings")?;
    let mut rows = select.query(())?;
    let mut queues = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let name =
            Name::new(&name).map_err(|e| StoreError::Failed(format!("settings of queue {name}: its name {e}")))?;
        queues.insert(name, codec::queue(blob(row, 1)?)?);
    }

    let mut index = Index::default();
    let mut finished: HashMap<(i64, u8), u64> = HashMap::new();
    let mut select =
        snapshot.prepare("SELECT seq, state, queue, drop_result_at, forget_at, record FROM tasks ORDER BY seq")?;
    let mut rows = select.query(())?;
    while let Some(row) = rows.next()? {
        let seq = seq_from_sql(row.get(0)?);
        let state: u8 = row.get(1)?;
        let record = blob(row, 5)?;
        let head = codec::head(record).map_err(|e| damaged(seq, e))?;
        index.insert(seq, TaskId(head.id), head.at);
        if state < state::ENDED {
            live(seq, decoder.task(record).map_err(|e| damaged(seq, e))?);
            continue;
        }
        if state != state::PURGED {
            *finished.entry((row.get(2)?, state)).or_default() += 1;
        }
        if let Some(due) = earliest(row.get(3)?, row.get(4)?) {
            index.due(seq, due);
        }
    }

    let opened = Opened {
        epoch,
        previous: before.epoch,
        last_batch: meta.last_batch,
        next_seq: meta.next_seq,
        sessions,
        finished: name_counts(&snapshot, &finished)?,
        queues,
        latest: before.latest,
    };
    Ok((opened, index))
}

/// Counts by queue and state, from their numbers to their names.
pub(super) fn name_counts(
    connection: &Connection,
    counts: &HashMap<(i64, u8), u64>,
) -> Result<BTreeMap<(Name, StateName), u64>, StoreError> {
    let mut select = connection.prepare_cached("SELECT name FROM queues WHERE id = ?1")?;
    let mut named = BTreeMap::new();
    for (&(queue, state), &count) in counts {
        let name: String = select.query_row([queue], |row| row.get(0))?;
        let name = Name::or_empty(&name).map_err(|e| StoreError::Failed(format!("queue {queue}: its name {e}")))?;
        let state = state::name(state).ok_or_else(|| StoreError::Failed(format!("a task has state {state}")))?;
        named.insert((name, state), count);
    }
    Ok(named)
}

/// The bytes of a column, where they are.
pub(super) fn blob<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Result<&'a [u8], StoreError> {
    row.get_ref(column)?
        .as_blob()
        .map_err(|e| StoreError::Failed(e.to_string()))
}

/// When the first of what a finished task still has may go.
pub(super) fn earliest(drop_result_at: Option<i64>, forget_at: Option<i64>) -> Option<Timestamp> {
    [drop_result_at, forget_at]
        .into_iter()
        .flatten()
        .min()
        .map(time_from_sql)
}

/// Says which record is damaged.
pub(super) fn damaged(seq: Seq, error: codec::CodecError) -> StoreError {
    match StoreError::from(error) {
        StoreError::Failed(what) => StoreError::Failed(format!("task {}: {what}", seq.0)),
        other => other,
    }
}
