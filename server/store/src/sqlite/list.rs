//! Listings: rows in descending order, of which as little is looked at as it
//! takes to pass over them.

use asynq_core::{Name, Seq, StateName, TaskFilter, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::seq_from_sql;
use super::open::{blob, damaged};
use crate::codec::{self, CodecError, Decoder};
use crate::listing::{Gather, Listed, Query};
use crate::{StoreError, state};

/// One statement, so one snapshot, which ends with it.
pub(super) fn tasks(connection: &Connection, decoder: &mut Decoder, query: &Query) -> Result<Listed, StoreError> {
    let Some(columns) = Columns::of(connection, &query.filter)? else {
        return Ok(Listed::default());
    };
    // Any place may be asked for. What is beyond the largest there can be, all are before.
    let before = query.before.and_then(|Seq(before)| i64::try_from(before).ok());
    let mut select =
        connection.prepare_cached("SELECT seq, state, queue, record FROM tasks WHERE seq < ?1 ORDER BY seq DESC")?;
    let mut rows = select.query([before.unwrap_or(i64::MAX)])?;
    let mut gather = Gather::new(query);
    while let Some(row) = rows.next()? {
        if !gather.may_look() {
            break;
        }
        let seq = seq_from_sql(row.get(0)?);
        let record = blob(row, 3)?;
        if is_too_old(&query.filter, record).map_err(|e| damaged(seq, e))? {
            break;
        }
        if !columns.fit(row)? || !labels_fit(&query.filter, record).map_err(|e| damaged(seq, e))? {
            gather.pass(seq);
            continue;
        }
        let record = decoder.task(record).map_err(|e| damaged(seq, e))?;
        if !gather.take(seq, record) {
            break;
        }
    }
    Ok(gather.finish())
}

fn is_too_old(filter: &TaskFilter, record: &[u8]) -> Result<bool, CodecError> {
    Ok(filter.since > Timestamp::ZERO && codec::head(record)?.at < filter.since)
}

fn labels_fit(filter: &TaskFilter, record: &[u8]) -> Result<bool, CodecError> {
    if filter.name.is_none() && filter.series.is_none() {
        return Ok(true);
    }
    let labels = codec::labels(record)?;
    let is = |wanted: &Option<Name>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted.as_str() == text);
    Ok(is(&filter.name, &labels.name) && is(&filter.series, &labels.series))
}

/// What the columns of a row must hold.
struct Columns {
    /// By number.
    states: [bool; 256],
    queue: Option<i64>,
}

impl Columns {
    /// `None` if no row can fit.
    fn of(connection: &Connection, filter: &TaskFilter) -> Result<Option<Self>, StoreError> {
        let mut states = [false; 256];
        for wanted in StateName::ALL.into_iter().filter(|&name| filter.states.contains(name)) {
            states[usize::from(state::code(wanted))] = true;
        }
        let queue = match &filter.queue {
            None => None,
            Some(name) => match queue_number(connection, name)? {
                None => return Ok(None),
                number => number,
            },
        };
        Ok(Some(Self { states, queue }))
    }

    fn fit(&self, row: &Row<'_>) -> Result<bool, StoreError> {
        let state: u8 = row.get(1)?;
        Ok(self.states[usize::from(state)]
            && match self.queue {
                Some(queue) => row.get::<_, i64>(2)? == queue,
                None => true,
            })
    }
}

fn queue_number(connection: &Connection, name: &Name) -> Result<Option<i64>, StoreError> {
    let mut select = connection.prepare_cached("SELECT id FROM queues WHERE name = ?1")?;
    Ok(select.query_row([name.as_str()], |row| row.get(0)).optional()?)
}
