//! Writes batches.

use std::collections::BTreeMap;

use asynq_core::{Change, Epoch, Name, Payload, QueueSettings, Seq, TaskRecord, Timestamp};
use rusqlite::{Connection, Transaction, params};

use super::begin::begin;
use super::error::{seq_from_sql, seq_to_sql, time_to_sql};
use super::fold::{End, Fold, Row, is_dead, result_until};
use super::open::read_meta;
use super::rows::{Rows, Values};
use super::schema::{DELETE_BLOBS, payload_key, result_key};
use crate::batch::Summary;
use crate::codec::Encoder;
use crate::index::Index;
use crate::limits::INLINE_BYTES;
use crate::state;
use crate::{Belief, StoreError};

/// What is kept from batch to batch.
#[derive(Debug)]
pub(super) struct Writer {
    encoder: Encoder,
    /// `queues`, as far as needed. Emptied when a batch is not written.
    queues: BTreeMap<Name, i64>,
    /// Of tasks that have not ended: what they have no value for is not bound.
    insert: Rows,
    whole: Rows,
    end: Rows,
}

/// A row, column by column.
struct Columns<'a> {
    seq: i64,
    queue: i64,
    drop_result_at: Option<i64>,
    forget_at: Option<i64>,
    record: &'a TaskRecord,
    payload: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
}

impl Columns<'_> {
    fn push(&self, record: &[u8], values: &mut Values<'_, '_>) -> rusqlite::Result<()> {
        values.push(self.seq)?;
        values.push(state::code(self.record.state.name()))?;
        values.push(self.queue)?;
        values.push(self.drop_result_at)?;
        values.push(self.forget_at)?;
        values.push(record)?;
        values.push(self.payload)?;
        values.push(self.result)
    }

    /// [`Columns::push`] of a task that has not ended.
    fn push_new(&self, record: &[u8], values: &mut Values<'_, '_>) -> rusqlite::Result<()> {
        values.push(self.seq)?;
        values.push(state::code(self.record.state.name()))?;
        values.push(self.queue)?;
        values.push(record)?;
        values.push(self.payload)
    }

    fn has_ended(&self) -> bool {
        self.forget_at.is_some()
    }

    /// Bytes by which the row of a task that has ended is larger than it was when
    /// the task came in, beside its record.
    fn grown(&self) -> isize {
        let times = 8 * (1 + isize::from(self.drop_result_at.is_some()));
        let payload = usize::try_from(self.record.payload_bytes)
            .ok()
            .filter(|&bytes| bytes <= INLINE_BYTES);
        times + column_bytes(self.result.map(<[u8]>::len)) - column_bytes(payload)
    }
}

/// Bytes of a column that holds so many, with those that tell how many
/// (<https://sqlite.org/fileformat2.html#record_format>).
fn column_bytes(data: Option<usize>) -> isize {
    const ONE_BYTE_HEADER: usize = 57;
    data.map_or(1, |bytes| {
        bytes.cast_signed() + if bytes <= ONE_BYTE_HEADER { 1 } else { 2 }
    })
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            encoder: Encoder::default(),
            queues: BTreeMap::new(),
            // All columns in their order: SQLite need not move them.
            insert: Rows::new("INSERT INTO tasks", "(?, ?, ?, NULL, NULL, ?, ?, NULL)"),
            whole: Rows::new("INSERT INTO tasks", "(?, ?, ?, ?, ?, ?, ?, ?)"),
            end: Rows::new("INSERT OR REPLACE INTO tasks", "(?, ?, ?, ?, ?, ?, ?, ?)"),
        }
    }
}

impl Writer {
    /// One transaction for all of it. `index` knows the tasks of the batches before.
    pub(super) fn commit(
        &mut self,
        connection: &mut Connection,
        index: &Index,
        epoch: Epoch,
        batch: u64,
        changes: &[Change],
        clock: Belief,
    ) -> Result<(), StoreError> {
        let result = begin(connection).and_then(|transaction| {
            follow_on(&transaction, epoch, batch, Summary::of(changes, clock))?;
            let Fold { new, rest } = Fold::of(changes);
            self.insert(&transaction, new)?;
            self.change(&transaction, index, rest)?;
            Ok(transaction.commit()?)
        });
        if result.is_err() {
            self.queues.clear();
        }
        result
    }

