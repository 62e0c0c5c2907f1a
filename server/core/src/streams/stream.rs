//! One stream of a task that has not ended: how far it has come, what of it is
//! kept, who reads it. Plain data; the events are in `mod.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use super::checkpoints::Checkpoints;
use super::{Checkpoint, Credit, EmitResume, ItemBatch, Place, Reader, Tail};
use crate::effect::Refusal;
use crate::ids::{ConsumerId, TaskId};
use crate::limits;
use crate::task::OnLoss;
use crate::time::Timestamp;

/// floor ≤ head ≤ limit: what the reader has taken, what has come, what may come.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What the run may send. `acked` is the floor: items before it are gone.
    pub(crate) credit: Credit,
    /// Behind the last item that has come.
    pub(crate) head: Place,
    /// Whether that is so. After a restart nobody knows, until the run or the
    /// reader says.
    is_placed: bool,
    /// After a restart: nobody has the items from here to the floor any more, which
    /// nobody has acknowledged either. The broker had them of a run before.
    hole: Option<u64>,
    /// Items from the floor to the head, each batch with the place it begins at.
    /// The first may begin below the floor.
    kept: VecDeque<(Place, ItemBatch)>,
    /// It was found at a restart.
    restored: bool,
    reader: Option<Attached>,
    /// Who opened it last, and for which time: older openings are refused.
    opened: Option<(ConsumerId, u64)>,
    /// How long it outlives the connection of its reader.
    grace: Duration,
    /// Until when it waits for a reader, while it has none.
    pub(crate) detached_until: Option<Timestamp>,
    /// Where its last run began.
    run_from: u64,
    /// What its last run said would become of it.
    pub(crate) on_loss: OnLoss,
    /// Where its generator can begin again, if it says so.
    pub(super) checkpoints: Checkpoints,
    /// When the next of them is to be written, if one is.
    pub(crate) write_at: Option<Timestamp>,
}

/// Somebody who reads a stream.
#[derive(Debug)]
struct Attached {
    consumer: ConsumerId,
    open_seq: u64,
    /// Where it began to read; its digest is held against the stream's.
    from: Place,
    /// The next item to be handed on.
    next: u64,
}

/// See [`Stream::out_of_reach`].
pub(super) enum OutOfReach {
    /// Another run can yield them.
    RunAgain,
    /// They have been acknowledged.
    Gone { floor: u64 },
}

/// A reader is there.
pub(super) struct Opened {
    /// Where its items begin.
    pub(super) at: Place,
    /// How far the run may go, if that is further than before.
    pub(super) more: Option<Credit>,
    /// The run is of no use to it: there has to be another.
    pub(super) again: bool,
}

/// What is wrong with items, or with the end of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A worker breaks the rules.
    Protocol(String),
    /// A reader has read other items before: up to this index.
    Differs(u64),
}

impl Stream {
    /// Of a new task. Without a reader it waits for one.
    pub(crate) fn new(reader: Option<&Reader>, now: Timestamp) -> Self {
        let mut stream = Self::unknown();
        stream.is_placed = reader.is_none_or(|reader| reader.from.index == 0);
        stream.restored = false;
        if reader.is_none() {
            stream.detach(now);
        }
        stream
    }

    /// Of a task found at a restart.
    pub(crate) fn unknown() -> Self {
        Self {
            credit: Credit::default(),
            head: Place::START,
            is_placed: false,
            run_from: 0,
            hole: None,
            restored: true,
            kept: VecDeque::new(),
            reader: None,
            opened: None,
            grace: limits::DETACH_GRACE,
            detached_until: None,
            on_loss: OnLoss::Fail,
            checkpoints: Checkpoints::default(),
            write_at: None,
        }
    }

    /// Of a task found at a restart, with what was written of it.
    pub(crate) fn restored(on_loss: OnLoss, checkpoint: Option<Checkpoint>) -> Self {
        Self {
            on_loss,
            checkpoints: Checkpoints::restored(checkpoint),
            ..Self::unknown()
        }
    }

    pub(crate) fn has_reader(&self) -> bool {
        self.reader.is_some()
    }

    pub(super) fn is_placed(&self) -> bool {
        self.is_placed
    }

    /// Where the next run would begin.
    pub(super) fn next_start(&self) -> Place {
        match &self.reader {
            Some(reader) if !self.is_placed => reader.from,
            _ => self.head,
        }
    }

