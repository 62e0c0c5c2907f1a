//! The store that forgets with its process: declared lossy, for tests and for
//! brokers whose tasks are not worth a disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use asynq_core::{
    Change, Epoch, Key, Name, Outcome, Payload, QueueSettings, Seq, SessionId, SessionRecord, State, TaskId,
    TaskRecord, Timestamp,
};

use crate::batch::Summary;
use crate::limits::NOTE_INTERVAL;
use crate::listing::Gather;
use crate::{Belief, Listed, Opened, Pruned, Query, Reader, Store, StoreError};

/// A shard in memory. A clone is another handle on the same shard, as another
/// connection is on a database.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shard: Arc<Mutex<Shard>>,
    belief: Belief,
}

#[derive(Debug, Default)]
struct Shard {
    epoch: Epoch,
    last_batch: u64,
    next_seq: Seq,
    latest: Timestamp,
    tasks: BTreeMap<Seq, Task>,
    ids: HashMap<TaskId, Seq>,
    /// The latest task with each key of a queue.
    keys: HashMap<(Name, Key), Seq>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    queues: BTreeMap<Name, QueueSettings>,
    /// The last place the sweep looked at.
    swept: Seq,
}

#[derive(Debug)]
struct Task {
    record: Box<TaskRecord>,
    payload: Option<Payload>,
    result: Option<Payload>,
    forget_at: Option<Timestamp>,
}

impl MemoryStore {
    /// An empty shard.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shard> {
        // A panic elsewhere leaves whole batches: they are checked, then applied.
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn latest(&mut self) -> Result<Timestamp, StoreError> {
        Ok(self.lock().latest)
    }

    fn believe(&mut self, clock: Belief) {
        self.belief = clock;
    }

    fn open(&mut self, now: Timestamp, live: &mut dyn FnMut(Seq, TaskRecord)) -> Result<Opened, StoreError> {
        let mut shard = self.lock();
        let (previous, latest) = (shard.epoch, shard.latest);
        shard.latest = match self.belief {
            Belief::Believed => latest.max(now),
            Belief::Doubted => latest,
            Belief::Trusted => now,
        };
        shard.epoch = Epoch(now.as_micros().max(previous.0 + 1));
        let mut finished = BTreeMap::new();
        for (&seq, task) in &shard.tasks {
            let state = task.record.state.name();
            if task.record.is_purged() {
                continue;
            }
            if state.is_terminal() {
                *finished.entry((task.record.queue.clone(), state)).or_default() += 1;
            } else {
                live(seq, (*task.record).clone());
            }
        }
        Ok(Opened {
            epoch: shard.epoch,
            previous,
            last_batch: shard.last_batch,
            next_seq: shard.next_seq.max(Seq(1)),
            sessions: shard.sessions.values().cloned().collect(),
            finished,
            queues: shard.queues.clone(),
            latest,
        })
    }

    fn commit(&mut self, epoch: Epoch, batch: u64, changes: &[Change]) -> Result<(), StoreError> {
        let mut shard = self.lock();
        shard.owned_by(epoch)?;
        if batch != shard.last_batch + 1 {
            return Err(StoreError::Failed(format!(
                "batch {batch} does not follow batch {}",
                shard.last_batch
            )));
        }
        shard.check(changes)?;
        for change in changes {
            shard.apply(change);
        }
        let summary = Summary::of(changes, self.belief);
        shard.last_batch = batch;
        shard.next_seq = shard.next_seq.max(summary.next_seq);
        shard.latest = shard.latest.max(summary.latest);
        Ok(())
    }

    fn prune(&mut self, epoch: Epoch, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        let mut shard = self.lock();
        shard.owned_by(epoch)?;
        if self.belief != Belief::Doubted && now > shard.latest + NOTE_INTERVAL {
            shard.latest = now;
        }
        Ok(shard.sweep(now, budget))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.clone()))
    }
}

impl Reader for MemoryStore {
    fn payloads(&mut self, tasks: &[Seq]) -> Result<Vec<Option<Payload>>, StoreError> {
        let shard = self.lock();
        Ok(tasks.iter().map(|seq| shard.tasks.get(seq)?.payload.clone()).collect())
    }

    fn task(&mut self, id: TaskId) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        let shard = self.lock();
        let found = shard
            .ids
            .get(&id)
            .and_then(|&seq| Some((seq, (*shard.tasks.get(&seq)?.record).clone())));
        Ok(found)
    }

    fn keyed(&mut self, queue: &Name, key: &Key) -> Result<Option<(Seq, TaskRecord)>, StoreError> {
        let shard = self.lock();
        let found = shard
            .keys
            .get(&(queue.clone(), key.clone()))
            .and_then(|&seq| Some((seq, (*shard.tasks.get(&seq)?.record).clone())));
        Ok(found)
    }

    fn result(&mut self, task: Seq) -> Result<Option<Payload>, StoreError> {
        Ok(self.lock().tasks.get(&task).and_then(|task| task.result.clone()))
    }

    fn tasks(&mut self, query: &Query) -> Result<Listed, StoreError> {
        let before = query.before.map_or(Bound::Unbounded, Bound::Excluded);
        let mut gather = Gather::new(query);
        let shard = self.lock();
        for (&seq, task) in shard.tasks.range((Bound::Unbounded, before)).rev() {
            if !gather.may_look() || task.record.enqueued_at < query.filter.since {
                break;
            }
            if !query.filter.fits(&task.record) {
                gather.pass(seq);
            } else if !gather.take(seq, (*task.record).clone()) {
                break;
            }
        }
        Ok(gather.finish())
    }
}

