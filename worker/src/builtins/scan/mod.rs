//! The builtin `scan`: the lines of a log file on the worker, one item each,
//! taken apart. The same file and arguments give the same items on every
//! worker, so that the rest of a lost scan may be asked for again.

mod formats;
mod lines;
mod row;
mod text;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::time::UNIX_EPOCH;

use asynq_proto::{Iter, OnLoss, TaskError};
use jiff::Timestamp;
use serde::Deserialize;

use self::formats::{Format, Now};
use self::lines::Lines;
use self::row::Row;
use crate::context::Context;
use crate::files::{Files, unreadable};
use crate::limits::MAX_GZIP_RATIO;

pub(super) const SCAN: Iter<Scan, Row> = Iter::new("scan", OnLoss::Replay);

/// Kind of a failure: the file holds something else than lines of text.
const KIND_NOT_TEXT: &str = "not_text";
/// Kind of a failure: the compressed file ends too soon. What was there has come.
const KIND_TRUNCATED: &str = "truncated";
/// Kind of a failure: the compressed file is damaged. What comes before has come.
const KIND_CORRUPT: &str = "corrupt";
/// Kind of a failure: far more text than its compressed file is worth. What comes
/// before has come.
const KIND_INFLATED: &str = "inflated";

/// What to read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scan {
    /// Under the worker's folder of files.
    path: String,
    /// The name of a format, or `auto`: the one that fits the first lines best.
    #[serde(default = "auto")]
    format: String,
    /// The first line wanted, counted from 1.
    #[serde(default = "first")]
    from: u64,
}

const AUTO: &str = "auto";

fn auto() -> String {
    AUTO.into()
}

const fn first() -> u64 {
    1
}

/// Reads line after line, each when the one before has been sent.
pub(super) fn scan(
    files: &Files,
    context: Context,
    scan: Scan,
) -> impl Iterator<Item = Result<Row, TaskError>> + use<> {
    let (rows, refused) = match Rows::open(files, context, scan) {
        Ok(rows) => (Some(rows), None),
        Err(refusal) => (None, Some(Err(refusal))),
    };
    refused.into_iter().chain(rows.into_iter().flatten())
}

/// A file under way.
struct Rows {
    path: String,
    context: Context,
    lines: Lines<Box<dyn Read>>,
    /// `None` if nothing fits.
    format: Option<Format>,
    now: Now,
    from: u64,
    over: bool,
}

impl Rows {
    fn open(files: &Files, context: Context, Scan { path, format, from }: Scan) -> Result<Self, TaskError> {
        let named = match format.as_str() {
            AUTO => None,
            name => Some(Format::named(name).ok_or_else(|| unknown_format(name))?),
        };
        let file = files.open(&path)?;
        let now = written(&file).map_err(|error| unreadable(&path, &error))?;
        let text = text::of(file).map_err(|error| unreadable(&path, &error))?;
        let mut lines = Lines::new(text);
        let head = lines.head(|| context.is_stopped());
        if text::is_binary(head) {
            let message = format!("{path:?} is no text: there are NUL bytes near its beginning");
            return Err(TaskError::terminal(message).with_kind(KIND_NOT_TEXT));
        }
        let format = named.or_else(|| Format::detect(head, now));
        Ok(Self {
            path,
            context,
            lines,
            format,
            now,
            from,
            over: false,
        })
    }

    fn failed(&self, error: &std::io::Error) -> TaskError {
        let (path, read) = (&self.path, self.lines.count());
        match error.kind() {
            ErrorKind::UnexpectedEof => TaskError::terminal(format!(
                "{path:?} is compressed and ends too soon: it is whole up to line {read}"
            ))
            .with_kind(KIND_TRUNCATED),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => {
                TaskError::terminal(format!("{path:?} is compressed and damaged after line {read}: {error}"))
                    .with_kind(KIND_CORRUPT)
            }
            ErrorKind::FileTooLarge => TaskError::terminal(format!(
                "{path:?} is compressed and gives more than {MAX_GZIP_RATIO} bytes for each of its own; given up after line {read}"
            ))
            .with_kind(KIND_INFLATED),
            _ => unreadable(path, error),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.lines.next(|| self.context.is_stopped()) {
                Ok(Some(line)) if line.number < self.from => {}
                Ok(Some(line)) => return Some(Ok(Row::of(&line, self.format, self.now))),
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = true;
                    return Some(Err(self.failed(&error)));
                }
            }
        }
        None
    }
}

/// When the file was last written to: what its lines lack of a date counts from there.
fn written(file: &File) -> std::io::Result<Now> {
    let modified = file.metadata()?.modified()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Ok(Now(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)))
}

fn unknown_format(name: &str) -> TaskError {
    let names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
    // What was asked may be of any length.
    let name: String = name.chars().take(40).collect();
    TaskError::rejected(format!(
        "there is no format {name:?}; there are auto, {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests;
