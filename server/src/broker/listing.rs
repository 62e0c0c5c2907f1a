//! Listings of tasks. The store remembers tasks in their order, the core knows
//! how those stand that have not ended: a page is what the store has, with the
//! present in place of the past.
//!
//! Pages are read on a thread of their own, one part at a time, so that runs
//! never wait for a listing to get their arguments, nor the log of the store
//! for a reader to move on.

use std::cmp::Reverse;

use asynq_core::{Core, Seq, StateName, StateSet, TaskFilter, TaskId, TaskView, Timestamp};
use asynq_store::{Listed, Query};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::reader::Job;
use super::run::{Held, Loop};
use crate::limits::{LIST_BYTES, LIST_RECORDS, LIST_TASKS};

/// Which tasks to list.
#[derive(Debug, Clone)]
pub(crate) struct ListTasks {
    /// What they must fit now.
    pub(crate) filter: TaskFilter,
    /// Only places in the order before this one.
    pub(crate) before: Option<Seq>,
    /// At most so many.
    pub(crate) limit: usize,
}

/// Tasks as they are, newest first.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) tasks: Vec<(Seq, TaskView)>,
    /// Go on before this place; `None`: that was all.
    pub(crate) next: Option<Seq>,
    /// When.
    pub(crate) now: Timestamp,
}

/// A page on its way, and who waits for it.
#[derive(Debug)]
pub(crate) struct Listing {
    asked: ListTasks,
    reply: oneshot::Sender<Page>,
    /// Its share of the listings there may be at a time.
    _room: OwnedSemaphorePermit,
}

impl Listing {
    pub(super) fn new(asked: ListTasks, reply: oneshot::Sender<Page>, room: OwnedSemaphorePermit) -> Self {
        Self {
            asked,
            reply,
            _room: room,
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn is_over(&self) -> bool {
        self.reply.is_closed()
    }

    /// What to ask the store for.
    pub(super) fn query(&self) -> Query {
        let ListTasks { filter, before, limit } = &self.asked;
        let states = filter.states;
        // Where only some live states are asked for, some of what is read will
        // have moved on to another: the limit comes last.
        let moves_out = states.meets(StateSet::LIVE) && !StateSet::LIVE.is_within(states);
        let filter = TaskFilter {
            states: recorded(states),
            ..filter.clone()
        };
        Query {
            filter,
            before: *before,
            limit: if moves_out { LIST_TASKS } else { LIST_TASKS.min(*limit) },
            budget: LIST_RECORDS,
            bytes: LIST_BYTES,
        }
    }

    /// Whether a task in this state is asked for.
    pub(super) fn wants(&self, state: StateName) -> bool {
        self.asked.filter.states.contains(state)
    }

    /// Answers. The tasks may be in any order.
    pub(super) fn answer(self, mut page: Page) {
        page.tasks.sort_unstable_by_key(|&(seq, _)| Reverse(seq));
        if page.tasks.len() > self.asked.limit {
            page.tasks.truncate(self.asked.limit);
            page.next = page.tasks.last().map(|&(seq, _)| seq);
        }
        // Whoever asked may have gone.
        let _ = self.reply.send(page);
    }
}

/// The states in which the store may have a task that is in one of these. It is
/// told when a task ends and when one is to be tried again; it is not told of
/// every start, nor when a time has come.
fn recorded(now: StateSet) -> StateSet {
    let unrecorded = StateSet::HELD.with(StateName::Ready);
    if now.meets(unrecorded) {
        now.or(StateSet::LIVE)
    } else {
        now
    }
}

impl Loop {
    pub(super) fn list(&mut self, listing: Box<Listing>) {
        let ListTasks { filter, before, limit } = &listing.asked;
        if !filter.states.is_within(StateSet::HELD) {
            return self.lister.push(Job::List(listing));
        }
        // Few tasks run and many wait: nobody has to look through those.
        let (tasks, more) = self.core.held_tasks(filter, *before, (*limit).min(LIST_TASKS));
        let next = tasks.last().map(|&(seq, _)| seq).filter(|_| more);
        let now = self.now;
        self.hold(Held::Page(listing, Page { tasks, next, now }));
    }

    /// A part has been read.
    pub(super) fn listed(&mut self, listing: Box<Listing>, part: Listed) {
        let (page, ended) = present(&self.core, self.now, &listing, part);
        // Told is what is durable, also of the present.
        self.hold(if ended.is_empty() {
            Held::Page(listing, page)
        } else {
            Held::List(Job::Ended { listing, page, ended })
        });
    }
}

/// The tasks as they are now; and those that have ended since they were read,
/// whose end the store knows soon.
fn present(core: &Core, now: Timestamp, listing: &Listing, part: Listed) -> (Page, Vec<TaskId>) {
    let mut tasks = Vec::with_capacity(part.tasks.len());
    let mut ended = Vec::new();
    for (seq, record) in part.tasks {
        let id = record.id;
        // A dead one may have been retried since.
        let view = if record.state.name().is_terminal() && !core.is_live(id) {
            Some(TaskView::ended(record))
        } else {
            core.task(id)
        };
        match view {
            Some(view) if listing.wants(view.record.state.name()) => tasks.push((seq, view)),
            Some(_) => {}
            None => ended.push(id),
        }
    }
    if !listing.asked.filter.states.meets(StateSet::ENDED) {
        ended.clear();
    }
    let next = part.next;
    (Page { tasks, next, now }, ended)
}

#[cfg(test)]
mod tests;
