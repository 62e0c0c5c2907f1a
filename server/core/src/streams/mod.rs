//! Deferred iteration: how far a stream may go, how far it has come, and who reads
//! it. One window holds from end to end: the worker sends what the caller has room
//! for, and what the caller has not acknowledged is kept, so that whoever comes back
//! finds it. docs/adr/0016 says who may go away and come back.

mod batch;
mod place;
mod stream;
mod tail;

use std::time::Duration;

pub use batch::ItemBatch;
pub use place::Place;
pub(crate) use stream::Stream;
use stream::{Opened, OutOfReach, Wrong};
pub use tail::{ITEMS, Tail};

use crate::core::{Core, Output};
use crate::effect::{Effect, Refusal, Reply, StopCause, StreamStart};
use crate::event::RequestId;
use crate::history::Cause;
use crate::ids::{ConsumerId, LeaseToken, SessionId, TaskId};
use crate::lifecycle::Trigger;
use crate::limits;
use crate::live::Live;
use crate::sched::TaskKey;
use crate::task::{DeadReason, Failure, OnLoss, Outcome, StateName, StopIntent};
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
        id: TaskId,
        consumer: ConsumerId,
        open_seq: u64,
        credit: Credit,
        out: &mut Output,
    ) {
        let Some(key) = self.read_by(id, consumer, open_seq) else {
            return;
        };
        if let Some(more) = self.stream_mut(key).and_then(|stream| stream.raise(credit)) {
            self.give_credit(key, more, out);
        }
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

    /// Whether an Emit says that the run stands where it has stood before: the run has
    /// given it up since, and this was late.
    #[must_use]
    pub fn is_old_emit(&self, token: LeaseToken, resume: &EmitResume) -> bool {
        let stream = self.find(token.task).and_then(|key| self.live(key).stream());
        stream.is_some_and(|stream| stream.is_placed() && resume.head < stream.head.index)
    }

    /// A run has opened an Emit: its first, or another one after that broke.
    pub(crate) fn on_emit_opened(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        resume: Option<EmitResume>,
        out: &mut Output,
    ) {
        let Some(key) = self.held_run(session, token) else {
            return;
        };
        // Where nobody asked for a stream, the first item is told so.
        let Some(stream) = self.stream_mut(key) else { return };
        if resume.is_none() && !stream.is_placed() {
            // How far it may go nobody knows any more.
            return self.run_again(now, key, out);
        }
        let from = match resume.map(|run| stream.resume(&run)).transpose() {
            Ok(from) => from,
            Err(wrong) => return self.go_wrong(now, key, wrong, out),
        };
        match stream.out_of_reach() {
            Some(OutOfReach::RunAgain) => return self.run_again(now, key, out),
            Some(OutOfReach::Gone { floor }) => {
                let task = token.task;
                self.with_stream(key, |stream| stream.detach(now));
                out.effects.push(Effect::NotRead { task, floor });
            }
            None => {}
        }
        if let Some(from) = from {
            out.effects.push(Effect::SendFrom { session, token, from });
        }
        let Some(credit) = self.live(key).stream().map(|stream| stream.credit) else {
            return;
        };
        out.effects.push(Effect::Credit { session, token, credit });
    }

    /// What the reader wants takes another run: this one has not what the broker had
    /// of the one before and lost in a restart, or nobody knows where it stands.
    fn run_again(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        let token = self.live(key).token();
        let Some(held) = self.live(key).held().filter(|held| held.stop.is_none()) else {
            return;
        };
        out.effects.push(Effect::Stop {
            session: held.session,
            token,
            cause: StopCause::Stale,
        });
        if self.live(key).has_one_try() {
            return self.give_up_stream(now, key, out);
        }
        self.note(now, key, StateName::Ready, Cause::NotResumed);
        self.put_back(key, out);
    }

    /// A worker sends items.
    pub(crate) fn on_items(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        batch: ItemBatch,
        out: &mut Output,
    ) {
        let Some(key) = self.held_run(session, token) else {
            out.effects.push(Effect::Stop {
                session,
                token,
                cause: StopCause::Stale,
            });
            return;
        };
        if self.stop_intent(key).is_some() {
            return; // It has been told to stop; nobody reads this.
        }
        match self.stream_mut(key).map(|stream| stream.take(batch)) {
            Some(Ok(())) => self.hand_on(key, out),
            Some(Err(wrong)) => self.go_wrong(now, key, wrong, out),
            None => self.break_off(now, key, "items were sent, but nobody asked for a stream".into(), out),
        }
    }

    /// A worker can send nothing more until the caller takes something: its slot
    /// is free for another run meanwhile.
    pub(crate) fn on_blocked(&mut self, session: SessionId, token: LeaseToken, credit: Credit) {
        let Some(key) = self.held_run(session, token) else {
            return;
        };
        // Credit may have been on its way when the worker said so.
        if self.stream_mut(key).is_some_and(|stream| {
            stream.credit.limit_index == credit.limit_index && stream.credit.limit_bytes == credit.limit_bytes
        }) {
            self.set_lent(key, true);
        }
    }

    /// A worker has sent the last item.
    pub(crate) fn on_iterated(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        (count, digest): (u64, Option<u64>),
        out: &mut Output,
    ) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let head = self.stream_mut(key).map(|stream| stream.head);
        let state = match (self.stop_intent(key), head) {
            (Some(intent), _) => self.conclude_stop(now, key, intent, out),
            (None, Some(head)) if head.index == count => match (head.digest, digest) {
                (Some(due), Some(told)) if due != told => {
                    self.break_off(
                        now,
                        key,
                        "the digest of its items is another than the worker's".into(),
                        out,
                    );
                    StateName::Dead
                }
                _ => {
                    self.finish(now, key, Trigger::Completed, Outcome::Succeeded, None, out);
                    StateName::Succeeded
                }
            },
            (None, _) => {
                self.break_off(
                    now,
                    key,
                    format!("the stream was ended at {count} items, which have not all come"),
                    out,
                );
                StateName::Dead
            }
        };
        out.effects.push(Effect::Ack {
            session,
            token,
            verdict: crate::Verdict::Accepted(state),
        });
    }

    /// What the session has declared of the task's stream, if it is one.
    pub(crate) fn declared_on_loss(&self, key: TaskKey, session: SessionId) -> Option<OnLoss> {
        let task = self.live(key);
        task.stream()?;
        let declared = self.sessions[&session].tasks.get(&task.name);
        Some(declared.map_or_else(OnLoss::default, |declared| declared.on_loss))
    }

    /// A run of a stream begins, if the task is one: an error if it would have to
    /// begin behind the first item, and cannot be run again.
    pub(crate) fn begin_stream(&mut self, key: TaskKey, session: SessionId) -> Result<Option<StreamStart>, ()> {
        let on_loss = self.declared_on_loss(key, session).unwrap_or_default();
        let Some(stream) = self.stream_mut(key) else {
            return Ok(None);
        };
        let start = stream.begin_run(on_loss);
        if start.index > 0 && on_loss == OnLoss::Fail {
            return Err(());
        }
        Ok(Some(StreamStart {
            credit: stream.credit,
            start,
        }))
    }

    pub(crate) fn give_up_stream(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        let failure = self.lost_stream(key);
        self.tasks[key.index()].extra_mut().failure = Some(Box::new(failure));
        self.finish(
            now,
            key,
            Trigger::GaveUp,
            Outcome::Dead(DeadReason::WorkerLost),
            None,
            out,
        );
    }

    /// What is said of a stream that cannot be run again.
    pub(crate) fn lost_stream(&self, key: TaskKey) -> Failure {
        let items = self.live(key).stream().map_or(0, |stream| stream.next_start().index);
        Failure {
            kind: "lost".into(),
            message: format!(
                "its worker went away before the stream had ended; {items} items had come, and the iterator is not                  one that can be run again"
            ),
            trace: String::new(),
            retryable: true,
        }
    }

    fn go_wrong(&mut self, now: Timestamp, key: TaskKey, wrong: Wrong, out: &mut Output) {
        let index = match wrong {
            Wrong::Protocol(problem) => return self.break_off(now, key, problem, out),
            Wrong::Differs(index) => index,
        };
        if let Some(stream) = self.stream_mut(key) {
            stream.forget();
        }
        let failure = Failure {
            kind: Failure::NON_DETERMINISTIC.into(),
            message: format!("before item {index} the reader has read other items than the run has yielded"),
            ..Failure::default()
        };
        self.end_wrong(now, key, failure, DeadReason::NonDeterministic, out);
    }

    /// A worker has broken the rules of a stream: the task fails, the run is stale.
    pub(crate) fn break_off(&mut self, now: Timestamp, key: TaskKey, problem: String, out: &mut Output) {
        let failure = Failure {
            kind: "protocol".into(),
            message: problem,
            ..Failure::default()
        };
        self.end_wrong(now, key, failure, DeadReason::Error, out);
    }

    fn end_wrong(&mut self, now: Timestamp, key: TaskKey, failure: Failure, reason: DeadReason, out: &mut Output) {
        let task = self.live(key);
        let token = task.token();
        if let Some(held) = task.held() {
            out.effects.push(Effect::Stop {
                session: held.session,
                token,
                cause: StopCause::Stale,
            });
        }
        self.tasks[key.index()].extra_mut().failure = Some(Box::new(failure));
        self.finish(now, key, Trigger::GaveUp, Outcome::Dead(reason), None, out);
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
