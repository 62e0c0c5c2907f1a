//! Handlers that call: they have other tasks run and wait for them or read their
//! items, or leave some behind with their result.

mod error;
mod iterate;
mod open;
mod options;
mod spawn;

use std::future::IntoFuture;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use asynq_proto::{EncodeError, Payload, Task, v1};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

pub use error::CallError;
pub(crate) use iterate::Reading;
pub use iterate::{CalledItems, CalledIter, Iterate};
pub(crate) use open::{Answered, Queue, Runs, Slot, weight};
use options::call_options;
pub use spawn::Spawn;
pub(crate) use spawn::Spawned;

use crate::context::{Context, LeaseToken, StopCause};

/// What all runs of a worker share: their way to the wire, and their slots.
#[derive(Debug)]
pub(crate) struct Shared {
    calls: mpsc::Sender<Asked>,
    next: AtomicU64,
    /// Calls nobody waits for any more: no more than there are.
    withdrawn: Mutex<Vec<u64>>,
    leaving: Notify,
    /// The broker's clock since the Unix epoch, and when it read so.
    clock: Mutex<Option<(Duration, Instant)>>,
    slots: Arc<Semaphore>,
    /// Slots taken back while others still had them: runs that begin give them up.
    owed: AtomicUsize,
    /// How runs read the items of what they have called.
    reading: Reading,
}

/// A run calls.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) token: LeaseToken,
    pub(crate) request: Box<v1::RunCall>,
    pub(crate) reply: oneshot::Sender<Answered>,
    /// For who reads its items: the task is there.
    pub(crate) enqueued: Option<oneshot::Sender<Uuid>>,
}

impl Shared {
    pub(crate) fn new(slots: Arc<Semaphore>, calls: mpsc::Sender<Asked>, reading: Reading) -> Arc<Self> {
        Arc::new(Self {
            calls,
            next: AtomicU64::new(0),
            withdrawn: Mutex::default(),
            leaving: Notify::new(),
            clock: Mutex::default(),
            slots,
            owed: AtomicUsize::new(0),
            reading,
        })
    }

    /// The broker's clock reads this now.
    pub(crate) fn set_clock(&self, now: Duration) {
        *lock(&self.clock) = Some((now, Instant::now()));
    }

    /// Milliseconds since the Unix epoch when so much time has passed.
    fn unix_ms(&self, after: Duration) -> u64 {
        let now = lock(&self.clock).map_or(Duration::ZERO, |(now, read_at)| now + read_at.elapsed());
        options::ms(now.saturating_add(after))
    }

    fn withdraw(&self, call: u64) {
        lock(&self.withdrawn).push(call);
        self.leaving.notify_one();
    }

    /// Until a call is withdrawn. Cancel safe.
    pub(crate) async fn leaving(&self) {
        self.leaving.notified().await;
    }

    pub(crate) fn take_withdrawn(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.withdrawn))
    }

    /// What to send, what to hold until it is answered, and where the answer will be.
    /// In this order: what is dropped last-in first-out is no longer waited for by the
    /// time it is withdrawn, so the wire passes over a call that it hears of later.
    fn ask(
        self: &Arc<Self>,
        context: &Context,
        mut request: v1::RunCall,
    ) -> (Asked, Withdrawal, oneshot::Receiver<Answered>) {
        request.call = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let withdrawal = Withdrawal {
            shared: self.clone(),
            call: Some(request.call),
        };
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            token: context.token(),
            request: Box::new(request),
            reply,
            enqueued: None,
        };
        (asked, withdrawal, answer)
    }

    /// A run begins: slots that were taken back are given up first.
    pub(crate) fn settle(&self) {
        if self.owed.load(Ordering::Relaxed) > 0 {
            let owed = self.owed.swap(0, Ordering::Relaxed);
            let given_up = self.slots.forget_permits(owed);
            self.owed.fetch_add(owed - given_up, Ordering::Relaxed);
        }
    }
}

// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slot is lent for as long as this lives; then it is taken back, whoever has it.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Shared>);

impl Lent {
    fn of(shared: Arc<Shared>) -> Self {
        shared.slots.add_permits(1);
        Self(shared)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.owed.fetch_add(1, Ordering::Relaxed);
        self.0.settle();
    }
}

/// A run's part in all that.
#[derive(Debug, Default)]
pub(crate) struct OfRun {
    pub(crate) shared: Option<Arc<Shared>>,
    /// Tasks it has made, called or spawned.
    made: AtomicU32,
    spawned: OnceLock<Box<Mutex<Spawned>>>,
    /// Its items are read as they come.
    pub(crate) is_streamed: bool,
}

impl OfRun {
    pub(crate) fn new(shared: Arc<Shared>, is_streamed: bool) -> Self {
        Self {
            shared: Some(shared),
            is_streamed,
            ..Self::default()
        }
    }
}

/// A call of a handler: a task that is to be run, and awaited. Made by
/// [`Context::call`]. Nothing happens before it is awaited; dropped after that, it
/// is withdrawn, and the task cancelled.
#[must_use = "nothing is called before it is awaited"]
pub struct Call<R> {
    context: Context,
    name: String,
    payload: Result<Payload, CallError>,
    options: v1::TaskOptions,
    decode: fn(Payload) -> Result<R, CallError>,
}

