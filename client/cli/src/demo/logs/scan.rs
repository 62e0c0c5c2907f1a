//! The files, each read as a stream of rows, a bounded number at a time.

use std::cell::RefCell;

use asynq_client::{Client, DeadReason, Error};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    row::{Scan, TASK},
    tally::{File, Tallies},
};
use crate::{failure::Failure, progress::Progress, running::UnderWay};

/// The demo takes turns with other work and does not stand before it.
const SERIES: &str = "demo";

/// All files of a run.
pub(super) struct Scans<'a> {
    client: &'a Client,
    progress: &'a Progress,
    under_way: &'a UnderWay,
    tallies: RefCell<Tallies>,
}

impl<'a> Scans<'a> {
    pub(super) fn new(client: &'a Client, progress: &'a Progress, under_way: &'a UnderWay) -> Self {
        Self {
            client,
            progress,
            under_way,
            tallies: RefCell::default(),
        }
    }

    /// Reads all files. One that cannot be read is no failure of the whole.
    pub(super) async fn run(&self, paths: Vec<String>, at_once: usize) -> Result<Vec<File>, Failure> {
        let files = paths.into_iter().enumerate();
        let files = stream::iter(files.map(async |(at, path)| self.file(path).await.map(|file| (at, file))));
        // A long file holds up none after it.
        let mut files: Vec<_> = files.buffer_unordered(at_once).try_collect().await?;
        files.sort_by_key(|(at, _)| *at);
        Ok(files.into_iter().map(|(_, file)| file).collect())
    }

    pub(super) fn tallies(self) -> Tallies {
        self.tallies.into_inner()
    }

    /// One file. Its stream outlives the workers that read it, and the broker.
    async fn file(&self, path: String) -> Result<File, Failure> {
        let mut file = File::new(path);
        match self.read(&mut file).await {
            Ok(()) => {}
            Err(Broken::File(kind, message)) => file.failed = Some((kind, named(&file.path, &message))),
            Err(Broken::All(failure)) => return Err(failure.at(&file.path)),
        }
        self.progress.step();
        Ok(file)
    }

    /// Reads a file to its end, or as far as can be.
    async fn read(&self, file: &mut File) -> Result<(), Broken> {
        let scan = Scan {
            path: file.path.clone(),
            from: 1,
        };
        let scan = self.client.iterate(TASK, &scan).series(SERIES);
        let id = scan.id();
        self.under_way.begun(id);
        let mut rows = scan.await?;
        while let Some(row) = rows.try_next().await? {
            if row.line != file.rows + 1 {
                let message = format!(
                    "line {} came where {} was due; is the worker of another version?",
                    row.line,
                    file.rows + 1
                );
                return Err(Broken::All(Failure::new(1, "UNEXPECTED", message)));
            }
            file.add(&row);
            self.tallies.borrow_mut().add(&row);
            self.progress.count(1);
        }
        self.under_way.ended(id);
        Ok(())
    }
}

/// A message that says which file it is about.
fn named(path: &str, message: &str) -> String {
    let path = format!("{path:?}");
    match message.contains(&path) {
        true => message.to_owned(),
        false => format!("{path}: {message}"),
    }
}

/// Why a file has not come to its end.
enum Broken {
    /// The file, or what its worker may do with it: kind and message.
    File(String, String),
    /// No other file would fare better.
    All(Failure),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error {
            Error::StreamBroken { .. }
            | Error::Dead {
                reason: DeadReason::WorkerLost,
                ..
            } => Self::File("lost".to_owned(), error.to_string()),
            Error::Dead { failure, .. } => Self::File(failure.kind, failure.message),
            Error::Cancelled { .. } => Self::File("cancelled".to_owned(), error.to_string()),
            Error::Expired { .. } => Self::File("expired".to_owned(), error.to_string()),
            _ => Self::All(error.into()),
        }
    }
}