    /// A run that ends badly ends the task: it cannot be run again.
    pub(crate) fn has_one_try(&self) -> bool {
        self.on_loss == OnLoss::Fail
    }

    pub(super) fn is_read_by(&self, consumer: ConsumerId, open_seq: u64) -> bool {
        let is_it = |reader: &Attached| reader.consumer == consumer && (open_seq == 0 || reader.open_seq == open_seq);
        self.reader.as_ref().is_some_and(is_it)
    }

    /// Whether this reader may have it.
    pub(super) fn admit(&self, task: TaskId, reader: &Reader, is_held: bool) -> Result<(), Refusal> {
        let last_seq = self.opened.filter(|(consumer, _)| *consumer == reader.consumer);
        if last_seq.is_some_and(|(_, seq)| reader.open_seq <= seq) {
            return Err(Refusal::StaleReader(task));
        }
        let other = self.reader.as_ref().is_some_and(|now| now.consumer != reader.consumer);
        if other && !reader.take_over {
            return Err(Refusal::BeingRead(task));
        }
        let floor = self.floor().max(self.checkpoints.safe_index());
        if reader.from.index < floor {
            return Err(Refusal::BelowFloor { task, floor });
        }
        let (head, is_guess) = (self.head.index, reader.from.digest.is_none());
        if self.is_placed && is_guess && reader.from.index > head {
            // Before a restart it may have come that far.
            return match self.restored && reader.from.index <= self.credit.limit_index {
                true if is_held => Err(Refusal::NotPlaced(task)),
                true => Ok(()),
                false => Err(Refusal::BeyondHead { task, head }),
            };
        }
        let index = reader.from.index;
        if self.is_placed && self.place_at(index).is_some_and(|known| !known.agrees(&reader.from)) {
            return Err(Refusal::ReadOtherItems { task, index });
        }
        // Where its first byte lies only the run can say, and it has yet to.
        let waits = !self.is_placed && is_held && reader.from.index > 0 && is_guess;
        match waits {
            true => Err(Refusal::NotPlaced(task)),
            false => Ok(()),
        }
    }

    /// Takes the reader in.
    pub(super) fn attach(&mut self, reader: &Reader, is_held: bool) -> Opened {
        let mut from = reader.from;
        let again = self.is_placed && from.index < self.credit.acked;
        let ahead = self.restored && !is_held && from.digest.is_none() && from.index > self.head.index;
        if again || ahead {
            self.begin_at(from);
        } else if self.is_placed {
            from = self.place_at(from.index).unwrap_or(from);
        } else if !is_held {
            // Nobody else can know: this is where it goes on.
            self.begin_at(from);
        }
        self.opened = Some((reader.consumer, reader.open_seq));
        self.grace = reader.grace;
        self.detached_until = None;
        self.reader = Some(Attached {
            consumer: reader.consumer,
            open_seq: reader.open_seq,
            from,
            next: from.index,
        });
        let more = self.raise(Credit {
            acked: from.index,
            limit_index: reader.credit.limit_index,
            limit_bytes: from.byte.saturating_add(reader.credit.limit_bytes),
        });
        Opened { at: from, more, again }
    }

    /// The reader has gone, and may come back.
    pub(crate) fn detach(&mut self, now: Timestamp) {
        self.reader = None;
        self.detached_until = Some(now + self.grace);
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// Begins there, with nothing kept.
    fn begin_at(&mut self, place: Place) {
        self.head = place;
        self.is_placed = true;
        self.hole = None;
        self.kept.clear();
        self.checkpoints.cut(place.index);
        self.credit = Credit {
            acked: place.index,
            limit_index: self.credit.limit_index.max(place.index),
            limit_bytes: self.credit.limit_bytes.max(place.byte),
        };
    }

    /// A run begins: where its items do, and where its generator, if it has checkpoints.
    pub(crate) fn begin_run(&mut self, on_loss: OnLoss) -> (Place, Option<Checkpoint>) {
        self.on_loss = on_loss;
        self.place_by_reader();
        self.run_from = self.head.index;
        let checkpoints = (on_loss == OnLoss::Checkpoint).then_some(&self.checkpoints);
        (self.head, checkpoints.map(|known| known.before(self.head.index)))
    }

    /// Whether the last run has yielded anything: it is not what kills its workers.
    pub(crate) fn has_come_on(&self) -> bool {
        self.head.index > self.run_from
    }

    /// What a run of before would have told is told by the reader now.
    fn place_by_reader(&mut self) {
        let Some(reader) = &self.reader else { return };
        // A run from a checkpoint may yield other items than those the reader has had of
        // the one before, so it must not pass the place that the reader has come to.
        let is_behind = self.on_loss == OnLoss::Checkpoint && self.head.index < reader.from.index;
        if !self.is_placed || is_behind {
            self.begin_at(reader.from);
        }
    }

    /// All items before it have been acknowledged, as far as is known.
    fn floor(&self) -> u64 {
        match self.is_placed {
            true => self.hole.unwrap_or(self.credit.acked),
            false => 0,
        }
    }

    /// Whether all items before `index` have come.
    pub(super) fn has_come_to(&self, index: u64) -> bool {
        self.is_placed && index <= self.head.index
    }

    /// The reader may have passed some.
    pub(super) fn settle_checkpoints(&mut self) {
        self.checkpoints.settle(self.floor());
    }

    /// The checkpoint that is written with the task.
    pub(crate) fn safe_checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoints.safe()
    }

