//! What a handler knows of its run, and how it learns that it should stop.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use asynq_proto::{TaskError, v1};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use crate::calls::OfRun;
use crate::emit::Start;
use crate::extend::RunTime;

/// Names one attempt at one task.
///
/// A handler that writes to another store hands it along as a fencing token: of
/// two tokens of a task the larger one, by `(epoch, attempt)`, is the later
/// grant, and the store refuses the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    /// The task.
    pub task_id: Uuid,
    /// The incarnation of the broker's shard that made the grant.
    pub epoch: u64,
    /// The attempt, from 1. Alone it may repeat across epochs.
    pub attempt: u32,
}

/// Tokens of one task are ordered; those of different tasks are not.
impl PartialOrd for LeaseToken {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.task_id == other.task_id).then(|| (self.epoch, self.attempt).cmp(&(other.epoch, other.attempt)))
    }
}

impl LeaseToken {
    pub(crate) fn from_wire(wire: &v1::LeaseToken) -> Option<Self> {
        let task_id = Uuid::from_slice(&wire.task_id).ok()?;
        Some(Self {
            task_id,
            epoch: wire.epoch,
            attempt: wire.attempt,
        })
    }

    pub(crate) fn to_wire(self) -> v1::LeaseToken {
        v1::LeaseToken {
            task_id: Bytes::copy_from_slice(self.task_id.as_bytes()),
            epoch: self.epoch,
            attempt: self.attempt,
        }
    }
}

/// Why a run is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopCause {
    /// The task was cancelled.
    Cancelled,
    /// The attempt took longer than its timeout.
    Timeout,
    /// The task's deadline passed.
    Deadline,
    /// The lease is lost: the broker gives, or has given, the task to someone
    /// else. Nothing this run returns counts any more.
    LeaseLost,
    /// The worker shuts down and its drain timeout passed; the task is given back.
    Shutdown,
}

/// Tells a run to stop. Held by whoever may say so; the first cause stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control(Arc<ControlState>);

#[derive(Debug, Default)]
struct ControlState {
    cause: OnceLock<StopCause>,
    slotless: AtomicBool,
    stopped: CancellationToken,
    /// What is still to be cleaned up; made when first needed.
    lingering: OnceLock<TaskTracker>,
}

impl Control {
    pub(crate) fn stop(&self, cause: StopCause) {
        if self.0.cause.set(cause).is_ok() {
            self.0.stopped.cancel();
        }
    }

    pub(crate) fn cause(&self) -> Option<StopCause> {
        self.0.cause.get().copied()
    }

    /// Whether the run goes on without its slot.
    pub(crate) fn is_slotless(&self) -> bool {
        self.0.slotless.load(Memory::Acquire)
    }

    pub(crate) fn give_up_slot(&self) {
        self.0.slotless.store(true, Memory::Release);
    }

    pub(crate) async fn stopped(&self) -> StopCause {
        self.0.stopped.cancelled().await;
        // The cause is set before the token is cancelled.
        self.cause().unwrap_or(StopCause::Cancelled)
    }

    /// Resolves once nothing lingers.
    pub(crate) async fn settled(&self) {
        if let Some(lingering) = self.0.lingering.get() {
            lingering.close();
            lingering.wait().await;
        }
    }
}

/// Made by [`Context::linger`]: while it lives, the run is not over.
#[derive(Debug)]
#[must_use = "the run lingers for as long as this lives"]
pub struct Linger(#[expect(dead_code, reason = "it is there to be dropped")] TaskTrackerToken);

/// Everything but the arguments: what a run is, how much time it has, whether
/// it should stop. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Run>);

pub(crate) struct Run {
    pub(crate) token: LeaseToken,
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) series: String,
    pub(crate) time: RunTime,
    /// The task must not begin twice.
    pub(crate) at_most_once: bool,
    pub(crate) control: Control,
    pub(crate) calls: OfRun,
    pub(crate) start: Start,
}

tokio::task_local! {
    static CURRENT: Context;
}

