//! One caller: what it can ask, what it is answered, how much of both may be
//! under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use asynq_core::limits::MAX_SESSION_CALLS;
use asynq_core::{
    Call, CancelOutcome, ConsumerId, Credit, Explanation, Finished, Name, Place, QueueUpdate, QueueView, SessionId,
    StateName, StateSet, TaskId, TaskSpec, TaskView, Transition,
};
use asynq_proto::limits::{INLINE_BYTES, MAX_BATCH_BYTES, MAX_BATCH_OPS};

use super::consumer::Iterate;
use super::error::{End, Error};
use super::outbox::{Outbox, Weigh};
use crate::limits::{INLINE_BACKLOG_BYTES, MAX_OUTSTANDING};

/// An operation, checked as far as it can be without the broker.
#[derive(Debug)]
pub(crate) enum Op {
    /// Run a task.
    Enqueue(Enqueue),
    /// Tell when it has ended.
    Wait(TaskId),
    /// End it.
    Cancel(TaskId),
    /// Tell all that is known of it.
    Show(TaskId),
    /// Tell why it is where it is.
    Explain(TaskId),
    /// Have it run again if it is dead.
    Retry(TaskId),
    /// Forget it if it is in one of these states.
    Purge(TaskId, StateSet),
    /// Tell what it went through.
    History(TaskId),
    /// Withdraw the wait that call made. Unanswered.
    Forget(u64),
    /// Run a task and send its items as they come.
    Iterate(Iterate),
    /// A stream may go this far. Unanswered.
    Flow(TaskId, ConsumerId, u64, Credit),
    /// End a stream early.
    Stop(TaskId, ConsumerId),
    /// Have a queue serve so.
    SetQueue(Name, QueueUpdate),
    /// What was asked makes no sense.
    Invalid(Error),
}

/// See [`Op::Enqueue`].
#[derive(Debug)]
pub(crate) struct Enqueue {
    pub(crate) spec: Box<TaskSpec>,
    /// The id cannot have been used before.
    pub(crate) first_send: bool,
    /// Tell the end too.
    pub(crate) wait: bool,
    /// A run asks for it, and lends its slot meanwhile.
    pub(crate) by: Option<CallingRun>,
}

/// A run that calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallingRun {
    /// `None`: it was said on the data connection.
    pub(crate) session: Option<SessionId>,
    pub(crate) call: Call,
}

/// An operation with the number its answer will carry.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) call: u64,
    pub(crate) op: Op,
}

impl Ask {
    /// Bytes of the arguments it carries.
    pub(super) fn payload_bytes(&self) -> usize {
        match &self.op {
            Op::Enqueue(enqueue) => enqueue.spec.payload.data.len(),
            Op::Iterate(iterate) => iterate.spec.as_ref().map_or(0, |spec| spec.payload.data.len()),
            _ => 0,
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Enqueued {
        task: TaskId,
        existed: bool,
        worker_known: bool,
    },
    /// A stream is read from `at` on.
    Attached {
        task: TaskId,
        existed: bool,
        worker_known: bool,
        at: Place,
    },
    /// Without the result where `deferred`.
    Finished {
        end: Arc<Finished>,
        deferred: bool,
    },
    Cancelled {
        task: TaskId,
        outcome: CancelOutcome,
        state: StateName,
    },
    Retried {
        revived: bool,
        state: StateName,
    },
    Purged(StateName),
    QueueSet(Box<QueueView>),
    Shown(Box<TaskView>),
    Explained(Box<Explanation>),
    History(TaskId, Vec<Transition>),
    Failed(Error),
}

impl Answer {
    pub(crate) fn finished(end: Arc<Finished>) -> Self {
        Self::Finished { end, deferred: false }
    }
}

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) call: u64,
    pub(crate) answer: Answer,
    /// The operation is answered; else more will come.
    last: bool,
}