    /// Takes the larger of each total. The credit, if there is more room than
    /// before. Nobody can have taken what has not come: such a reader is in error.
    pub(super) fn raise(&mut self, asked: Credit) -> Option<Credit> {
        let head = if self.is_placed { self.head.index } else { 0 };
        let acked = asked.acked.min(head);
        if acked > self.credit.acked {
            (self.credit.acked, self.hole) = (acked, None);
        }
        while self
            .kept
            .front()
            .is_some_and(|(_, batch)| batch.end() <= self.credit.acked)
        {
            self.kept.pop_front();
        }
        let before = (self.credit.limit_index, self.credit.limit_bytes);
        self.credit.limit_index = self.credit.limit_index.max(asked.limit_index);
        self.credit.limit_bytes = self.credit.limit_bytes.max(asked.limit_bytes);
        (before != (self.credit.limit_index, self.credit.limit_bytes)).then_some(self.credit)
    }

    /// An Emit of the run broke, and another is there: from which item on it is to
    /// send.
    pub(super) fn resume(&mut self, run: &EmitResume) -> Result<u64, Wrong> {
        if self.is_placed && (run.floor.index..=run.head).contains(&self.head.index) {
            self.raise(run.claimed());
            return Ok(self.head.index);
        }
        if self.is_placed && !self.kept.is_empty() {
            return Err(Wrong::Protocol(format!(
                "the worker has the items {} to {}, and item {} is due",
                run.floor.index, run.head, self.head.index
            )));
        }
        // A restart: the run knows where it stands.
        self.begin_at(run.floor);
        self.run_from = self.head.index;
        self.hole = Some(run.credit.acked).filter(|&acked| acked < run.floor.index);
        self.raise(run.claimed());
        if let Some(reader) = &self.reader
            && reader.from.index == run.floor.index
            && !reader.from.agrees(&run.floor)
        {
            return Err(Wrong::Differs(run.floor.index));
        }
        Ok(self.head.index)
    }

    /// The reader wants items that nobody has any more: what can be done.
    pub(super) fn out_of_reach(&mut self) -> Option<OutOfReach> {
        let Some(reader) = &self.reader else {
            // Whoever comes back may want what nobody has: there has to be another run,
            // from where that one says.
            return self.hole.take().map(|_| {
                self.is_placed = false;
                self.kept.clear();
                self.checkpoints.cut(0);
                (self.head, self.credit) = (Place::START, Credit::default());
                OutOfReach::RunAgain
            });
        };
        let floor = self.credit.acked;
        if !self.is_placed || reader.next >= floor {
            return None;
        }
        if self.hole.is_none_or(|hole| reader.next < hole) {
            return Some(OutOfReach::Gone { floor });
        }
        self.begin_at(reader.from);
        Some(OutOfReach::RunAgain)
    }