impl Shard {
    fn owned_by(&self, held: Epoch) -> Result<(), StoreError> {
        if self.epoch == held {
            Ok(())
        } else {
            Err(StoreError::Deposed {
                stored: self.epoch,
                held,
            })
        }
    }

    /// Whether every change of a batch can be applied.
    fn check(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut inserted = BTreeSet::new();
        for change in changes {
            match change {
                Change::Insert { seq, .. } if self.tasks.contains_key(seq) || !inserted.insert(*seq) => {
                    return Err(StoreError::Failed(format!("task {} is there already", seq.0)));
                }
                Change::Update { seq, .. } | Change::Finish { seq, .. } | Change::Purge { seq, .. }
                    if !self.tasks.contains_key(seq) && !inserted.contains(seq) =>
                {
                    return Err(StoreError::Failed(format!("task {} is not there", seq.0)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Insert { seq, record, payload } => {
                let task = Task {
                    record: record.clone(),
                    payload: Some(payload.clone()),
                    result: None,
                    forget_at: None,
                };
                self.ids.insert(record.id, *seq);
                if let Some(key) = record.key() {
                    self.keys.insert(key, *seq);
                }
                self.tasks.insert(*seq, task);
            }
            Change::Update { seq, record } => {
                if let Some(task) = self.tasks.get_mut(seq) {
                    task.record.clone_from(record);
                    task.result = None;
                    task.forget_at = None;
                }
            }
            Change::Finish {
                seq,
                record,
                result,
                forget_at,
            } => {
                if let Some(task) = self.tasks.get_mut(seq) {
                    task.record.clone_from(record);
                    task.result.clone_from(result);
                    task.forget_at = Some(*forget_at);
                    if !task.is_dead() {
                        task.payload = None;
                    }
                }
            }
            Change::Purge { seq, record, forget_at } => {
                if let Some(task) = self.tasks.get_mut(seq) {
                    *task = Task {
                        record: record.clone(),
                        payload: None,
                        result: None,
                        forget_at: Some(*forget_at),
                    };
                }
            }
            Change::QueueSet { queue, settings } if *settings == QueueSettings::default() => {
                self.queues.remove(queue);
            }
            Change::QueueSet { queue, settings } => {
                self.queues.insert(queue.clone(), *settings);
            }
            Change::SessionOpened(session) => {
                self.sessions.insert(session.id, session.clone());
            }
            Change::SessionClosed(id) => {
                self.sessions.remove(id);
            }
        }
    }

    /// What was remembered of the task.
    fn forget(&mut self, seq: Seq) -> Option<Box<TaskRecord>> {
        let Task { record, .. } = self.tasks.remove(&seq)?;
        if self.ids.get(&record.id) == Some(&seq) {
            self.ids.remove(&record.id);
        }
        if let Some(key) = record.key()
            && self.keys.get(&key) == Some(&seq)
        {
            self.keys.remove(&key);
        }
        Some(record)
    }

    fn sweep(&mut self, now: Timestamp, budget: usize) -> Pruned {
        let mut pruned = Pruned::default();
        let mut gone = Vec::new();
        let range = (Bound::Excluded(self.swept), Bound::Unbounded);
        let mut rest = self.tasks.range_mut(range);
        for (&seq, task) in rest.by_ref().take(budget) {
            self.swept = seq;
            if task.forget_at.is_some_and(|at| at <= now) {
                gone.push(seq);
            } else if task.result.is_some() && task.result_until().is_some_and(|at| at <= now) {
                task.result = None;
                pruned.results += 1;
            }
        }
        pruned.complete = rest.next().is_none();
        for seq in gone {
            if let Some(record) = self.forget(seq).filter(|record| !record.is_purged()) {
                *pruned.forgotten.entry((record.queue, record.state.name())).or_default() += 1;
            }
        }
        if pruned.complete {
            self.swept = Seq(0);
        }
        pruned
    }
}

impl Task {
    fn is_dead(&self) -> bool {
        matches!(&self.record.state, State::Finished(finish) if matches!(finish.outcome, Outcome::Dead(_)))
    }

    fn result_until(&self) -> Option<Timestamp> {
        match &self.record.state {
            State::Finished(finish) => finish.result.as_ref().map(|result| result.until).or(self.forget_at),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Shard as AnyShard;

    impl AnyShard for MemoryStore {
        fn connect(&self) -> Box<dyn Store> {
            Box::new(self.clone())
        }
    }

    crate::conformance!(MemoryStore::new());
}
