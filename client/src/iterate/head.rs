//! How far a stream has been read, over all the times it was opened. No I/O.
//!
//! A stream that is opened again begins where its reader is done with it, which is
//! before the last item that has come: what the reader has at hand comes once more.
//! It is held against what came before, and left out.

use asynq_proto::{Place, v1};

use super::batch::Batch;
use crate::{Error, TaskId};

#[derive(Debug)]
pub(super) struct Head {
    id: TaskId,
    /// Behind the last item that has come.
    place: Place,
    /// Behind the last item of this opening; not before `place` but while items come again.
    cursor: Place,
}

impl Head {
    /// A stream that begins `at` a place.
    pub(super) const fn new(id: TaskId, at: Place) -> Self {
        Self {
            id,
            place: at,
            cursor: at,
        }
    }

    /// Behind the last item that has come.
    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// The stream is open again. `from` was asked for, and the broker says that it
    /// begins `at`.
    pub(super) fn reopen(&mut self, from: Place, at: Place) -> Result<(), Error> {
        if (at.index, at.byte) != (from.index, from.byte) || from.index > self.place.index {
            return Err(Error::unexpected("a stream that begins elsewhere than was asked for"));
        }
        self.compare(from, at)?;
        self.cursor = match from.digest {
            Some(_) => from,
            // Somebody may have learnt it meanwhile.
            None => at,
        };
        Ok(())
    }

    /// Takes a batch and gives what of it is new.
    pub(super) fn take(&mut self, items: v1::ItemBatch) -> Result<Option<Batch>, Error> {
        let mut batch = Batch::new(items, self.cursor)?;
        let again = self.cursor.index < self.place.index;
        self.cursor = batch.end();
        if self.cursor.index < self.place.index {
            return Ok(None);
        }
        if again {
            batch.skip_to(self.place.index);
            self.compare(self.place, batch.place())?;
        }
        if self.cursor.index == self.place.index {
            return Ok(None);
        }
        self.place = self.cursor;
        Ok(Some(batch))
    }

    /// The stream is over, and was of `count` items.
    pub(super) fn end(&self, count: u64) -> Result<(), Error> {
        match count == self.place.index && self.cursor.index == self.place.index {
            true => Ok(()),
            false => Err(Error::unexpected("the end of a stream before all its items")),
        }
    }

    /// Whether the items before a place are the same, as far as both sides know.
    fn compare(&self, ours: Place, theirs: Place) -> Result<(), Error> {
        let differ = matches!((ours.digest, theirs.digest), (Some(ours), Some(theirs)) if ours != theirs);
        match differ || ours.byte != theirs.byte {
            true => Err(Error::StreamChanged {
                id: self.id,
                index: theirs.index,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
