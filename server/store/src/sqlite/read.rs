//! Reads for other threads, each over its own connection.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use asynq_core::{Key, Name, Payload, Seq, TaskId, TaskRecord};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::error::{seq_from_sql, seq_to_sql};
use super::list;
use super::open::{blob, damaged};
use super::schema::{payload_key, result_key};
use crate::codec::{self, Decoder};
use crate::index::Index;
use crate::limits::{BUSY_TIMEOUT, READER_CACHE_BYTES};
use crate::{Listed, Query, Reader, StoreError};

/// Reads the shard. Every call sees all batches committed before it.
#[derive(Debug)]
pub(super) struct SqliteReader {
    connection: Connection,
    index: Arc<RwLock<Index>>,
    decoder: Decoder,
}

impl SqliteReader {
    pub(super) fn connect(file: &Path, index: Arc<RwLock<Index>>) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute_batch(&format!("PRAGMA cache_size = -{}", READER_CACHE_BYTES / 1024))?;
        Ok(Self {
            connection,
            index,
            decoder: Decoder::default(),
        })
    }
}

impl Reader for SqliteReader {
    fn payloads(&mut self, tasks: &[Seq]) -> Result<Vec<Option<Payload>>, StoreError> {
        // One snapshot, so one lock for all of them.
        let snapshot = self.connection.transaction()?;
        let mut select = snapshot.prepare_cached("SELECT record, payload FROM tasks WHERE seq = ?1")?;
        let mut payloads = Vec::with_capacity(tasks.len());
        for &seq in tasks {
            let key = seq_to_sql(seq)?;
            let mut rows = select.query([key])?;
            let Some(row) = rows.next()? else {
                payloads.push(None);
                continue;
            };
            let inline = row
                .get_ref(1)?
                .as_blob_or_null()
                .map_err(|e| StoreError::Failed(e.to_string()))?;
            let data = match inline {
                Some(data) => Some(Bytes::copy_from_slice(data)),
                None => read_blob(&snapshot, payload_key(key))?,
            };
            payloads.push(match data {
                Some(data) => {
                    let content_type = codec::payload_type(blob(row, 0)?).map_err(|e| damaged(seq, e))?;
                    Some(Payload { content_type, data })
                }
                None => None,
            });
        }
        Ok(payloads)
    }

    fn task(&mut self, id: TaskId) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        let candidates = self.index.read().unwrap_or_else(PoisonError::into_inner).candidates(id);
        if candidates.is_empty() {
            return Ok(None);
        }
        let mut select = self
            .connection
            .prepare_cached("SELECT record FROM tasks WHERE seq = ?1")?;
        for seq in candidates {
            let mut rows = select.query([seq_to_sql(seq)?])?;
            // A sweep may have been faster.
            let Some(row) = rows.next()? else { continue };
            let record = blob(row, 0)?;
            if codec::head(record).map_err(|e| damaged(seq, e))?.id == id.0 {
                return Ok(Some((seq, self.decoder.task(record).map_err(|e| damaged(seq, e))?)));
            }
        }
        Ok(None)
    }

    fn keyed(&mut self, queue: &Name, key: &Key) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        let mut select = self.connection.prepare_cached(
            "SELECT seq, record FROM tasks WHERE seq =
             (SELECT seq FROM keys WHERE queue = (SELECT id FROM queues WHERE name = ?1) AND key = ?2)",
        )?;
        let mut rows = select.query([queue.as_str(), key.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let seq = seq_from_sql(row.get(0)?);
        let record = self.decoder.task(blob(row, 1)?).map_err(|e| damaged(seq, e))?;
        Ok(Some((seq, record)))
    }

    fn result(&mut self, task: Seq) -> Result<Option<Payload>, StoreError> {
        let key = seq_to_sql(task)?;
        let snapshot = self.connection.transaction()?;
        let mut select = snapshot
            .prepare_cached("SELECT record, result FROM tasks WHERE seq = ?1 AND drop_result_at IS NOT NULL")?;
        let mut rows = select.query([key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let content_type = codec::result_type(blob(row, 0)?).map_err(|e| damaged(task, e))?;
        let inline = row
            .get_ref(1)?
            .as_blob_or_null()
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        let data = match inline {
            Some(data) => Some(Bytes::copy_from_slice(data)),
            None => read_blob(&snapshot, result_key(key))?,
        };
        Ok(data.map(|data| Payload { content_type, data }))
    }

    fn tasks(&mut self, query: &Query) -> Result<Listed, StoreError> {
        list::tasks(&self.connection, &mut self.decoder, query)
    }
}

fn read_blob(connection: &Connection, key: i64) -> Result<Option<Bytes>, StoreError> {
    let mut select = connection.prepare_cached("SELECT data FROM blobs WHERE key = ?1")?;
    let data: Option<Vec<u8>> = select.query_row([key], |row| row.get(0)).optional()?;
    Ok(data.map(Bytes::from))
}