    /// Takes a batch in if it follows on and fits; else says what is wrong.
    pub(super) fn take(&mut self, batch: ItemBatch) -> Result<(), Wrong> {
        if !self.is_placed {
            return Err(Wrong::Protocol("items came before the worker said which".into()));
        }
        if (batch.first_index, batch.first_byte) != (self.head.index, self.head.byte) {
            return Err(Wrong::Protocol(format!(
                "item {} was sent where item {} was due",
                batch.first_index, self.head.index
            )));
        }
        let (end, end_byte) = (batch.end(), batch.end_byte());
        if end > self.credit.limit_index || end_byte > self.credit.limit_bytes {
            return Err(Wrong::Protocol(format!(
                "item {} at byte {end_byte} was sent beyond the credit of {} items and {} bytes",
                end - 1,
                self.credit.limit_index,
                self.credit.limit_bytes
            )));
        }
        let begin = self.head;
        self.head = batch.pass(begin);
        self.kept.push_back((begin, batch));
        self.check_reader()
    }

    /// Where the stream passes the place its reader began at, both have to have
    /// come the same way.
    fn check_reader(&self) -> Result<(), Wrong> {
        let Some(Attached { from, .. }) = self.reader else {
            return Ok(());
        };
        let passed = self.kept.back().is_some_and(|(begin, _)| begin.index < from.index);
        if !passed || from.index > self.head.index {
            return Ok(());
        }
        match self.place_at(from.index) {
            Some(known) if !known.agrees(&from) => Err(Wrong::Differs(from.index)),
            _ => Ok(()),
        }
    }

    /// Items the reader has not been handed; they are taken to be now.
    pub(super) fn hand_on(&mut self) -> Vec<ItemBatch> {
        let Some(reader) = &mut self.reader else {
            return Vec::new();
        };
        let next = reader.next;
        reader.next = next.max(self.head.index);
        let skip = self.kept.partition_point(|(_, batch)| batch.end() <= next);
        let rest = self.kept.range(skip..);
        rest.filter_map(|(_, batch)| batch.from_index(next)).collect()
    }

    /// What is kept is not what was read before.
    pub(super) fn forget(&mut self) {
        self.is_placed = false;
        self.kept.clear();
    }

    /// What nobody has taken yet, from the floor on; `None` where there is nothing to
    /// be read.
    pub(crate) fn tail(&self) -> Option<Tail> {
        if !self.is_placed {
            return None;
        }
        let from_floor = |(_, batch): &(Place, ItemBatch)| batch.from_index(self.credit.acked);
        let floor = self.place_at(self.credit.acked).unwrap_or(self.head);
        Some(Tail::new(floor, self.kept.iter().filter_map(from_floor).collect()))
    }

    /// A place between the floor and the head.
    fn place_at(&self, index: u64) -> Option<Place> {
        if index == self.head.index {
            return Some(self.head);
        }
        let batches = self.kept.partition_point(|(begin, _)| begin.index <= index);
        let (begin, batch) = self.kept.get(batches.checked_sub(1)?)?;
        let mut place = *begin;
        for item in batch.items() {
            if place.index == index {
                break;
            }
            place.pass(item);
        }
        (place.index == index).then_some(place)
    }

    /// Asserts what always holds. For tests.
    pub(crate) fn check(&self, id: TaskId) {
        let Credit {
            acked,
            limit_index,
            limit_bytes,
        } = self.credit;
        assert!(
            acked <= self.head.index || !self.is_placed,
            "{id}: taken before it came"
        );
        assert!(
            self.head.index <= limit_index || !self.is_placed,
            "{id}: more items than credit"
        );
        assert!(
            self.head.byte <= limit_bytes || !self.is_placed,
            "{id}: more bytes than credit"
        );
        assert!(
            self.is_placed || self.kept.is_empty(),
            "{id}: items of a place nobody knows"
        );
        let mut due = None;
        for (begin, batch) in &self.kept {
            assert_eq!((begin.index, begin.byte), (batch.first_index, batch.first_byte));
            assert!(batch.end() > acked, "{id}: items are kept that were taken");
            assert!(due.is_none_or(|due| due == *begin), "{id}: a gap in what is kept");
            due = Some(batch.pass(*begin));
        }
        match due {
            Some(due) => {
                assert_eq!(due, self.head, "{id}: what is kept ends elsewhere");
                assert!(self.kept[0].0.index <= acked, "{id}: items are missing above the floor");
            }
            None => assert!(!self.is_placed || acked == self.head.index, "{id}: items are missing"),
        }
        self.checkpoints.check(self.head.index);
        if let Some(reader) = &self.reader {
            assert!(self.detached_until.is_none(), "{id} is read, and waits for a reader");
            assert!(self.opened == Some((reader.consumer, reader.open_seq)));
        }
    }
}