impl Weigh for Answered {
    fn weight(&self) -> usize {
        const ENVELOPE: usize = 64;
        ENVELOPE
            + match &self.answer {
                Answer::Finished { end, .. } => {
                    let result = end.result.as_ref().map_or(0, |result| result.data.len());
                    let failure = end.failure.as_ref().map_or(0, |f| f.message.len() + f.trace.len());
                    result + failure
                }
                Answer::Shown(view) => {
                    let failure = view
                        .record
                        .failure
                        .as_ref()
                        .map_or(0, |f| f.message.len() + f.trace.len());
                    512 + failure
                }
                Answer::Explained(_) | Answer::QueueSet(_) => 512,
                Answer::History(_, steps) => steps.iter().map(|step| 128 + step.message.len()).sum(),
                Answer::Failed(_) => 128,
                Answer::Enqueued { .. }
                | Answer::Attached { .. }
                | Answer::Cancelled { .. }
                | Answer::Retried { .. }
                | Answer::Purged(_) => 0,
            }
    }
}

/// Names a [`Caller`] within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallerId(u64);

/// A session of a caller, or one unary call.
#[derive(Debug)]
pub(crate) struct Caller {
    id: CallerId,
    outbox: Outbox<Answered>,
    /// Operations begun whose last answer has not been taken.
    outstanding: AtomicU32,
    /// No more operations will come.
    finishing: AtomicBool,
    /// Larger results do not ride along.
    inline_bytes: usize,
    /// More operations at a time are too many.
    max_outstanding: u32,
}

impl Caller {
    /// A session: large results are fetched apart.
    pub(crate) fn session() -> Arc<Self> {
        Self::new(INLINE_BYTES, MAX_OUTSTANDING)
    }

    /// The runs of a worker on one of its connections. The core bounds their calls;
    /// the rest is for answers on their way.
    pub(crate) fn worker() -> Arc<Self> {
        Self::new(INLINE_BYTES, MAX_SESSION_CALLS + MAX_OUTSTANDING)
    }

    /// One call: its result comes whole.
    pub(crate) fn unary() -> Arc<Self> {
        Self::new(usize::MAX, MAX_OUTSTANDING)
    }

