//! The session: one stream to the broker that carries what all callers of this client ask.
//!
//! [`Session`] is the callers' side. A background task, [`driver::Driver`],
//! owns the stream; between them lies [`pending::Pending`], which knows what
//! is unanswered and so what must be sent again on the next stream.

mod driver;
mod flows;
mod forgotten;
mod link;
mod op;
mod pending;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use asynq_proto::{Connector, IdMaker, Payload, limits::INLINE_BYTES, v1, v1::answer::Of};
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::AbortHandle,
    time::{Instant, timeout},
};

pub(crate) use self::flows::ConsumerId;
use self::{
    driver::Driver,
    flows::Flows,
    forgotten::{Asked, Forgotten},
    link::{Link, Me},
    op::Op,
    pending::Request,
};
use crate::{
    CallStats, Cancellation, DeadReason, Error, Explanation, Failure, State, TaskId, TaskInfo, Transition, data::Data,
    limits::REQUEST_QUEUE, spec::Spec,
};

/// A cheap handle on the one session of a client. The session ends with the last of them.
#[derive(Clone)]
pub(crate) struct Session {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// What callers and the driver both touch.
struct Shared {
    next_call: AtomicU64,
    ids: Mutex<IdMaker>,
    connected: AtomicBool,
    forgotten: Forgotten,
    flows: Flows,
    broker: String,
    /// The version of the broker that welcomed last; empty if it is too old to tell.
    version: Mutex<String>,
    /// That broker does not believe its clock.
    clock_doubted: AtomicBool,
    data: Data,
    /// Where it lives, whoever uses it from elsewhere.
    runtime: Handle,
    me: Me,
}

/// How a task ended well.
pub(crate) struct Outcome {
    pub(crate) result: Payload,
    pub(crate) stats: CallStats,
}

impl Session {
    /// Connects, trying for [`crate::FIRST_CONNECT`].
    pub(crate) async fn open(connector: Connector) -> Result<Self, Error> {
        let broker = connector.endpoint().to_string();
        let me = Me::new();
        let link = Link::first(&connector, &me).await?;
        let (requests, incoming) = mpsc::channel(REQUEST_QUEUE);
        let shared = Arc::new(Shared {
            next_call: AtomicU64::new(1),
            ids: Mutex::new(IdMaker::new(link.welcome.now_us)),
            connected: AtomicBool::new(true),
            forgotten: Forgotten::default(),
            flows: Flows::default(),
            data: Data::new(connector.data(), broker.clone()),
            runtime: Handle::current(),
            me,
            broker,
            version: Mutex::new(link.welcome.version.clone()),
            clock_doubted: AtomicBool::new(link.welcome.clock_doubted),
        });
        tokio::spawn(Driver::new(connector, incoming, Arc::clone(&shared)).run(link));
        Ok(Self { requests, shared })
    }

    pub(crate) fn new_id(&self) -> TaskId {
        TaskId::new(self.shared.ids().make())
    }

    /// Does something beside its callers, who may block their runtime for long.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.shared.runtime.spawn(work).abort_handle()
    }

    pub(crate) fn data(&self) -> &Data {
        &self.shared.data
    }

    /// Enqueues a task and waits for its end. The request is made at once, which
    /// keeps the future small: thousands may be under way.
    pub(crate) fn call(self, spec: Spec) -> impl Future<Output = Result<Outcome, Error>> + Send + use<> {
        let (id, patience) = (spec.id, spec.patience);
        let keyed = spec.options.key.is_some();
        let request = spec.into_request(self.broker_now(), !keyed).map(Box::new);
        async move {
            if keyed {
                return Box::pin(self.call_keyed(id, request?, patience)).await;
            }
            let run = self.run(id, request?);
            match patience {
                None => run.await,
                Some(patience) => Box::pin(self.end_within(id, patience, run)).await,
            }
        }
    }

    /// For whose end there is to wait is known once it is enqueued.
    async fn call_keyed(
        &self,
        id: TaskId,
        request: Box<v1::EnqueueRequest>,
        patience: Option<Duration>,
    ) -> Result<Outcome, Error> {
        let begun = Instant::now();
        let enqueued = self.within(id, patience, self.put(id, request)).await?;
        let left = patience.map(|patience| patience.saturating_sub(begun.elapsed()));
        self.wait(TaskId::from_wire(&enqueued.id)?, left).await
    }

