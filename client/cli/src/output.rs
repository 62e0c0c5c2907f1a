//! Everything that goes to stdout: results, JSON objects, aligned columns.

use std::{
    future::ready,
    io::{self, ErrorKind, Write},
    pin::pin,
};

use asynq_client::Payload;
use serde::Serialize;
use tokio::io::{AsyncWriteExt, Interest, Stdout, unix::AsyncFd};

use crate::{compact::compact, failure::Failure, json, limits::OUTPUT_BUFFER};

/// Writes bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(unwritten)
}

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a JSON object, or an array of them, on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&json::text(value)?)
}

/// Writes a task's result: JSON as one compact line, anything else as it is.
pub(crate) fn result(payload: &Payload) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    render(payload, &mut bytes);
    write(&bytes)
}

fn render(payload: &Payload, out: &mut Vec<u8>) {
    if !payload.is_json() {
        return out.extend_from_slice(payload.data());
    }
    match str::from_utf8(payload.data()).ok().and_then(|text| compact(text).ok()) {
        Some(compacted) => out.extend(compacted),
        // A worker may call JSON what is none. Its result is still its result.
        None => out.extend_from_slice(payload.data()),
    }
    out.push(b'\n');
}

/// Many values on their way to stdout. Writing waits for a slow reader without
/// holding up the connection to the broker.
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// So much of it is on its way.
    written: usize,
    stdout: Stdout,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(OUTPUT_BUFFER),
            written: 0,
            stdout: tokio::io::stdout(),
        }
    }

    /// Awaits what is to be added next. If that is not at hand, writes first
    /// what has been added.
    pub(crate) async fn before<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Failure> {
        let mut next = pin!(next);
        if !self.buffer.is_empty() {
            tokio::select! {
                biased;
                value = &mut next => return Ok(value),
                () = ready(()) => self.flush().await?,
            }
        }
        Ok(next.await)
    }

    /// Whether all that was added has been written.
    pub(crate) const fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Adds a value as [`result`] would write it.
    pub(crate) async fn push(&mut self, payload: &Payload) -> Result<(), Failure> {
        render(payload, &mut self.buffer);
        self.keep_small().await
    }

    /// Adds a line.
    pub(crate) async fn push_line(&mut self, text: &str) -> Result<(), Failure> {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
        self.keep_small().await
    }

    async fn keep_small(&mut self) -> Result<(), Failure> {
        if self.buffer.len() >= OUTPUT_BUFFER {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what has been added.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        self.write().await.map_err(unwritten)
    }

    /// Takes up again where it was left, if it was.
    async fn write(&mut self) -> io::Result<()> {
        while self.written < self.buffer.len() {
            self.written += self.stdout.write(&self.buffer[self.written..]).await?;
        }
        self.buffer.clear();
        self.written = 0;
        self.stdout.flush().await
    }
}

/// Waits until nobody reads stdout any more; for ever if that cannot be known.
pub(crate) async fn hung_up() {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, for descriptors that may be closed; stdout stays open"
    )]
    let stdout = AsyncFd::with_interest(io::stdout(), Interest::ERROR);
    // Pipes and terminals can tell, files cannot and need not.
    if let Ok(stdout) = stdout
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::hung_up(),
        _ => Failure::new(1, "OUTPUT", format!("failed to write to stdout: {error}")),
    }
}

/// Writes rows in columns, as [`aligned`] puts them.
pub(crate) fn columns(rows: &[impl AsRef<[String]>]) -> Result<(), Failure> {
    write(aligned(rows).as_bytes())
}

/// Rows in columns, numbers to the right, the last column free. The first row is the head;
/// all rows have as many cells.
pub(crate) fn aligned(rows: &[impl AsRef<[String]>]) -> String {
    let rows: Vec<_> = rows.iter().map(AsRef::as_ref).collect();
    let count = rows.first().map_or(0, |head| head.len());
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let numeric = |column: usize| {
        let mut cells = rows.iter().skip(1).map(|row| row[column].as_str()).peekable();
        cells.peek().is_some() && cells.all(is_number)
    };
    let layout: Vec<_> = (0..count)
        .map(|column| (width(column), column + 1 < count && numeric(column)))
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
    text
}

/// `-5`, or `3/8`.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'/')
}
