//! Deferred iteration: how far a stream may go and how far it has come. One
//! window holds from end to end: the worker sends what the caller has room for,
//! and what arrives here can be handed on at once.

use bytes::Bytes;

use crate::core::{Core, Output};
use crate::effect::{Effect, StopCause};
use crate::ids::{ConsumerId, LeaseToken, SessionId, TaskId};
use crate::lifecycle::Trigger;
use crate::sched::TaskKey;
use crate::task::{DeadReason, Failure, Outcome, StateName, StopIntent};
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

impl Credit {
    /// Takes the larger of each. Whether there is more room than before.
    fn raise(&mut self, other: Self) -> bool {
        self.acked = self.acked.max(other.acked);
        let before = (self.limit_index, self.limit_bytes);
        self.limit_index = self.limit_index.max(other.limit_index);
        self.limit_bytes = self.limit_bytes.max(other.limit_bytes);
        before != (self.limit_index, self.limit_bytes)
    }
}

/// Who reads a stream, and how much it has room for to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The caller's name for itself.
    pub consumer: ConsumerId,
    /// What it has room for.
    pub credit: Credit,
}

/// Consecutive items, laid end to end. Cheap to clone but for the lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemBatch {
    /// The index of the first.
    pub first_index: u64,
    /// The position of its first byte in all items laid end to end.
    pub first_byte: u64,
    /// The length of each.
    pub lengths: Vec<u32>,
    /// The items.
    pub data: Bytes,
    /// Media type of each; empty means `application/json`.
    pub content_type: Box<str>,
}

/// A stream of a task that has not ended.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) consumer: ConsumerId,
    pub(crate) credit: Credit,
    /// Items received: the index of the next.
    pub(crate) head: u64,
    /// Bytes received.
    pub(crate) head_bytes: u64,
}

impl Stream {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            consumer: reader.consumer,
            credit: reader.credit,
            head: 0,
            head_bytes: 0,
        }
    }

    /// Takes a batch in if it follows on and fits; else says what is wrong.
    fn take(&mut self, batch: &ItemBatch) -> Result<(), String> {
        if (batch.first_index, batch.first_byte) != (self.head, self.head_bytes) {
            return Err(format!(
                "item {} was sent where item {} was due",
                batch.first_index, self.head
            ));
        }
        let (head, head_bytes) = (
            self.head + batch.lengths.len() as u64,
            self.head_bytes + batch.data.len() as u64,
        );
        if head > self.credit.limit_index || head_bytes > self.credit.limit_bytes {
            return Err(format!(
                "item {} at byte {head_bytes} was sent beyond the credit of {} items and {} bytes",
                head - 1,
                self.credit.limit_index,
                self.credit.limit_bytes
            ));
        }
        (self.head, self.head_bytes) = (head, head_bytes);
        Ok(())
    }
}

impl Core {
    /// A caller has taken items and has room for more.
    pub(crate) fn on_flow(&mut self, id: TaskId, consumer: ConsumerId, credit: Credit, out: &mut Output) {
        let Some(key) = self.read_by(id, consumer) else { return };
        let Some(stream) = self.stream_mut(key) else { return };
        // Nobody can have taken what has not come: such a caller is in error.
        let acked = credit.acked.min(stream.head);
        if !stream.credit.raise(Credit { acked, ..credit }) {
            return;
        }
        let credit = stream.credit;
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

    /// The caller has gone: nobody will read the rest.
    pub(crate) fn on_reader_gone(&mut self, now: Timestamp, id: TaskId, consumer: ConsumerId, out: &mut Output) {
        if let Some(key) = self.read_by(id, consumer) {
            self.cancel(now, key, out);
        }
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
        match self.stream_mut(key).map(|stream| stream.take(&batch)) {
            Some(Ok(())) => {
                let task = self.live(key);
                out.effects.push(Effect::Items {
                    task: task.id,
                    seq: task.seq,
                    batch,
                });
            }
            Some(Err(problem)) => self.break_off(now, key, problem, out),
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
        count: u64,
        out: &mut Output,
    ) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match (self.stop_intent(key), self.stream_mut(key).map(|stream| stream.head)) {
            (Some(intent), _) => self.conclude_stop(now, key, intent, out),
            (None, Some(head)) if head == count => {
                self.finish(now, key, Trigger::Completed, Outcome::Succeeded, None, out);
                StateName::Succeeded
            }
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

    /// A worker has broken the rules of a stream: the task fails, the run is stale.
    pub(crate) fn break_off(&mut self, now: Timestamp, key: TaskKey, problem: String, out: &mut Output) {
        let task = self.live(key);
        let token = task.token();
        if let Some(held) = task.held() {
            out.effects.push(Effect::Stop {
                session: held.session,
                token,
                cause: StopCause::Stale,
            });
        }
        let failure = Failure {
            kind: "protocol".into(),
            message: problem,
            ..Failure::default()
        };
        self.tasks[key.index()].extra_mut().failure = Some(Box::new(failure));
        self.finish(now, key, Trigger::GaveUp, Outcome::Dead(DeadReason::Error), None, out);
    }

    fn read_by(&self, id: TaskId, consumer: ConsumerId) -> Option<TaskKey> {
        let key = self.find(id)?;
        self.live(key)
            .stream()
            .filter(|stream| stream.consumer == consumer)
            .map(|_| key)
    }

    fn stream_mut(&mut self, key: TaskKey) -> Option<&mut Stream> {
        self.tasks[key.index()].extra.as_mut()?.stream.as_mut()
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
