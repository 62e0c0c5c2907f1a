//! What runs say of their streams: where they stand, what they yield, how they end.

use super::stream::{OutOfReach, Wrong};
use super::{Credit, EmitResume, ItemBatch};
use crate::core::{Core, Output};
use crate::effect::{Effect, StopCause, StreamStart};
use crate::history::Cause;
use crate::ids::{LeaseToken, SessionId};
use crate::lifecycle::Trigger;
use crate::sched::TaskKey;
use crate::task::{DeadReason, Failure, OnLoss, Outcome, StateName};
use crate::time::Timestamp;

impl Core {
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
        self.settle_checkpoints(now, key);
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
    pub(super) fn run_again(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
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
        let (start, checkpoint) = stream.begin_run(on_loss);
        if start.index > 0 && on_loss == OnLoss::Fail {
            return Err(());
        }
        Ok(Some(StreamStart {
            credit: stream.credit,
            start,
            checkpoint,
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
        Failure::lost(&format!(
            "its worker went away before the stream had ended; {items} items had come, and the iterator is not one that \
             can be run again"
        ))
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
}