    fn insert(&mut self, transaction: &Transaction<'_>, new: Vec<Row<'_>>) -> Result<(), StoreError> {
        let rows = new.into_iter().map(|row| self.columns(transaction, row));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        for row in &rows {
            if let Some(key) = &row.record.options.key {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO keys (seq, queue, key) VALUES (?1, ?2, ?3)")?
                    .execute(params![row.seq, row.queue, key.as_str()])?;
            }
        }
        let encoder = &mut self.encoder;
        // In the order of the rows, so that they are appended.
        for rows in rows.chunk_by(|a, b| a.has_ended() == b.has_ended()) {
            if rows[0].has_ended() {
                self.whole.write(transaction, rows, |row, values| {
                    row.push(encoder.task(row.record), values)
                })?;
            } else {
                self.insert.write(transaction, rows, |row, values| {
                    row.push_new(encoder.new_task(row.record), values)
                })?;
            }
        }
        Ok(())
    }

    /// What was there before.
    fn change(
        &mut self,
        transaction: &Transaction<'_>,
        index: &Index,
        changes: Vec<&Change>,
    ) -> Result<(), StoreError> {
        let mut ended = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Insert { .. } => {}
                Change::Update { seq, record } => self.update(transaction, *seq, record)?,
                Change::Finish {
                    seq,
                    record,
                    result,
                    forget_at,
                } => {
                    let is_dead = is_dead(record);
                    if !is_dead && record.payload_bytes > INLINE_BYTES as u64 {
                        transaction
                            .prepare_cached("DELETE FROM blobs WHERE key = ?1")?
                            .execute([payload_key(seq_to_sql(*seq)?)])?;
                    }
                    let end = End {
                        result: result.as_ref(),
                        forget_at: *forget_at,
                    };
                    let row = self.columns(transaction, Row::ended(*seq, record, end))?;
                    // A row to be replaced must be known to be there.
                    if is_dead || !index.holds(*seq) {
                        self.finish(transaction, &row, is_dead)?;
                    } else {
                        ended.push(row);
                    }
                }
                Change::Purge { seq, record, forget_at } => self.purge(transaction, *seq, record, *forget_at)?,
                Change::QueueSet { queue, settings } if *settings == QueueSettings::default() => {
                    transaction
                        .prepare_cached("DELETE FROM queue_settings WHERE name = ?1")?
                        .execute([queue.as_str()])?;
                }
                Change::QueueSet { queue, settings } => {
                    let mut put =
                        transaction.prepare_cached("INSERT OR REPLACE INTO queue_settings VALUES (?1, ?2)")?;
                    put.execute(params![queue.as_str(), self.encoder.queue(*settings)])?;
                }
                Change::SessionOpened(session) => {
                    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2)")?;
                    put.execute(params![session.id.0, self.encoder.session(session)])?;
                }
                Change::SessionClosed(id) => {
                    transaction
                        .prepare_cached("DELETE FROM sessions WHERE id = ?1")?
                        .execute([id.0])?;
                }
            }
        }
        // After all others: such an end is the last there is of a task. In the order of the rows.
        ended.sort_by_key(|row| row.seq);
        let encoder = &mut self.encoder;
        self.end.write(transaction, &ended, |row, values| {
            row.push(encoder.ended_task(row.record, row.grown()), values)
        })?;
        Ok(())
    }

    /// The columns of a row. Values too large to stand in it are written beside it.
    fn columns<'a>(&mut self, transaction: &Transaction<'_>, row: Row<'a>) -> Result<Columns<'a>, StoreError> {
        let Row {
            seq,
            record,
            payload,
            end,
        } = row;
        let seq = seq_to_sql(seq)?;
        let inline = |key, value: Option<&'a Payload>| match value {
            Some(value) => inline_or_put(transaction, key, value),
            None => Ok(None),
        };
        Ok(Columns {
            seq,
            queue: self.queue(transaction, &record.queue)?,
            drop_result_at: end.as_ref().and_then(|end| end.drop_result_at(record)).map(time_to_sql),
            forget_at: end.as_ref().map(|end| time_to_sql(end.forget_at)),
            record,
            payload: inline(payload_key(seq), payload)?,
            result: inline(result_key(seq), end.and_then(|end| end.result))?,
        })
    }

    fn update(&mut self, transaction: &Transaction<'_>, seq: Seq, record: &TaskRecord) -> Result<(), StoreError> {
        // It may be a dead task's second life, so nothing of its end stays.
        let rows = transaction
            .prepare_cached(
                "UPDATE tasks SET state = ?2, record = ?3, drop_result_at = NULL, forget_at = NULL, result = NULL
                 WHERE seq = ?1",
            )?
            .execute(params![
                seq_to_sql(seq)?,
                state::code(record.state.name()),
                self.encoder.task(record)
            ])?;
        changed_one(seq, rows)
    }

    fn finish(
        &mut self,
        transaction: &Transaction<'_>,
        row: &Columns<'_>,
        keep_payload: bool,
    ) -> Result<(), StoreError> {
        let rows = transaction
            .prepare_cached(
                "UPDATE tasks SET state = ?2, record = ?3, drop_result_at = ?4, forget_at = ?5, result = ?6,
                 payload = iif(?7, payload, NULL) WHERE seq = ?1",
            )?
            .execute(params![
                row.seq,
                state::code(row.record.state.name()),
                self.encoder.task(row.record),
                row.drop_result_at,
                row.forget_at,
                row.result,
                keep_payload
            ])?;
        changed_one(seq_from_sql(row.seq), rows)
    }

    /// Drops what a task holds but for a bare record.
    fn purge(
        &mut self,
        transaction: &Transaction<'_>,
        seq: Seq,
        record: &TaskRecord,
        forget_at: Timestamp,
    ) -> Result<(), StoreError> {
        let key = seq_to_sql(seq)?;
        let rows = transaction
            .prepare_cached(
                "UPDATE tasks SET state = ?2, record = ?3, forget_at = ?4, drop_result_at = NULL,
                 payload = NULL, result = NULL WHERE seq = ?1",
            )?
            .execute(params![
                key,
                state::PURGED,
                self.encoder.task(record),
                time_to_sql(forget_at)
            ])?;
        transaction
            .prepare_cached(DELETE_BLOBS)?
            .execute([payload_key(key), result_key(key)])?;
        changed_one(seq, rows)
    }

    fn queue(&mut self, transaction: &Transaction<'_>, name: &Name) -> Result<i64, StoreError> {
        if let Some(&id) = self.queues.get(name) {
            return Ok(id);
        }
        // The update that changes nothing makes RETURNING answer for a queue already there.
        let upsert = "INSERT INTO queues (name) VALUES (?1)
                      ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id";
        let id = transaction
            .prepare_cached(upsert)?
            .query_row([name.as_str()], |row| row.get(0))?;
        self.queues.insert(name.clone(), id);
        Ok(id)
    }
}