    async fn run(&self, id: TaskId, request: Box<v1::EnqueueRequest>) -> Result<Outcome, Error> {
        let op = if is_large(&request) {
            self.enqueue_large(id, request).await?;
            Op::Wait(id)
        } else {
            Op::Enqueue(request)
        };
        self.settle(self.ask(op).await?).await
    }

    /// Enqueues a task, durably.
    pub(crate) async fn enqueue(&self, spec: Spec) -> Result<v1::Enqueued, Error> {
        let (id, patience) = (spec.id, spec.patience);
        let request = Box::new(spec.into_request(self.broker_now(), false)?);
        self.within(id, patience, self.put(id, request)).await
    }

    async fn put(&self, id: TaskId, request: Box<v1::EnqueueRequest>) -> Result<v1::Enqueued, Error> {
        if is_large(&request) {
            return self.enqueue_large(id, request).await;
        }
        match self.ask(Op::Enqueue(request)).await? {
            Of::Enqueued(enqueued) => Ok(enqueued),
            _ => Err(Error::unexpected("another answer to an enqueue")),
        }
    }

    /// Enqueues by a call of its own. Boxed, because what a call needs would be
    /// part of every future that might make one.
    async fn enqueue_large(&self, id: TaskId, request: Box<v1::EnqueueRequest>) -> Result<v1::Enqueued, Error> {
        Box::pin(self.data().enqueue(id, *request)).await
    }

    /// Waits for the end of a task.
    pub(crate) async fn wait(&self, id: TaskId, patience: Option<Duration>) -> Result<Outcome, Error> {
        let end = async { self.settle(self.ask(Op::Wait(id)).await?).await };
        match patience {
            None => end.await,
            Some(patience) => self.end_within(id, patience, end).await,
        }
    }

    pub(crate) async fn cancel(&self, id: TaskId) -> Result<Cancellation, Error> {
        match self.ask(Op::Cancel(id)).await? {
            Of::Cancelled(cancelled) => cancelled.try_into(),
            _ => Err(Error::unexpected("another answer to a cancel")),
        }
    }

    /// Ends a stream early; its reader is told when it has ended.
    pub(crate) async fn stop(&self, id: TaskId, consumer: ConsumerId) -> Result<Cancellation, Error> {
        match self.ask(Op::Stop(id, consumer)).await? {
            Of::Cancelled(cancelled) => cancelled.try_into(),
            _ => Err(Error::unexpected("another answer to a stop")),
        }
    }

    /// Gives an opening of a stream room. Only the latest word counts; it is sent as soon as may be.
    pub(crate) fn flow(&self, id: TaskId, consumer: ConsumerId, open_seq: u64, credit: v1::Credit) {
        self.shared.flows.set(id, consumer, open_seq, credit);
    }

    /// A stream has ended, or is to be opened again.
    pub(crate) fn no_more_flow(&self, consumer: ConsumerId) {
        self.shared.flows.remove(consumer);
    }

    pub(crate) async fn show(&self, id: TaskId) -> Result<TaskInfo, Error> {
        match self.ask(Op::Show(id)).await? {
            Of::Shown(info) => info.try_into(),
            _ => Err(Error::unexpected("another answer to a show")),
        }
    }

    pub(crate) async fn explain(&self, id: TaskId) -> Result<Explanation, Error> {
        match self.ask(Op::Explain(id)).await? {
            Of::Explained(explanation) => explanation.try_into(),
            _ => Err(Error::unexpected("another answer to an explain")),
        }
    }

    pub(crate) async fn history(&self, id: TaskId) -> Result<Vec<Transition>, Error> {
        match self.ask(Op::History(id)).await? {
            Of::History(reply) => Ok(reply.transitions.into_iter().map(Transition::from).collect()),
            _ => Err(Error::unexpected("another answer to a history")),
        }
    }

