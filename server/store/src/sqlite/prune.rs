//! Drops what is past its time: a sweep through the tasks, block after block of
//! the index, that begins again at the end and skips blocks where nothing is due.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};

use asynq_core::{Epoch, Seq, TaskId, Timestamp};
use rusqlite::{Connection, Transaction, params};

use super::begin::begin;
use super::error::{seq_from_sql, seq_to_sql, time_from_sql};
use super::open::{blob, damaged, earliest, name_counts, read_meta};
use super::schema::{DELETE_BLOBS, DELETE_KEYS, DELETE_TASKS, payload_key, result_key};
use crate::index::{Index, block_of};
use crate::limits::{SWEEP_RECORDS, VACUUM_PAGES};
use crate::{Pruned, StoreError, codec, state};

/// Where the sweep is.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sweep {
    /// The first place of the first block not begun.
    next: Seq,
    /// The rest of the block begun last: its first and last place.
    rest: Option<(Seq, Seq)>,
}

impl Sweep {
    /// As [`Store::prune`](crate::Store::prune): transactions of at most
    /// [`SWEEP_RECORDS`]. What was done before an error is in `pruned` as well.
    pub(super) fn run(
        &mut self,
        connection: &mut Connection,
        index: &RwLock<Index>,
        epoch: Epoch,
        now: Timestamp,
        budget: usize,
        pruned: &mut Pruned,
    ) -> Result<(), StoreError> {
        let mut left = budget;
        while left > 0 && !pruned.complete {
            let transaction = begin(connection)?;
            read_meta(&transaction)?.owned_by(epoch)?;

            let mut sweep = *self;
            let mut found = Found::default();
            let complete = sweep.look(&transaction, index, now, left.min(SWEEP_RECORDS), &mut found)?;
            let mut forgotten = BTreeMap::new();
            if !found.gone.is_empty() || !found.results.is_empty() {
                found.drop_from(&transaction)?;
                forgotten = name_counts(&transaction, &found.counts)?;
                transaction.commit()?;
            }
            // From here on it has happened.
            *self = sweep;
            pruned.complete = complete;
            for (key, count) in forgotten {
                *pruned.forgotten.entry(key).or_default() += count;
            }
            left -= found.looked_at;
            pruned.results += found.results.len() as u64;
            found.tell(&mut index.write().unwrap_or_else(PoisonError::into_inner));
        }
        if pruned.complete {
            self.next = Seq(0);
        }
        Ok(())
    }

    /// Looks at up to `limit` records; whether that was the last of them.
    fn look(
        &mut self,
        transaction: &Transaction<'_>,
        index: &RwLock<Index>,
        now: Timestamp,
        limit: usize,
        found: &mut Found,
    ) -> Result<bool, StoreError> {
        while found.looked_at < limit {
            let (first, last) = if let Some(rest) = self.rest.take() {
                rest
            } else {
                let index = index.read().unwrap_or_else(PoisonError::into_inner);
                let Some(block) = index.next_due(self.next, now) else {
                    return Ok(true);
                };
                found.begun.push(block.0);
                self.next = Seq(block.1.0 + 1);
                block
            };
            let seen = found.look(transaction, first, last, now, limit)?;
            if found.looked_at == limit && seen < last {
                self.rest = Some((Seq(seen.0 + 1), last));
            }
        }
        Ok(false)
    }
}

/// What one transaction comes across.
#[derive(Debug, Default)]
struct Found {
    looked_at: usize,
    /// First places of blocks looked at from their beginning.
    begun: Vec<Seq>,
    /// To be forgotten, ascending.
    gone: Vec<(Seq, TaskId)>,
    /// What they count as: number of their queue and state.
    counts: HashMap<(i64, u8), u64>,
    /// Results to be dropped, ascending, and whether they are in `blobs`.
    results: Vec<(Seq, bool)>,
    /// When something of those that stay is due next.
    due: Vec<(Seq, Timestamp)>,
}

