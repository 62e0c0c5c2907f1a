//! Writes batches.

use std::collections::HashMap;

use asynq_core::{Change, Epoch, Name, Payload, Seq, State, TaskRecord, Timestamp};
use rusqlite::{CachedStatement, Connection, Transaction, params};

use super::begin::begin;
use super::error::{seq_to_sql, time_to_sql};
use super::open::read_meta;
use super::schema::{payload_key, result_key};
use crate::StoreError;
use crate::batch::Summary;
use crate::codec::Encoder;
use crate::index::Index;
use crate::limits::INLINE_BYTES;
use crate::state;

/// What is kept from batch to batch.
#[derive(Debug, Default)]
pub(super) struct Writer {
    encoder: Encoder,
    /// `queues`, as far as needed. Emptied when a batch is not written.
    queues: HashMap<Name, i64>,
}

impl Writer {
    /// One transaction for all of it.
    pub(super) fn commit(
        &mut self,
        connection: &mut Connection,
        epoch: Epoch,
        batch: u64,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let result = self.try_commit(connection, epoch, batch, changes);
        if result.is_err() {
            self.queues.clear();
        }
        result
    }

    fn try_commit(
        &mut self,
        connection: &mut Connection,
        epoch: Epoch,
        batch: u64,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let transaction = begin(connection)?;
        follow_on(&transaction, epoch, batch, Summary::of(changes))?;
        let mut statements = Statements::prepare(&transaction)?;
        for change in changes {
            self.write(&transaction, &mut statements, change)?;
        }
        drop(statements);
        transaction.commit()?;
        Ok(())
    }

    fn write(
        &mut self,
        transaction: &Transaction<'_>,
        statements: &mut Statements<'_>,
        change: &Change,
    ) -> Result<(), StoreError> {
        match change {
            Change::Insert { seq, record, payload } => {
                let seq = seq_to_sql(*seq)?;
                let queue = self.queue(transaction, &record.queue)?;
                let inline = inline(payload);
                if inline.is_none() {
                    statements
                        .put_blob
                        .execute(params![payload_key(seq), payload.data.as_ref()])?;
                }
                let state = state::code(record.state.name());
                statements
                    .insert
                    .execute(params![seq, state, queue, self.encoder.new_task(record), inline])?;
                Ok(())
            }
            Change::Update { seq, record } => {
                let state = state::code(record.state.name());
                let record = self.encoder.task(record);
                changed_one(
                    *seq,
                    statements.update.execute(params![seq_to_sql(*seq)?, state, record])?,
                )
            }
            Change::Finish {
                seq,
                record,
                result,
                forget_at,
            } => self.finish(statements, *seq, record, result.as_ref(), *forget_at),
            Change::SessionOpened(session) => {
                let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2)")?;
                put.execute(params![session.id.0, self.encoder.session(session)])?;
                Ok(())
            }
            Change::SessionClosed(id) => {
                transaction
                    .prepare_cached("DELETE FROM sessions WHERE id = ?1")?
                    .execute([id.0])?;
                Ok(())
            }
        }
    }

    fn finish(
        &mut self,
        statements: &mut Statements<'_>,
        seq: Seq,
        record: &TaskRecord,
        result: Option<&Payload>,
        forget_at: Timestamp,
    ) -> Result<(), StoreError> {
        let key = seq_to_sql(seq)?;
        let state = state::code(record.state.name());
        let inline = result.and_then(inline);
        if let (Some(result), None) = (result, inline) {
            statements
                .put_blob
                .execute(params![result_key(key), result.data.as_ref()])?;
        }
        let dead = state == state::DEAD;
        if !dead && record.payload_bytes > INLINE_BYTES as u64 {
            statements.delete_blob.execute([payload_key(key)])?;
        }
        let until = result.map(|_| time_to_sql(result_until(record).unwrap_or(forget_at)));
        let statement = if dead {
            &mut statements.bury
        } else {
            &mut statements.finish
        };
        let record = self.encoder.task(record);
        changed_one(
            seq,
            statement.execute(params![key, state, record, until, time_to_sql(forget_at), inline])?,
        )
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

/// Prepared once, fetched once per batch.
struct Statements<'a> {
    insert: CachedStatement<'a>,
    update: CachedStatement<'a>,
    finish: CachedStatement<'a>,
    bury: CachedStatement<'a>,
    put_blob: CachedStatement<'a>,
    delete_blob: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    fn prepare(transaction: &'a Transaction<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            insert: transaction
                .prepare_cached("INSERT INTO tasks (seq, state, queue, record, payload) VALUES (?1, ?2, ?3, ?4, ?5)")?,
            // It may be a dead task's second life, so nothing of its end stays.
            update: transaction.prepare_cached(
                "UPDATE tasks SET state = ?2, record = ?3, drop_result_at = NULL, forget_at = NULL, result = NULL
                 WHERE seq = ?1",
            )?,
            finish: transaction.prepare_cached(
                "UPDATE tasks SET state = ?2, record = ?3, drop_result_at = ?4, forget_at = ?5, payload = NULL,
                 result = ?6 WHERE seq = ?1",
            )?,
            bury: transaction.prepare_cached(
                "UPDATE tasks SET state = ?2, record = ?3, drop_result_at = ?4, forget_at = ?5, result = ?6
                 WHERE seq = ?1",
            )?,
            put_blob: transaction.prepare_cached("INSERT OR REPLACE INTO blobs (key, data) VALUES (?1, ?2)")?,
            delete_blob: transaction.prepare_cached("DELETE FROM blobs WHERE key = ?1")?,
        })
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

/// The bytes, if they are to stand in the task's own row.
fn inline(payload: &Payload) -> Option<&[u8]> {
    (payload.data.len() <= INLINE_BYTES).then_some(payload.data.as_ref())
}

fn changed_one(seq: Seq, rows: usize) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Failed(format!("task {} is not there", seq.0)))
    }
}

fn result_until(record: &TaskRecord) -> Option<Timestamp> {
    match &record.state {
        State::Finished(finish) => finish.result.as_ref().map(|result| result.until),
        _ => None,
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
            Change::Update { .. } | Change::SessionOpened(_) | Change::SessionClosed(_) => {}
        }
    }
}