    fn new(inline_bytes: usize, max_outstanding: u32) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: CallerId(NEXT.fetch_add(1, Ordering::Relaxed)),
            outbox: Outbox::new(),
            outstanding: AtomicU32::new(0),
            finishing: AtomicBool::new(false),
            inline_bytes,
            max_outstanding,
        })
    }

    pub(crate) fn id(&self) -> CallerId {
        self.id
    }

    pub(crate) fn outbox(&self) -> &Outbox<Answered> {
        &self.outbox
    }

    /// An operation begins. `false` if there are too many: the caller is ended.
    pub(super) fn begin(&self) -> bool {
        let room = self.outstanding.fetch_add(1, Ordering::Relaxed) < self.max_outstanding;
        if !room {
            self.outbox.end(End::TooManyOutstanding);
        }
        room
    }

    /// Answers an operation that has begun; `last` if nothing more follows.
    pub(super) fn answer(&self, call: u64, mut answer: Answer, last: bool) {
        if let Answer::Finished { end, deferred } = &mut answer
            && let Some(result) = &end.result
        {
            let crowded = self.inline_bytes < usize::MAX && self.outbox.bytes() > INLINE_BACKLOG_BYTES;
            *deferred = crowded || result.data.len() > self.inline_bytes;
            if *deferred {
                // The result itself must not wait in memory for a slow caller.
                *end = Arc::new(Finished {
                    result: None,
                    ..Finished::clone(end)
                });
            }
        }
        self.outbox.push(Answered { call, answer, last });
    }

    /// Operations that will not be answered, or have been.
    pub(super) fn settle(&self, operations: u32) {
        let before = self.outstanding.fetch_sub(operations, Ordering::AcqRel);
        if before == operations && self.finishing.load(Ordering::Acquire) {
            self.outbox.end(End::Done);
        }
    }

    /// No more operations will come: the stream ends when all are answered.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
        if self.outstanding.load(Ordering::Acquire) == 0 {
            self.outbox.end(End::Done);
        }
    }

    /// Waits for answers and takes what is there, up to one message's worth.
    pub(crate) async fn take(&self, batch: &mut Vec<Answered>) -> Option<Error> {
        let end = self.outbox.take(batch, MAX_BATCH_OPS, MAX_BATCH_BYTES).await;
        let last = batch.iter().filter(|answered| answered.last).count();
        if last > 0 {
            self.settle(last as u32);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use asynq_core::{Outcome, Payload, Timestamp};
    use futures_util::FutureExt;

    use super::*;

    fn finished(bytes: usize) -> Answer {
        Answer::finished(Arc::new(Finished {
            task: TaskId([1; 16]),
            outcome: Outcome::Succeeded,
            result: Some(Payload {
                content_type: "".into(),
                data: vec![0; bytes].into(),
            }),
            failure: None,
            enqueued_at: Timestamp::ZERO,
            started_at: None,
            at: Timestamp::ZERO,
            attempts: 1,
        }))
    }

    fn take(caller: &Caller) -> Vec<Answered> {
        let mut batch = Vec::new();
        caller.take(&mut batch).now_or_never();
        batch
    }

    fn deferred(caller: &Caller) -> Vec<bool> {
        let is_deferred = |a: Answered| matches!(a.answer, Answer::Finished { deferred: true, .. });
        take(caller).into_iter().map(is_deferred).collect()
    }

    #[test]
    fn large_results_ride_with_unary_calls_only() {
        for (caller, expected) in [(Caller::session(), true), (Caller::unary(), false)] {
            assert!(caller.begin() && caller.begin());
            caller.answer(1, finished(INLINE_BYTES), true);
            caller.answer(2, finished(INLINE_BYTES + 1), true);
            assert_eq!(deferred(&caller), [false, expected]);
        }
    }

    #[test]
    fn results_do_not_pile_up_for_a_caller_that_does_not_read() {
        let caller = Caller::session();
        for call in 0..10_000 {
            assert!(caller.begin());
            caller.answer(call, finished(INLINE_BYTES), true);
        }
        assert!(caller.outbox.bytes() < INLINE_BACKLOG_BYTES + 10_000 * 100);
        let mut kept = 0;
        while caller.outbox.bytes() > 0 {
            for answered in take(&caller) {
                let Answer::Finished { end, .. } = answered.answer else {
                    panic!("{answered:?}")
                };
                kept += end.result.as_ref().map_or(0, |result| result.data.len());
            }
        }
        let most = INLINE_BACKLOG_BYTES + INLINE_BYTES;
        assert!(kept <= most, "{kept} bytes of results were kept, not {most}");
    }

    #[test]
    fn a_caller_that_asks_too_much_is_ended() {
        let caller = Caller::session();
        assert!((0..MAX_OUTSTANDING).all(|_| caller.begin()));
        caller.answer(0, finished(0), true);
        assert_eq!(take(&caller).len(), 1);
        assert!(caller.begin(), "what was answered and taken makes room");
        assert!(!caller.begin());
        assert_eq!(
            caller.take(&mut Vec::new()).now_or_never(),
            Some(Some(End::TooManyOutstanding.into()))
        );
    }

    #[test]
    fn a_half_closed_session_ends_after_its_last_answer() {
        let caller = Caller::session();
        assert!(caller.begin());
        caller.finish();
        assert_eq!(caller.take(&mut Vec::new()).now_or_never(), None);
        caller.answer(1, finished(0), false);
        assert_eq!(take(&caller).len(), 1);
        assert_eq!(caller.take(&mut Vec::new()).now_or_never(), None);
        caller.answer(1, finished(0), true);
        assert_eq!(take(&caller).len(), 1);
        assert_eq!(
            caller.take(&mut Vec::new()).now_or_never(),
            Some(Some(End::Done.into()))
        );
    }
}
