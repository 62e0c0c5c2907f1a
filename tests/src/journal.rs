//! What a worker's runs did, written down as they do it, so that it outlives a
//! kill of the worker: a line for each begin and each end, in one write.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use asynq_core::{Epoch, Grant, LeaseToken, TaskId};
use asynq_worker::Task;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The task of a worker that keeps a journal; it returns a number that no other run does.
pub const WORK: Task<Work, u64> = Task::new("work");

/// What a run is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// How long it takes.
    pub ms: u64,
    /// It fails in its first attempt.
    pub fails: bool,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It began.
    Began,
    /// It returned this number.
    Returned(u64),
    /// It failed, as it was asked to.
    Failed,
    /// It was dropped at its await point: its worker did not want it any more.
    Dropped,
}

/// A line of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// When, on the [clock](now) that all processes of a machine share.
    pub at: Duration,
    /// Which run.
    pub token: LeaseToken,
    /// What became of it.
    pub deed: Deed,
}

/// The clock of journals: the machine's monotonic one.
#[must_use]
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Where lines are added.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Begins a journal, or adds to it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::options().append(true).create(true).open(path).map(Self)
    }

    /// Adds a line, at this time.
    ///
    /// # Panics
    /// When it cannot be written: a run that is not in the journal must not go on.
    pub fn add(&self, token: LeaseToken, deed: Deed) {
        let (at, LeaseToken { task, grant }) = (now(), token);
        let mut line = format!("{} {task} {} {} ", at.as_nanos(), grant.epoch.0, grant.attempt);
        let written = match deed {
            Deed::Began => line.write_str("began\n"),
            Deed::Returned(value) => writeln!(line, "returned {value}"),
            Deed::Failed => line.write_str("failed\n"),
            Deed::Dropped => line.write_str("dropped\n"),
        };
        written.expect("a string takes it");
        (&self.0)
            .write_all(line.as_bytes())
            .expect("the journal can be written");
    }
}

/// All whole lines of a journal of one process; none if there is no such file.
///
/// # Panics
/// When there is a line that [`Journal::add`] does not write.
#[must_use]
pub fn read(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // A kill may have come in the middle of the last one.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read = |line| parse(line).unwrap_or_else(|| panic!("{}: {line:?}", path.display()));
    whole.lines().map(read).collect()
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let at = Duration::from_nanos(words.next()?.parse().ok()?);
    let task = TaskId(*Uuid::try_parse(words.next()?).ok()?.as_bytes());
    let epoch = Epoch(words.next()?.parse().ok()?);
    let attempt = words.next()?.parse().ok()?;
    let deed = match (words.next()?, words.next()) {
        ("began", None) => Deed::Began,
        ("returned", Some(value)) => Deed::Returned(value.parse().ok()?),
        ("failed", None) => Deed::Failed,
        ("dropped", None) => Deed::Dropped,
        _ => return None,
    };
    let grant = Grant { epoch, attempt };
    Some(Line {
        at,
        token: LeaseToken { task, grant },
        deed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert_eq!(read(&path), []);
        let token = |attempt| LeaseToken {
            task: TaskId(*Uuid::from_u128(7).as_bytes()),
            grant: Grant {
                epoch: Epoch(3),
                attempt,
            },
        };
        let deeds = [
            (1, Deed::Began),
            (1, Deed::Failed),
            (2, Deed::Began),
            (2, Deed::Dropped),
            (3, Deed::Returned(u64::MAX)),
        ];
        let before = now();
        for (attempt, deed) in deeds {
            Journal::open(&path).unwrap().add(token(attempt), deed);
        }
        let lines = read(&path);
        assert!(lines.is_sorted_by_key(|line| line.at) && lines[0].at >= before && lines[4].at <= now());
        let read: Vec<_> = lines.iter().map(|line| (line.token, line.deed)).collect();
        assert_eq!(read, deeds.map(|(attempt, deed)| (token(attempt), deed)));
        assert_eq!(parse("1 2 3"), None);
    }
}
