//! The state machine itself.

use std::collections::BTreeMap;

use crate::change::{Change, SessionRecord};
use crate::effect::Effect;
use crate::event::Event;
use crate::ids::{Epoch, Name, Seq, TaskId};
use crate::task::{StateName, TaskRecord};
use crate::time::Timestamp;
use crate::view::{Explanation, QueueView, TaskView, WorkerView};

/// What one or more events lead to, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// To be remembered.
    pub changes: Vec<Change>,
    /// To be done.
    pub effects: Vec<Effect>,
}

/// Decides for one shard.
#[derive(Debug)]
pub struct Core {}

impl Core {
    /// An empty shard.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        unimplemented!("{epoch:?}")
    }

    /// Takes back a task that had not ended when the shard was last open. Only
    /// before [`Core::start`], in any order.
    pub fn restore(&mut self, seq: Seq, record: TaskRecord) {
        unimplemented!("{seq:?} {record:?}")
    }

    /// Begins to decide, after a restart or for the first time: `next_seq` is
    /// the first unused place in the order, `sessions` those whose leases may
    /// still run, `finished` the terminal tasks still kept.
    pub fn start(
        &mut self,
        now: Timestamp,
        next_seq: Seq,
        sessions: Vec<SessionRecord>,
        finished: BTreeMap<(Name, StateName), u64>,
        out: &mut Output,
    ) {
        unimplemented!("{now:?} {next_seq:?} {sessions:?} {finished:?} {out:?}")
    }

    /// Takes in what happened at `now` and appends to `out` what follows.
    pub fn apply(&mut self, now: Timestamp, event: Event, out: &mut Output) {
        unimplemented!("{now:?} {event:?} {out:?}")
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        unimplemented!()
    }

    /// A task that has not ended.
    #[must_use]
    pub fn task(&self, now: Timestamp, id: TaskId) -> Option<TaskView> {
        unimplemented!("{now:?} {id}")
    }

    /// Whether the task is known and has not ended.
    #[must_use]
    pub fn is_live(&self, id: TaskId) -> bool {
        unimplemented!("{id}")
    }

    /// Why a task that has not ended is where it is.
    #[must_use]
    pub fn explain(&self, now: Timestamp, id: TaskId) -> Option<Explanation> {
        unimplemented!("{now:?} {id}")
    }

    /// Every queue, by name.
    #[must_use]
    pub fn queues(&self, now: Timestamp) -> Vec<QueueView> {
        unimplemented!("{now:?}")
    }

    /// Every worker session, by name.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        unimplemented!()
    }

    /// The store has pruned that many finished tasks.
    pub fn forgot(&mut self, pruned: &BTreeMap<(Name, StateName), u64>) {
        unimplemented!("{pruned:?}")
    }

    /// Asserts every invariant that spans the core's structures. For tests: it
    /// walks everything.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        unimplemented!()
    }
}