impl Found {
    /// Looks at records in a stretch of places while `looked_at` is below
    /// `limit`; the last place seen.
    fn look(
        &mut self,
        transaction: &Transaction<'_>,
        first: Seq,
        last: Seq,
        now: Timestamp,
        limit: usize,
    ) -> Result<Seq, StoreError> {
        let mut select = transaction.prepare_cached(
            "SELECT seq, state, queue, drop_result_at, forget_at, result IS NULL, record
             FROM tasks WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3",
        )?;
        let room = i64::try_from(limit - self.looked_at).unwrap_or(i64::MAX);
        let mut rows = select.query(params![seq_to_sql(first)?, seq_to_sql(last)?, room])?;
        let mut seen = first;
        while let Some(row) = rows.next()? {
            self.looked_at += 1;
            seen = seq_from_sql(row.get(0)?);
            let (drop_result_at, forget_at): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
            let is_past = |at: Option<i64>| at.is_some_and(|at| time_from_sql(at) <= now);
            if is_past(forget_at) {
                let head = codec::head(blob(row, 6)?).map_err(|e| damaged(seen, e))?;
                self.gone.push((seen, TaskId(head.id)));
                let state = row.get(1)?;
                if state != state::PURGED {
                    *self.counts.entry((row.get(2)?, state)).or_default() += 1;
                }
                continue;
            }
            let dropped = is_past(drop_result_at);
            if dropped {
                self.results.push((seen, row.get(5)?));
            }
            if let Some(due) = earliest(drop_result_at.filter(|_| !dropped), forget_at) {
                self.due.push((seen, due));
            }
        }
        Ok(seen)
    }

    /// Drops it: tasks that follow one another in one statement.
    fn drop_from(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let mut delete = transaction.prepare_cached(DELETE_TASKS)?;
        let mut delete_keys = transaction.prepare_cached(DELETE_KEYS)?;
        let mut delete_blobs = transaction.prepare_cached(DELETE_BLOBS)?;
        for run in self.gone.chunk_by(|a, b| b.0.0 == a.0.0 + 1) {
            let (first, last) = (seq_to_sql(run[0].0)?, seq_to_sql(run[run.len() - 1].0)?);
            delete.execute([first, last])?;
            delete_keys.execute([first, last])?;
            delete_blobs.execute([payload_key(first), result_key(last)])?;
        }
        let mut clear = transaction
            .prepare_cached("UPDATE tasks SET result = NULL, drop_result_at = NULL WHERE seq BETWEEN ?1 AND ?2")?;
        for run in self.results.chunk_by(|a, b| b.0.0 == a.0.0 + 1) {
            clear.execute([seq_to_sql(run[0].0)?, seq_to_sql(run[run.len() - 1].0)?])?;
            for (seq, _) in run.iter().filter(|(_, in_blobs)| *in_blobs) {
                let key = result_key(seq_to_sql(*seq)?);
                delete_blobs.execute([key, key])?;
            }
        }
        Ok(())
    }

    /// Tells the index what was dropped, and when to look again.
    fn tell(&self, index: &mut Index) {
        for &block in &self.begun {
            index.clear_due(block);
        }
        for &(seq, at) in &self.due {
            index.due(seq, at);
        }
        for block in self.gone.chunk_by(|a, b| block_of(a.0) == block_of(b.0)) {
            index.remove(block);
        }
    }
}

/// Gives free pages back to the file system, a few at a time; so many are kept for
/// use again.
pub(super) fn shrink(connection: &mut Connection, free_pages: u64) -> Result<(), StoreError> {
    let free: i64 = connection
        .prepare_cached("PRAGMA freelist_count")?
        .query_row((), |row| row.get(0))?;
    if free.cast_unsigned() <= free_pages {
        return Ok(());
    }
    let transaction = begin(connection)?;
    {
        // Frees one page per step.
        let mut vacuum = transaction.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query(())?;
        while rows.next()?.is_some() {}
    }
    Ok(transaction.commit()?)
}
