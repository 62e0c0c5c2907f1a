//! Writes rows many at a time: most of what a statement costs is the same for
//! one row and for 64.

use rusqlite::{Connection, Statement, ToSql};

use crate::limits::STATEMENT_ROWS;

/// A statement that writes rows, for each number of rows it can be told at once.
#[derive(Debug)]
pub(super) struct Rows {
    sql: [String; STATEMENT_ROWS.len()],
}

impl Rows {
    /// `into` is what stands before `VALUES`, `row` the values of one row, with
    /// `?` for those that are bound.
    pub(super) fn new(into: &str, row: &str) -> Self {
        Self {
            sql: STATEMENT_ROWS.map(|rows| format!("{into} VALUES {}", vec![row; rows].join(","))),
        }
    }

    /// Writes one row for each of `rows`. `bind` gives the values to be bound,
    /// in their order.
    pub(super) fn write<R>(
        &self,
        connection: &Connection,
        mut rows: &[R],
        mut bind: impl FnMut(&R, &mut Values<'_, '_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        for (size, sql) in STATEMENT_ROWS.into_iter().zip(&self.sql) {
            let chunks = rows.chunks_exact(size);
            rows = chunks.remainder();
            if chunks.len() == 0 {
                continue;
            }
            let mut statement = connection.prepare_cached(sql)?;
            for chunk in chunks {
                let mut values = Values {
                    statement: &mut statement,
                    last: 0,
                };
                for row in chunk {
                    bind(row, &mut values)?;
                }
                statement.raw_execute()?;
            }
        }
        Ok(())
    }
}

/// Takes the values of a statement, one after the other.
pub(super) struct Values<'a, 'c> {
    statement: &'a mut Statement<'c>,
    last: usize,
}

impl Values<'_, '_> {
    /// SQLite copies the value.
    pub(super) fn push(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.last += 1;
        self.statement.raw_bind_parameter(self.last, value)
    }
}
