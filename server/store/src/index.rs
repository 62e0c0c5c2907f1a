//! Finds tasks by id without an index on disk, and the records a sweep has to
//! look at.
//!
//! Ids are `UUIDv7`, so they rise nearly as their tasks' places in the order do.
//! Tasks stand in blocks of [`BLOCK_TASKS`] places. A block knows the smallest
//! and the largest id in it and, for each task, a tag: 16 bits drawn from the
//! id. A look-up reads only tasks whose tag fits in blocks whose range holds the
//! id: the one task that has it and one in 65,536 others. Four bytes per task.
//!
//! An id far from the time its task was accepted ([`ID_DRIFT`]) would widen its
//! block's range, so it is kept exactly instead: `strays`.

use std::collections::{BTreeMap, VecDeque};

use asynq_core::{Seq, TaskId, Timestamp};

use crate::limits::{BLOCK_TASKS, ID_DRIFT};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// By number, ascending.
    blocks: VecDeque<Block>,
    /// Ids outside their block's range.
    strays: BTreeMap<TaskId, Seq>,
    /// The latest acceptance so far.
    clock: Timestamp,
}

#[derive(Debug)]
struct Block {
    /// Holds the places from `number * BLOCK_TASKS`.
    number: u64,
    /// `clock` when its first task came: no id that came later is older than
    /// this less [`ID_DRIFT`].
    since: Timestamp,
    /// The range of its ids without strays; empty if `smallest > largest`.
    smallest: TaskId,
    largest: TaskId,
    /// The largest id of this block and all before it: rises from block to block.
    reach: TaskId,
    /// Nothing in it is past its time before this.
    due: Timestamp,
    /// Its tasks, by offset.
    tasks: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u16,
    tag: u16,
}

const NONE_SMALLEST: TaskId = TaskId([0xff; 16]);
const NONE_LARGEST: TaskId = TaskId([0; 16]);

impl Index {
    /// Adds a task accepted at `at`.
    pub(crate) fn insert(&mut self, seq: Seq, id: TaskId, at: Timestamp) {
        let (number, offset) = place(seq);
        let in_order = self.blocks.back().is_none_or(|last| last.number <= number);
        if in_order {
            self.clock = self.clock.max(at);
        }
        let clock = self.clock;
        let position = self.block_or_new(number);
        let before = position.checked_sub(1).map_or(NONE_LARGEST, |i| self.blocks[i].reach);
        let block = &mut self.blocks[position];
        // Only the last block may widen: those after it rely on its reach.
        if in_order && is_near(id, clock) {
            block.smallest = block.smallest.min(id);
            block.largest = block.largest.max(id);
            block.reach = before.max(block.largest);
        } else {
            self.strays.insert(id, seq);
        }
        let entry = Entry { offset, tag: tag(id) };
        match block.tasks.last() {
            Some(last) if last.offset >= offset => {
                if let Err(i) = block.tasks.binary_search_by_key(&offset, |entry| entry.offset) {
                    block.tasks.insert(i, entry);
                }
            }
            _ => block.tasks.push(entry),
        }
    }

    /// Notes that something of a task may go at `at`.
    pub(crate) fn due(&mut self, seq: Seq, at: Timestamp) {
        let (number, _) = place(seq);
        if let Ok(i) = self.position(number) {
            let block = &mut self.blocks[i];
            block.due = block.due.min(at);
        }
    }

    /// Forgets tasks of one block: those in `gone`, ascending.
    pub(crate) fn remove(&mut self, gone: &[(Seq, TaskId)]) {
        let Some(&(first, _)) = gone.first() else { return };
        let Ok(i) = self.position(place(first).0) else { return };
        let mut left = gone.iter().map(|&(seq, _)| place(seq).1).peekable();
        let block = &mut self.blocks[i];
        block.tasks.retain(|entry| {
            while left.next_if(|&offset| offset < entry.offset).is_some() {}
            left.next_if_eq(&entry.offset).is_none()
        });
        if block.tasks.is_empty() {
            self.blocks.remove(i);
        } else if block.tasks.len() <= block.tasks.capacity() / 4 {
            block.tasks.shrink_to_fit();
        }
        for &(seq, id) in gone {
            if self.strays.get(&id) == Some(&seq) {
                self.strays.remove(&id);
            }
        }
    }

