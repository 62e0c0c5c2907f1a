//! Deferred iteration: how far a stream may go, how far it has come, and who reads
//! it. One window holds from end to end: the worker sends what the caller has room
//! for, and what the caller has not acknowledged is kept, so that whoever comes back
//! finds it. docs/adr/0016 says who may go away and come back.

mod batch;
mod checkpoints;
mod emits;
mod place;
mod stream;
mod tail;

use std::time::Duration;

pub use batch::ItemBatch;
pub use checkpoints::Checkpoint;
pub use place::Place;
use stream::Opened;
pub(crate) use stream::Stream;
pub use tail::{ITEMS, Tail};

use crate::core::{Core, Output};
use crate::effect::{Effect, Refusal, Reply};
use crate::event::RequestId;
use crate::ids::{ConsumerId, TaskId};
use crate::limits;
use crate::live::Live;
use crate::sched::TaskKey;
use crate::task::StopIntent;
use crate::time::Timestamp;

/// What a caller has taken and how much more it has room for, counted from the
/// beginning of the stream: sent twice or late, it does no harm.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Items taken: all before this index.
    pub acked: u64,
    /// Items may be sent up to this index, not included.
    pub limit_index: u64,
    /// Items may be sent whose last byte, in all items laid end to end, is
    /// before this position.
    pub limit_bytes: u64,
}

/// Who reads a stream, from where, and how much it has room for to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The caller's name for itself.
    pub consumer: ConsumerId,
    /// Counts the times it has opened the stream.
    pub open_seq: u64,
    /// What it has room for; bytes are counted from `from` on.
    pub credit: Credit,
    /// The first item it wants; with a digest if it has read up to there.
    pub from: Place,
    /// It takes the stream from another reader.
    pub take_over: bool,
    /// How long the task outlives its connection.
    pub grace: Duration,
}

/// How a reader has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It does not want the rest.
    Stopped,
    /// Its connection broke: it may come back.
    Cut,
}

/// What a run says of its items when its Emit broke and another is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmitResume {
    /// The first item it still has.
    pub floor: Place,
    /// One past the last it has sent.
    pub head: u64,
    /// All credit it has been given.
    pub credit: Credit,
}

impl EmitResume {
    /// What it may say of that: no more than a window.
    fn claimed(&self) -> Credit {
        Credit {
            acked: self.credit.acked,
            limit_index: (self.credit.limit_index).min(self.floor.index.saturating_add(limits::MAX_STREAM_ITEMS)),
            limit_bytes: (self.credit.limit_bytes).min(self.floor.byte.saturating_add(limits::MAX_STREAM_BYTES)),
        }
    }
}

impl Core {
    /// A caller reads a task that is there.
    pub(crate) fn on_attach(
        &mut self,
        now: Timestamp,
        request: RequestId,
        id: TaskId,
        reader: Reader,
        out: &mut Output,
    ) {
        let reply = match self.find(id) {
            Some(key) => self.attach(now, key, reader, true, out),
            None => Reply::Refused(Refusal::NotFound(id)),
        };
        out.effects.push(Effect::Reply(request, reply));
    }

    pub(crate) fn attach(
        &mut self,
        now: Timestamp,
        key: TaskKey,
        reader: Reader,
        existed: bool,
        out: &mut Output,
    ) -> Reply {
        let task = self.live(key);
        // Or may be yet.
        let is_held = task.held().is_some() || (task.seq < self.recovering_below && task.grant.epoch < self.epoch);
        let id = task.id;
        let Some(stream) = task.stream() else {
            return Reply::Refused(Refusal::NotAStream(id));
        };
        if let Err(refusal) = stream.admit(id, &reader, is_held) {
            return Reply::Refused(refusal);
        }
        let worker_known = self.sched.is_served(task.route());
        let Opened { at, more, again } = self.with_stream(key, |stream| stream.attach(&reader, is_held));
        out.effects.push(Effect::Reading { task: id, at });
        if let Some(credit) = more {
            self.give_credit(key, credit, out);
        }
        self.settle_checkpoints(now, key);
        self.hand_on(key, out);
        if again {
            self.run_again(now, key, out);
        }
        if matches!(self.live(key).state, Live::Unread) {
            // Ready before and after: only the scheduler learns of it.
            self.tasks[key.index()].state = Live::Ready;
            self.sched.insert(&self.live(key).waiting(key));
        }
        Reply::Attached {
            task: id,
            existed,
            worker_known,
            at,
        }
    }

