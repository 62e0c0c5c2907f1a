//! The loop's part in what operators ask of tasks that have ended.
//!
//! The core decides by what the store was read to hold, and the store must hold
//! it still when the decision is written. Pruning could come in between: so it
//! goes by a horizon the loop sets, which stands still while such a decision is
//! on its way to the store.

use std::sync::Arc;

use asynq_core::{Event, Refusal, Seq, TaskId, TaskRecord};

use super::caller::{Answer, Caller, Op};
use super::callers::{Asked, not_found};
use super::run::{Held, InFlight, Loop};

impl Loop {
    /// On a task the core knows.
    pub(super) fn operator_on_live(&mut self, task: TaskId, caller: Arc<Caller>, call: u64, op: &Op) {
        let answer = match (self.core.live_state(task), op) {
            (Some(state), Op::Purge(..)) => Answer::Failed(Refusal::OtherState { task, state }.into()),
            (Some(state), _) => Answer::Retried { revived: false, state },
            (None, _) => not_found(task),
        };
        self.hold(Held::Answer(caller, call, answer));
    }

    /// On a task that has ended.
    pub(super) fn operator_on_ended(&mut self, seq: Seq, record: &TaskRecord, asked: Asked) {
        let Asked { caller, call, op } = asked;
        if record.forget_at().is_none_or(|at| at <= self.horizon) {
            // Its time is over, and it may have been pruned since it was read.
            return caller.answer(call, not_found(record.id), true);
        }
        // A task that lives again is a new one to the disk: it has a life's writes before it.
        if let (Op::Retry(_), Some(full)) = (&op, self.admission.refuse(0, 1)) {
            return caller.answer(call, Answer::Failed(full), true);
        }
        let (request, record) = (self.request(caller, call, false), Box::new(record.clone()));
        self.apply(match op {
            Op::Purge(_, states) => Event::Purge {
                request,
                seq,
                record,
                states,
            },
            _ => Event::Retry { request, seq, record },
        });
        self.gathering.keep_horizon();
    }

    /// How a queue is to serve from now on.
    pub(super) fn set_queue(&mut self, Asked { caller, call, op }: Asked) {
        if let Op::SetQueue(queue, update) = op {
            let request = self.request(caller, call, false);
            self.apply(Event::SetQueue { request, queue, update });
        }
    }

    /// What is past its time now may be pruned, unless the store has yet to be
    /// told of something that was past its end and is not, or goes. By a clock that is
    /// not believed nothing is.
    pub(super) fn move_horizon(&mut self) {
        let in_flight = self.in_flight.as_ref().is_some_and(InFlight::keeps_horizon);
        if !in_flight && !self.gathering.keeps_horizon() && self.believed_until.is_none() {
            self.horizon = self.now;
            self.writer.prune_until(self.now);
        }
    }
}
