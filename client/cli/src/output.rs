//! Everything that goes to stdout: results, JSON objects, aligned columns.

use std::io::{self, ErrorKind, Write};

use asynq_client::Payload;
use serde::Serialize;

use crate::{compact::compact, failure::Failure};

/// Writes bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::hung_up(),
            _ => Failure::new(1, "OUTPUT", format!("failed to write to stdout: {error}")),
        })
}

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a JSON object, or an array of them, on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value);
    line(&text.map_err(|error| Failure::new(1, "OUTPUT", format!("failed to write JSON: {error}")))?)
}

/// Writes a task's result: JSON as one compact line, anything else as it is.
pub(crate) fn result(payload: &Payload) -> Result<(), Failure> {
    if !payload.is_json() {
        return write(payload.data());
    }
    let compacted = str::from_utf8(payload.data()).ok().and_then(|text| compact(text).ok());
    // A worker may call JSON what is none. Its result is still its result.
    let mut bytes = compacted.unwrap_or_else(|| payload.data().to_vec());
    bytes.push(b'\n');
    write(&bytes)
}

/// Writes rows in columns, numbers to the right, the last column free. The first row is the head.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> Result<(), Failure> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let numeric = |column: usize| {
        let mut cells = rows.iter().skip(1).map(|row| row[column].as_str()).peekable();
        cells.peek().is_some()
            && cells.all(|cell| !cell.is_empty() && cell.bytes().all(|b| b.is_ascii_digit() || b == b'/'))
    };
    let layout: Vec<_> = (0..N)
        .map(|column| (width(column), column + 1 < N && numeric(column)))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&layout).map(|(cell, (width, numeric))| match numeric {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    write(text.as_bytes())
}