    /// A caller has taken items and has room for more.
    pub(crate) fn on_flow(
        &mut self,
        now: Timestamp,
        id: TaskId,
        (consumer, open_seq): (ConsumerId, u64),
        credit: Credit,
        out: &mut Output,
    ) {
        let Some(key) = self.read_by(id, consumer, open_seq) else {
            return;
        };
        if let Some(more) = self.stream_mut(key).and_then(|stream| stream.raise(credit)) {
            self.give_credit(key, more, out);
        }
        self.settle_checkpoints(now, key);
    }

    /// There is more room: a run that waited for it wants its slot back.
    fn give_credit(&mut self, key: TaskKey, credit: Credit, out: &mut Output) {
        let calls = self.live(key).calls().is_some();
        self.set_lent(key, calls);
        let task = self.live(key);
        if let Some(held) = task.held().filter(|held| held.stop.is_none()) {
            out.effects.push(Effect::Credit {
                session: held.session,
                token: task.token(),
                credit,
            });
        }
    }

    /// Hands the reader what has come and it has not had.
    fn hand_on(&mut self, key: TaskKey, out: &mut Output) {
        let (task, seq) = (self.live(key).id, self.live(key).seq);
        let Some(stream) = self.stream_mut(key) else { return };
        for batch in stream.hand_on() {
            out.effects.push(Effect::Items { task, seq, batch });
        }
    }

    /// A reader has gone.
    pub(crate) fn on_reader_gone(
        &mut self,
        now: Timestamp,
        id: TaskId,
        (consumer, open_seq): (ConsumerId, u64),
        how: Left,
        out: &mut Output,
    ) {
        let Some(key) = self.read_by(id, consumer, open_seq) else {
            return;
        };
        let grace = self.live(key).stream().map_or(Duration::ZERO, Stream::grace);
        if how == Left::Stopped || grace.is_zero() {
            self.cancel(now, key, out);
            return;
        }
        self.with_stream(key, |stream| stream.detach(now));
        self.await_reader(key);
    }

    /// Without a reader a stream is not begun.
    fn await_reader(&mut self, key: TaskKey) {
        match self.live(key).state {
            Live::Ready => {
                let was_there = self.sched.remove(&self.live(key).waiting(key));
                debug_assert!(was_there, "a ready task was not waiting");
            }
            Live::Aside(_) => self.leave_aside(key),
            Live::Scheduled(_) | Live::Recovering | Live::Unread | Live::Held(_) => return,
        }
        self.tasks[key.index()].state = Live::Unread;
    }

    /// Nobody came to read it.
    pub(crate) fn on_detached(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        self.with_stream(key, |stream| stream.detached_until = None);
        self.cancel(now, key, out);
    }

    fn read_by(&self, id: TaskId, consumer: ConsumerId, open_seq: u64) -> Option<TaskKey> {
        let key = self.find(id)?;
        let stream = self.live(key).stream()?;
        stream.is_read_by(consumer, open_seq).then_some(key)
    }

    pub(crate) fn stream_mut(&mut self, key: TaskKey) -> Option<&mut Stream> {
        self.tasks[key.index()].extra.as_mut()?.stream.as_deref_mut()
    }

    /// Changes a stream, and the alarm that hangs on it.
    pub(crate) fn with_stream<T>(&mut self, key: TaskKey, with: impl FnOnce(&mut Stream) -> T) -> T {
        for (at, timer) in self.alarms(key) {
            self.timers.disarm(at, timer);
        }
        let changed = with(self.stream_mut(key).expect("only a stream is changed as one"));
        for (at, timer) in self.alarms(key) {
            self.timers.arm(at, timer);
        }
        changed
    }

    /// Lends a run's slot, or takes it back: then ahead of all that wait, even
    /// if more runs go on for a while than there are slots.
    pub(crate) fn set_lent(&mut self, key: TaskKey, lent: bool) {
        let task = &mut self.tasks[key.index()];
        // What it has called may need the slot, so there is no maximum here.
        let calls = task.calls().is_some();
        let Some(held) = task.held_mut().filter(|held| held.lent != lent) else {
            return;
        };
        let id = held.session;
        let session = self.sessions.get_mut(&id).expect("a run's session is known");
        if lent && !calls && session.lent >= session.slots {
            return;
        }
        held.lent = lent;
        session.lent = if lent { session.lent + 1 } else { session.lent - 1 };
        session.sync_free_slots(id, &mut self.sched);
        self.sync_reach(id);
    }

    pub(crate) fn stop_intent(&self, key: TaskKey) -> Option<StopIntent> {
        self.live(key).held().and_then(|held| held.stop)
    }
}