impl Context {
    /// Has another task run and waits for its result. To be awaited; in a blocking
    /// handler, use [`Call::wait`].
    ///
    /// The task is this attempt's: when the attempt ends, however it ends, the task
    /// is cancelled. Meanwhile this run lends its slot to others, so a task may
    /// call itself on a worker with one slot. It goes on at once when it is
    /// answered, even if more runs go on then for a while than there are slots.
    ///
    /// An attempt that runs again calls again: what was called before was
    /// cancelled with the attempt before.
    ///
    /// ```
    /// use asynq_worker::{Context, Task, TaskError};
    ///
    /// const FIBONACCI: Task<u32, u64> = Task::new("fibonacci");
    ///
    /// async fn fibonacci(context: Context, n: u32) -> Result<u64, TaskError> {
    ///     if n < 2 {
    ///         return Ok(n.into());
    ///     }
    ///     let (one, two) = (n - 1, n - 2);
    ///     let both = tokio::try_join!(context.call(FIBONACCI, &one), context.call(FIBONACCI, &two));
    ///     let (one, two) = both?;
    ///     Ok(one + two)
    /// }
    /// ```
    pub fn call<A, R>(&self, task: Task<A, R>, args: &A) -> Call<R>
    where
        A: Serialize,
        R: DeserializeOwned,
    {
        let payload = Payload::json(args);
        self.calling(task.name(), payload, |result| {
            result.decode().map_err(|error| CallError::Result {
                problem: error.to_string(),
            })
        })
    }

    /// [`Context::call`] for a name and a payload that are known at run time only.
    pub fn call_raw(&self, name: &str, payload: Payload) -> Call<Payload> {
        self.calling(name, payload.checked(), Ok)
    }

    /// Has another task run once this attempt has succeeded: the task and this
    /// run's result become durable together, or neither does. So it is there
    /// once, however often this task is tried.
    ///
    /// ```
    /// use asynq_worker::{Context, Task, TaskError};
    ///
    /// const MAIL: Task<String, ()> = Task::new("mail");
    ///
    /// async fn order(context: Context, item: String) -> Result<(), TaskError> {
    ///     // … takes the order …
    ///     context.spawn(MAIL, &format!("{item} is on its way")).series("mail").on_success()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn spawn<A: Serialize, R>(&self, task: Task<A, R>, args: &A) -> Spawn {
        Spawn::new(self.clone(), task.name(), Payload::json(args))
    }

    /// [`Context::spawn`] for a name and a payload that are known at run time only.
    pub fn spawn_raw(&self, name: &str, payload: Payload) -> Spawn {
        Spawn::new(self.clone(), name, payload.checked())
    }

    fn calling<R>(
        &self,
        name: &str,
        payload: Result<Payload, EncodeError>,
        decode: fn(Payload) -> Result<R, CallError>,
    ) -> Call<R> {
        Call {
            context: self.clone(),
            name: name.to_owned(),
            payload: payload.map_err(CallError::arguments),
            options: v1::TaskOptions::default(),
            decode,
        }
    }

    /// The message of the next task this run makes.
    fn makes(&self, name: String, payload: Payload, options: v1::TaskOptions) -> v1::RunCall {
        v1::RunCall {
            token: Some(self.token().to_wire()),
            n: self.calls().made.fetch_add(1, Ordering::Relaxed) + 1,
            name,
            payload: Some(payload.into()),
            options: Some(options),
            ..v1::RunCall::default()
        }
    }

    /// What it leaves behind if it succeeds.
    pub(crate) fn take_spawned(&self) -> Vec<v1::RunCall> {
        let spawned = self.calls().spawned.get();
        spawned.map_or_else(Vec::new, |spawned| lock(spawned).close())
    }
}

impl<R> Call<R> {
    call_options!();

    /// Waits on this thread. For blocking handlers; an async one that does so would
    /// block its runtime, and panics instead.
    ///
    /// # Errors
    /// As awaiting it.
    ///
    /// # Panics
    /// In an async handler.
    pub fn wait(self) -> Result<R, CallError> {
        runtime_for(&self.name)?.block_on(self.run())
    }

    async fn run(self) -> Result<R, CallError> {
        let Self {
            context,
            name,
            payload,
            options,
            decode,
        } = self;
        let Some(shared) = context.calls().shared.clone() else {
            return Err(CallError::Stopped(StopCause::LeaseLost));
        };
        let request = context.makes(name, payload?, options);
        let (asked, mut withdrawal, answer) = shared.ask(&context, request);
        let answered = async {
            shared.calls.send(asked).await.ok()?;
            answer.await.ok()
        };
        let answered = tokio::select! {
            biased;
            answered = answered => answered,
            cause = context.stopped() => return Err(CallError::Stopped(cause)),
        };
        // Without an answer the run is over, or the wire is.
        withdrawal.call = None;
        let lost = || CallError::Stopped(context.stop_cause().unwrap_or(StopCause::LeaseLost));
        decode(answered.ok_or_else(lost)??)
    }
}

impl<R: Send + 'static> IntoFuture for Call<R> {
    type Output = Result<R, CallError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// What a handler waits on by blocking its thread.
fn runtime_for(name: &str) -> Result<Runtime, CallError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(|error| CallError::Refused {
        name: name.to_owned(),
        reason: "NO_RUNTIME".into(),
        message: error.to_string(),
    })
}

/// Withdraws a call unless it is answered.
struct Withdrawal {
    shared: Arc<Shared>,
    call: Option<u64>,
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.shared.withdraw(call);
        }
    }
}
