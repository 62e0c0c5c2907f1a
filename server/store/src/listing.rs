//! Listings: what a reader is asked for, and how a store keeps within the
//! bounds of one answer.

use asynq_core::{Seq, TaskFilter, TaskRecord};

/// Which tasks to list, and how far to go for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What a task must fit, as it is recorded.
    pub filter: TaskFilter,
    /// Only places in the order before this one.
    pub before: Option<Seq>,
    /// Tasks to give at most; at least 1.
    pub limit: usize,
    /// Records to look at, at most; at least 1.
    pub budget: usize,
    /// Bytes of memory the tasks may take, about. One task is given whatever
    /// it takes.
    pub bytes: usize,
}

/// A part of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Tasks that fit, the latest in the order first.
    pub tasks: Vec<(Seq, TaskRecord)>,
    /// Go on before this place; `None`: that was all.
    pub next: Option<Seq>,
}

/// A listing in the making. Records come in descending order: for each, ask
/// [`Gather::may_look`], then say what came of the look.
#[derive(Debug)]
pub(crate) struct Gather<'a> {
    query: &'a Query,
    listed: Listed,
    /// All places from here on are dealt with.
    done: Option<Seq>,
    looks: usize,
    bytes: usize,
}

impl<'a> Gather<'a> {
    pub(crate) const fn new(query: &'a Query) -> Self {
        Self {
            query,
            listed: Listed {
                tasks: Vec::new(),
                next: None,
            },
            done: query.before,
            looks: 0,
            bytes: 0,
        }
    }

    /// Whether there is budget for one more record. If not, it is for the next
    /// part.
    pub(crate) const fn may_look(&mut self) -> bool {
        if self.looks == self.query.budget {
            self.listed.next = self.done;
            return false;
        }
        self.looks += 1;
        true
    }

    /// The record does not fit.
    pub(crate) const fn pass(&mut self, seq: Seq) {
        self.done = Some(seq);
    }

    /// The record fits. False if there is no room for it: it is for the next
    /// part.
    pub(crate) fn take(&mut self, seq: Seq, record: TaskRecord) -> bool {
        self.bytes += weight(&record);
        let full = self.listed.tasks.len() >= self.query.limit || self.bytes > self.query.bytes;
        if full && !self.listed.tasks.is_empty() {
            self.listed.next = self.done;
            return false;
        }
        self.done = Some(seq);
        self.listed.tasks.push((seq, record));
        true
    }

    pub(crate) fn finish(self) -> Listed {
        self.listed
    }
}

/// Bytes of memory, about: only failures are of any size.
fn weight(record: &TaskRecord) -> usize {
    let failure = record.failure.as_ref();
    size_of::<TaskRecord>() + failure.map_or(0, |f| f.kind.len() + f.message.len() + f.trace.len())
}