/// Notes the batch, provided that it is the owner's and the next.
fn follow_on(
    transaction: &Transaction<'_>,
    epoch: Epoch,
    batch: u64,
    Summary { next_seq, latest }: Summary,
) -> Result<(), StoreError> {
    let noted = transaction
        .prepare_cached(
            "UPDATE meta SET last_batch = ?2, next_seq = max(next_seq, ?3), latest = max(latest, ?4)
             WHERE epoch = ?1 AND last_batch = ?2 - 1",
        )?
        .execute(params![
            epoch.0.cast_signed(),
            batch.cast_signed(),
            next_seq.0.cast_signed(),
            time_to_sql(latest)
        ])?;
    if noted == 1 {
        return Ok(());
    }
    let meta = read_meta(transaction)?;
    meta.owned_by(epoch)?;
    Err(StoreError::Failed(format!(
        "batch {batch} does not follow batch {}",
        meta.last_batch
    )))
}

/// The bytes, if they are to stand in the task's own row; others are written
/// beside it.
fn inline_or_put<'a>(
    transaction: &Transaction<'_>,
    key: i64,
    payload: &'a Payload,
) -> Result<Option<&'a [u8]>, StoreError> {
    let data = payload.data.as_ref();
    if data.len() <= INLINE_BYTES {
        return Ok(Some(data));
    }
    transaction
        .prepare_cached("INSERT OR REPLACE INTO blobs (key, data) VALUES (?1, ?2)")?
        .execute(params![key, data])?;
    Ok(None)
}

fn changed_one(seq: Seq, rows: usize) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Failed(format!("task {} is not there", seq.0)))
    }
}

/// Takes a batch that has been committed into the index.
pub(super) fn index_changes(index: &mut Index, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Insert { seq, record, .. } => index.insert(*seq, record.id, record.enqueued_at),
            Change::Finish {
                seq,
                record,
                result,
                forget_at,
            } => {
                let until = result.as_ref().and_then(|_| result_until(record));
                index.due(*seq, until.map_or(*forget_at, |until| until.min(*forget_at)));
            }
            Change::Purge { seq, forget_at, .. } => index.due(*seq, *forget_at),
            Change::Update { .. } | Change::QueueSet { .. } | Change::SessionOpened(_) | Change::SessionClosed(_) => {}
        }
    }
}