    /// Whether there is a task at this place.
    pub(crate) fn holds(&self, seq: Seq) -> bool {
        let (number, offset) = place(seq);
        self.position(number).is_ok_and(|i| {
            let tasks = &self.blocks[i].tasks;
            tasks.binary_search_by_key(&offset, |entry| entry.offset).is_ok()
        })
    }

    /// The places of tasks that may have this id, the likeliest first.
    pub(crate) fn candidates(&self, id: TaskId) -> Vec<Seq> {
        let mut found: Vec<Seq> = self.strays.get(&id).copied().into_iter().collect();
        let tag = tag(id);
        let first = self.blocks.partition_point(|block| block.reach < id);
        for block in self.blocks.range(first..) {
            if id_time(id) + ID_DRIFT < block.since {
                break;
            }
            if block.smallest <= id && id <= block.largest {
                let fits = block.tasks.iter().filter(|entry| entry.tag == tag);
                found.extend(fits.map(|entry| Seq(block.number * BLOCK_TASKS + u64::from(entry.offset))));
            }
        }
        found
    }

    /// The first block from place `from` on with something past its time: its
    /// first and last place.
    pub(crate) fn next_due(&self, from: Seq, now: Timestamp) -> Option<(Seq, Seq)> {
        let first = self.blocks.partition_point(|block| block.number < block_of(from));
        let block = self.blocks.range(first..).find(|block| block.due <= now)?;
        let start = block.number * BLOCK_TASKS;
        Some((Seq(start), Seq(start + BLOCK_TASKS - 1)))
    }

    /// Nothing of a block is due until told again: it is about to be looked
    /// through from its beginning.
    pub(crate) fn clear_due(&mut self, seq: Seq) {
        if let Ok(i) = self.position(place(seq).0) {
            self.blocks[i].due = Timestamp::MAX;
        }
    }

    fn position(&self, number: u64) -> Result<usize, usize> {
        match self.blocks.back() {
            Some(last) if last.number == number => Ok(self.blocks.len() - 1),
            Some(last) if last.number < number => Err(self.blocks.len()),
            _ => self.blocks.binary_search_by_key(&number, |block| block.number),
        }
    }

    fn block_or_new(&mut self, number: u64) -> usize {
        self.position(number).unwrap_or_else(|i| {
            let before = i.checked_sub(1).map(|i| &self.blocks[i]);
            let reach = before.map_or(NONE_LARGEST, |block| block.reach);
            // A block that comes late takes the time of the one it comes before.
            let since = self.blocks.get(i).map_or(self.clock, |after| after.since);
            let block = Block {
                number,
                since,
                smallest: NONE_SMALLEST,
                largest: NONE_LARGEST,
                reach,
                due: Timestamp::MAX,
                tasks: Vec::new(),
            };
            self.blocks.insert(i, block);
            i
        })
    }
}

/// Which block a task stands in.
pub(crate) const fn block_of(seq: Seq) -> u64 {
    seq.0 / BLOCK_TASKS
}

fn place(seq: Seq) -> (u64, u16) {
    (block_of(seq), (seq.0 % BLOCK_TASKS) as u16)
}

/// The time in a `UUIDv7`: its first 48 bits, in ms.
fn id_time(id: TaskId) -> Timestamp {
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(&id.0[..6]);
    Timestamp::from_millis(u64::from_be_bytes(millis))
}

fn is_near(id: TaskId, clock: Timestamp) -> bool {
    let time = id_time(id);
    time.since(clock) <= ID_DRIFT && clock.since(time) <= ID_DRIFT
}

/// The last 16 bits are random in a `UUIDv7`.
fn tag(id: TaskId) -> u16 {
    u16::from_be_bytes([id.0[14], id.0[15]])
}

#[cfg(test)]
mod tests;