    /// Has one operation answered. Dropping the future withdraws it.
    async fn ask(&self, op: Op) -> Result<Of, Error> {
        let call = self.shared.next_call.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let request = Request {
            call,
            op,
            since: Instant::now(),
            reply,
        };
        // Most often there is room; what waiting for it needs is made only then.
        match self.requests.try_send(request) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => {
                let sent = Box::pin(self.requests.send(request)).await;
                sent.map_err(|_| Error::closed())?;
            }
            Err(TrySendError::Closed(_)) => return Err(Error::closed()),
        }
        let asked = Asked::new(call, &self.shared.forgotten);
        let answer = answer.await;
        asked.answered();
        answer.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Turns the end of a task into its result or the error it ended in.
    async fn settle(&self, answer: Of) -> Result<Outcome, Error> {
        let Of::Finished(mut finished) = answer else {
            return Err(Error::unexpected("another answer to a wait"));
        };
        if finished.result_deferred {
            let id = TaskId::from_wire(&finished.id)?;
            finished = Box::pin(self.data().finished(id)).await?;
        }
        Outcome::of(finished)
    }

    /// Waits for what enqueues a task no longer than `patience`.
    pub(crate) async fn within<T>(
        &self,
        id: TaskId,
        patience: Option<Duration>,
        enqueuing: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(patience) = patience else {
            return enqueuing.await;
        };
        let enqueued = timeout(patience, enqueuing).await;
        enqueued.unwrap_or_else(|_| Err(self.gave_up_waiting(id)))
    }

    async fn end_within(
        &self,
        id: TaskId,
        patience: Duration,
        outcome: impl Future<Output = Result<Outcome, Error>>,
    ) -> Result<Outcome, Error> {
        match timeout(patience, outcome).await {
            Ok(outcome) => outcome,
            Err(_) if self.shared.connected.load(Ordering::Relaxed) => Err(Error::Timeout { id }),
            Err(_) => Err(self.gave_up_waiting(id)),
        }
    }

    fn gave_up_waiting(&self, id: TaskId) -> Error {
        let message = format!(
            "the broker at {} did not answer in the time to wait",
            self.shared.broker
        );
        Error::NoBroker {
            message,
            id: Some(id),
            indefinite: true,
        }
    }

    pub(crate) fn broker(&self) -> &str {
        &self.shared.broker
    }

    pub(crate) fn broker_version(&self) -> String {
        let version = self.shared.version.lock();
        version.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn clock_doubted(&self) -> bool {
        self.shared.clock_doubted.load(Ordering::Relaxed)
    }

    pub(crate) fn broker_now(&self) -> Duration {
        self.shared.ids().broker_now()
    }
}

impl Outcome {
    /// The result of a task that has ended, or the error it ended in.
    pub(crate) fn of(finished: v1::Finished) -> Result<Self, Error> {
        let id = TaskId::from_wire(&finished.id)?;
        match State::from_wire(finished.state) {
            State::Succeeded => Ok(Self {
                result: finished.result.map_or_else(Payload::null, Payload::from),
                stats: finished.stats.map(CallStats::from).unwrap_or_default(),
            }),
            State::Dead => Err(Error::Dead {
                id,
                reason: DeadReason::from_wire(finished.dead_reason),
                failure: finished.error.map(Failure::from).unwrap_or_default(),
            }),
            State::Cancelled => Err(Error::Cancelled { id }),
            State::Expired => Err(Error::Expired { id }),
            _ => Err(Error::unexpected("a finished task that is in no final state")),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.shared.broker).finish()
    }
}

impl Shared {
    fn ids(&self) -> MutexGuard<'_, IdMaker> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker has welcomed us, perhaps another than before.
    fn met(&self, welcome: &v1::SessionWelcome) {
        let version = &mut *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        welcome.version.clone_into(version);
        self.clock_doubted.store(welcome.clock_doubted, Ordering::Relaxed);
    }
}

/// Whether a task is too large for the session.
fn is_large(request: &v1::EnqueueRequest) -> bool {
    request
        .payload
        .as_ref()
        .is_some_and(|payload| payload.data.len() > INLINE_BYTES)
}
