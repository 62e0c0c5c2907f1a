//! What can happen to the core. The shell turns messages and time into events.

use std::time::Duration;

use crate::filter::StateSet;
use crate::ids::{ConsumerId, LeaseToken, Name, Seq, SessionId, TaskId};
use crate::queues::QueueUpdate;
use crate::streams::{Checkpoint, Credit, EmitResume, ItemBatch, Left, Reader};
use crate::task::{Failure, OnLoss, Payload, TaskRecord, TaskSpec};

/// Chosen by the shell to match a [`crate::Reply`] with whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A caller wants a task run. The shell has made sure that no finished task
    /// has the id. Answered by one [`crate::Reply`].
    Enqueue {
        /// Whom to answer.
        request: RequestId,
        /// What to run.
        spec: Box<TaskSpec>,
        /// Who reads its items as they come; such a task ends with its reader.
        reader: Option<Reader>,
    },
    /// A run wants a task run and waits for its end. The shell has made sure that
    /// no finished task has the id, which is [`LeaseToken::child`]. Answered by one
    /// [`crate::Reply`].
    Call {
        /// Whom to answer.
        request: RequestId,
        /// Who says so.
        session: SessionId,
        /// Which run, and which of the tasks it has made.
        call: Call,
        /// What to run.
        spec: Box<TaskSpec>,
    },
    /// A run no longer wants what it has called.
    Withdraw {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// Which of the tasks it has made.
        n: u32,
    },
    /// A caller no longer wants a task. Answered by one [`crate::Reply`].
    Cancel {
        /// Whom to answer.
        request: RequestId,
        /// Which task.
        task: TaskId,
    },
    /// An operator wants a task that has ended run again. Answered by one
    /// [`crate::Reply`].
    Retry {
        /// Whom to answer.
        request: RequestId,
        /// Its place in the order.
        seq: Seq,
        /// The task, as the store has it: no change since it ended is under way.
        record: Box<TaskRecord>,
    },
    /// An operator wants a task that has ended forgotten. Answered by one
    /// [`crate::Reply`].
    Purge {
        /// Whom to answer.
        request: RequestId,
        /// Its place in the order.
        seq: Seq,
        /// The task, as the store has it: no change since it ended is under way.
        record: Box<TaskRecord>,
        /// Only if it is in one of these.
        states: StateSet,
    },
    /// An operator wants a queue to serve otherwise. Answered by one [`crate::Reply`].
    SetQueue {
        /// Whom to answer.
        request: RequestId,
        /// Which; it need not hold tasks.
        queue: Name,
        /// How.
        update: QueueUpdate,
    },
    /// A worker connected.
    SessionOpened(Box<Hello>),
    /// A worker is alive.
    Heartbeat(SessionId),
    /// A worker takes nothing new.
    Draining(SessionId),
    /// A worker's connection is gone.
    SessionClosed {
        /// Whose.
        session: SessionId,
        /// How.
        how: Closed,
    },
    /// A run returned. Answered by one [`crate::Effect::Ack`].
    Completed {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// What it returned.
        result: Payload,
    },
    /// A run returned, and these tasks begin with its end. Answered by one
    /// [`crate::Effect::Ack`].
    CompletedWith {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// What it returned.
        result: Payload,
        /// What it has spawned; each id is a [`LeaseToken::child`].
        children: Vec<TaskSpec>,
    },
    /// A run failed. Answered by one [`crate::Effect::Ack`].
    Failed {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// How.
        failure: Failure,
        /// The task has at least so many attempts, whatever its options say; 0: as
        /// many as those.
        min_attempts: u32,
    },
    /// A run took longer than its worker allows. Answered by one
    /// [`crate::Effect::Ack`].
    TimedOut {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// What the worker says of it.
        failure: Failure,
    },
    /// The process of a run died. Answered by one [`crate::Effect::Ack`].
    Crashed {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// How, as far as anybody knows.
        failure: Failure,
    },
    /// A grant is given back unstarted. Answered by one [`crate::Effect::Ack`].
    Released {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
    },
    /// A stopped run has ended without a result. Answered by one
    /// [`crate::Effect::Ack`].
    Ended {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
    },
    /// A run is to have at least so much time from now on, of its attempt's timeout.
    Extended {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// How much.
        left: Duration,
    },
    /// A stopped run did not end, and nobody can end it: it goes on, and its task
    /// without it. Answered by one [`crate::Effect::Ack`].
    Abandoned {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
    },
    /// So many of a worker's slots are taken by runs that were abandoned, or that
    /// go on though they are not the worker's any more.
    Leaked {
        /// Whose.
        session: SessionId,
        /// How many.
        slots: u32,
    },
    /// A caller reads the stream of a task that is there. Answered by one
    /// [`crate::Reply`].
    Attach {
        /// Whom to answer.
        request: RequestId,
        /// Of which task.
        task: TaskId,
        /// Who, and from where.
        reader: Reader,
    },
    /// A caller has taken items and has room for more.
    Flow {
        /// Of which task.
        task: TaskId,
        /// Which reader.
        consumer: ConsumerId,
        /// Of which of its openings; 0 for the last.
        open_seq: u64,
        /// What it has taken and has room for.
        credit: Credit,
    },
    /// A reader has gone.
    ReaderGone {
        /// Of which task.
        task: TaskId,
        /// Which reader.
        consumer: ConsumerId,
        /// Of which of its openings; 0 for the last.
        open_seq: u64,
        /// Whether it may come back.
        how: Left,
    },
    /// A run has opened an Emit stream.
    EmitOpened {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// Where it stands, if it had another before.
        resume: Option<EmitResume>,
    },
    /// A run yields items.
    Items {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// The items.
        batch: ItemBatch,
    },
    /// A generator can begin again behind the items its run has yielded.
    Checkpoint {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// Where, and by what.
        checkpoint: Checkpoint,
    },
    /// A run has waited for credit for a while.
    Blocked {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// The credit that is used up.
        credit: Credit,
    },
    /// A run has yielded its last item. Answered by one [`crate::Effect::Ack`].
    Iterated {
        /// Who says so.
        session: SessionId,
        /// Which run.
        token: LeaseToken,
        /// Items in all.
        count: u64,
        /// The digest of all of them.
        digest: Option<u64>,
    },
    /// The shell did not run for so long, and heartbeats may wait unread: leases and
    /// graces last for as much longer. Before the next [`Event::Tick`] the shell
    /// takes in what has been waiting.
    Gap(Duration),
    /// Nothing but time has passed.
    Tick,
}

/// A call of a run: the `n`-th task it makes, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The run.
    pub token: LeaseToken,
    /// Which.
    pub n: u32,
}

/// How a session's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The worker said goodbye: it holds nothing any more.
    Goodbye,
    /// Reset or end of file: it may come back, but what it ran is given up soon.
    Reset,
    /// Nothing was heard of it for a while: it may go on and know of nothing, so
    /// what it ran is its own until its lease ends.
    Silent,
}

/// What a worker says when it connects.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Its session: a new one, or one to resume.
    pub session: SessionId,
    /// Its name.
    pub worker: Name,
    /// Runs it takes at a time, 1…[`crate::limits::MAX_SLOTS`].
    pub slots: u32,
    /// What it can run.
    pub tasks: Vec<Declaration>,
    /// Runs that still go on, when it resumes.
    pub held: Vec<LeaseToken>,
    /// See [`Event::Leaked`].
    pub leaked: u32,
}

/// A task name a worker can run, with defaults for tasks that say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The name.
    pub name: Name,
    /// Longest time of one attempt.
    pub timeout: Option<Duration>,
    /// Failures allowed.
    pub max_attempts: Option<u32>,
    /// What becomes of its streams when they are lost.
    pub on_loss: OnLoss,
}