impl Context {
    pub(crate) fn new(run: Run) -> Self {
        Self(Arc::new(run))
    }

    /// The run that the calling code belongs to, for logs and the like: within a
    /// handler, async or blocking. `None` elsewhere, also in what a handler has
    /// spawned.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// What it calls and spawns.
    pub(crate) fn calls(&self) -> &OfRun {
        &self.0.calls
    }

    /// A future that is part of the run.
    pub(crate) fn around<F: Future>(self, part: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, part)
    }

    /// Does something on this thread that is part of the run.
    pub(crate) fn on_this_thread<T>(self, part: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, part)
    }

    /// The task's id.
    #[must_use]
    pub fn task_id(&self) -> Uuid {
        self.0.token.task_id
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.token.attempt
    }

    /// The item an iterator may begin with: for one that need not make again what
    /// was sent before.
    ///
    /// 0 on a first run, and for who calls the task instead of iterating it. Where an
    /// iterator with [`OnLoss::Replay`](crate::OnLoss::Replay) runs again after n items, n ≥ 1,
    /// this is n − 1: one item early, because the first one is held against the one
    /// that was sent, and left out. If they differ, the task is dead, with the reason
    /// `non_deterministic`. No item before it is looked at; one that does not ask makes
    /// all items again, and all are held against those before. With
    /// [`OnLoss::Checkpoint`](crate::OnLoss::Checkpoint) it is the number of items before
    /// the checkpoint that [`start_checkpoint`](Self::start_checkpoint) gives.
    ///
    /// Ask before the first item is yielded: in the handler, in the generator or on its
    /// thread. Who asks must begin there. After the first item, who has not asked before
    /// is told 0.
    ///
    /// ```
    /// use asynq_worker::{Context, Iter, OnLoss, TaskError, Worker};
    ///
    /// const SQUARES: Iter<u64, u64> = Iter::new("squares", OnLoss::Replay);
    ///
    /// fn squares(context: Context, count: u64) -> impl Iterator<Item = Result<u64, TaskError>> {
    ///     (context.start_index()..count).map(|n| Ok(n * n))
    /// }
    ///
    /// let worker = Worker::builder("http://127.0.0.1:7740").blocking_iter(SQUARES, squares).build()?;
    /// # Ok::<(), asynq_worker::BuildError>(())
    /// ```
    #[must_use]
    pub fn start_index(&self) -> u64 {
        self.0.start.tell()
    }

    /// The checkpoint an iterator with [`OnLoss::Checkpoint`](crate::OnLoss::Checkpoint)
    /// begins at: the token it yielded then, read as JSON. `None` if it begins at the
    /// beginning.
    ///
    /// It begins there exactly: its first item is the one with
    /// [`start_index`](Self::start_index), which asks for the same. Items that have been
    /// sent before are left out by their number. An iterator with checkpoints has to ask
    /// for one of the two before it yields its first item, in the handler, in the
    /// generator or on its thread; else it fails when it is to go on from a checkpoint.
    ///
    /// [`Yield`](crate::Yield) has an example.
    ///
    /// # Errors
    /// If the token is not of this type: perhaps another version has made it.
    pub fn start_checkpoint<C: DeserializeOwned>(&self) -> Result<Option<C>, TaskError> {
        let Some(checkpoint) = self.0.start.tell_checkpoint() else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&checkpoint.token);
        read.map(Some).map_err(|error| {
            let index = checkpoint.index;
            TaskError::terminal(format!("the checkpoint at item {index} cannot be read: {error}"))
        })
    }

    /// The same as the bytes it was yielded as.
    #[must_use]
    pub fn start_checkpoint_bytes(&self) -> Option<Bytes> {
        self.0
            .start
            .tell_checkpoint()
            .map(|checkpoint| checkpoint.token.clone())
    }

    /// Where the items begin that the run sends.
    pub(crate) fn start(&self) -> &Start {
        &self.0.start
    }

    /// The lease token, to fence other stores with.
    #[must_use]
    pub fn token(&self) -> LeaseToken {
        self.0.token
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The queue it came from.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.0.queue
    }

    /// Its series within the queue; empty for none.
    #[must_use]
    pub fn series(&self) -> &str {
        &self.0.series
    }

    /// Whether the task must not begin twice: this is its only attempt.
    #[must_use]
    pub fn is_at_most_once(&self) -> bool {
        self.0.at_most_once
    }

    /// How long the run has left until its timeout or its task's deadline,
    /// whichever is nearer; `None` if it has neither. The broker enforces both.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.0.time.ends_at()?.saturating_duration_since(Instant::now()))
    }

    /// Moves the timeout of this attempt, so that it has at least this long from now
    /// on: for work that goes well and takes longer than whoever set the timeout
    /// thought. May be called over and over, between one step and the next; what is
    /// left already counts, so nothing adds up. [`remaining`](Self::remaining) tells
    /// at once what there is now, which may be an eighth more, or one second.
    ///
    /// The task's deadline does not move, and no attempt gets longer than ten years
    /// in all. The broker remembers it, over its own restarts too. A run without a
    /// timeout, or one that has been told to stop, has nothing to move.
    pub fn extend(&self, by: Duration) {
        if !self.is_stopped() {
            self.0.time.extend(self.0.token, by);
        }
    }

    /// Whether the run should stop. For blocking handlers, which nobody can
    /// interrupt: look at it between steps, and return anything when it is true.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.control.cause().is_some()
    }

    /// Why the run should stop; `None` while it should not.
    #[must_use]
    pub fn stop_cause(&self) -> Option<StopCause> {
        self.0.control.cause()
    }

    /// Keeps the run from being over for as long as the value lives: its slot
    /// stays taken and the broker does not hear of its end. For what a dropped
    /// handler leaves behind that must be gone before another attempt begins,
    /// such as a child process.
    ///
    /// Take it while the handler runs. It holds up a drain, though not beyond
    /// the drain timeout.
    pub fn linger(&self) -> Linger {
        Linger(self.0.control.0.lingering.get_or_init(TaskTracker::new).token())
    }

    /// Resolves once nothing of the handler lingers.
    pub(crate) async fn settled(&self) {
        self.0.control.settled().await;
    }

    /// Another run may have this one's slot. It keeps it: when this one has
    /// work again, both go on for a while.
    pub(crate) fn give_up_slot(&self) {
        self.0.control.give_up_slot();
    }

    /// Resolves once the run should stop. An async handler need not wait for
    /// it, because it is dropped at its await point then; what it has spawned may.
    pub async fn stopped(&self) -> StopCause {
        self.0.control.stopped().await
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name())
            .field("token", &self.token())
            .field("stop_cause", &self.stop_cause())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_grants_are_larger_and_other_tasks_do_not_compare() {
        let token = |id, epoch, attempt| LeaseToken {
            task_id: Uuid::from_u128(id),
            epoch,
            attempt,
        };
        assert!(token(1, 1, 9) < token(1, 2, 1));
        assert!(token(1, 1, 1) < token(1, 1, 2));
        assert_eq!(token(1, 1, 1).partial_cmp(&token(2, 1, 1)), None);
    }

    #[test]
    fn tokens_go_round_and_malformed_ones_are_no_tokens() {
        let token = LeaseToken {
            task_id: Uuid::from_u128(7),
            epoch: 8,
            attempt: 9,
        };
        assert_eq!(LeaseToken::from_wire(&token.to_wire()), Some(token));
        assert_eq!(
            LeaseToken::from_wire(&v1::LeaseToken {
                task_id: vec![1; 15].into(),
                epoch: 1,
                attempt: 1
            }),
            None
        );
    }

    #[tokio::test]
    async fn the_first_cause_stays() {
        let control = Control::default();
        assert_eq!(control.cause(), None);
        control.stop(StopCause::Timeout);
        control.stop(StopCause::Cancelled);
        assert_eq!(control.stopped().await, StopCause::Timeout);
    }
}
