//! The handle others hold on the broker loop: cheap to clone, bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use asynq_core::{
    ConsumerId, Credit, Epoch, LeaseToken, Left, Payload, QueueView, SessionId, TaskId, Verdict, WorkerView,
};
use asynq_proto::limits::INLINE_BYTES;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::caller::{Answer, Answered, Ask, Caller, CallerId, Op};
use super::clients::ClientId;
use super::consumer::{Consumer, ConsumerGuard, Iterate};
use super::emitter::{Emission, EmitRun, Emitter};
use super::error::{End, Error};
use super::listing::{ListTasks, Listing, Page};
use super::worker::{Hangup, Report, WorkerConn, WorkerHello, WorkerInput};
use crate::clock::Clock;
use crate::limits::{COMMAND_QUEUE_KIB, MAX_LISTINGS, MAX_NAP, MAX_SILENCE};
use crate::line::Line;
use crate::metrics::Figures;
use crate::server::Durability;

/// What the loop can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// The session of a client that may have had others.
    Hello {
        caller: Arc<Caller>,
        client: ClientId,
        connection: u64,
    },
    /// Operations of one message, in order.
    Ask {
        caller: Arc<Caller>,
        asks: Vec<Ask>,
    },
    /// The caller asks no more.
    Finish {
        caller: Arc<Caller>,
    },
    WorkerHello {
        hello: WorkerHello,
        conn: Arc<WorkerConn>,
        opened: oneshot::Sender<Result<SessionId, Error>>,
    },
    WorkerInput {
        session: SessionId,
        conn: Arc<WorkerConn>,
        input: WorkerInput,
    },
    WorkerHangup {
        session: SessionId,
        conn: Arc<WorkerConn>,
        how: Hangup,
    },
    CompleteLarge {
        report: Report,
        reply: oneshot::Sender<Verdict>,
    },
    FetchPayload {
        token: LeaseToken,
        reply: oneshot::Sender<Result<Payload, Error>>,
    },
    /// A frame of a run's Emit stream.
    Emit {
        run: EmitRun,
        emitter: Arc<Emitter>,
        said: Emission,
    },
    /// Credit for a stream.
    Flow {
        task: TaskId,
        consumer: ConsumerId,
        open_seq: u64,
        credit: Credit,
    },
    /// Items have been written to a consumer.
    Written {
        task: TaskId,
        consumer: Arc<Consumer>,
    },
    List(Box<Listing>),
    Queues(oneshot::Sender<Vec<QueueView>>),
    Workers(oneshot::Sender<Vec<WorkerView>>),
    Figures(oneshot::Sender<Box<Figures>>),
    /// Says that the loop answers.
    Ping(oneshot::Sender<()>),
}

impl Command {
    /// Bytes of arguments, results or items it carries.
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Ask { asks, .. } => asks.iter().map(Ask::payload_bytes).sum(),
            Self::WorkerInput { input, .. } => input.payload_bytes(),
            Self::CompleteLarge { report, .. } => report.payload_bytes(),
            Self::Emit { said, .. } => said.payload_bytes(),
            _ => 0,
        }
    }
}

/// A command on its way, with its share of the memory for such.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) command: Command,
    _share: Option<OwnedSemaphorePermit>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    commands: mpsc::Sender<Sent>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    epoch: Epoch,
    durability: Durability,
    doubts_clock: bool,
    /// Callers that left. The loop drops their waits on its next turn, so this
    /// is never longer than the list of waits.
    gone: Mutex<Vec<CallerId>>,
    /// Consumers of streams that left before the end: no more than there are
    /// streams.
    left: Mutex<Vec<(TaskId, Arc<Consumer>, Left)>>,
    /// Something has been added to that list.
    leaving: Notify,
    /// KiB that large commands on their way may still take.
    large: Arc<Semaphore>,
    /// Listings there is room for.
    listings: Arc<Semaphore>,
    ended: CancellationToken,
    why: OnceLock<End>,
    /// Sessions of callers there are.
    sessions: AtomicUsize,
    began: Instant,
    /// When the loop last ended a turn, in milliseconds since then.
    beat: AtomicU64,
}

impl Broker {
    pub(super) fn new(
        commands: mpsc::Sender<Sent>,
        clock: Arc<dyn Clock>,
        epoch: Epoch,
        durability: Durability,
        doubts_clock: bool,
    ) -> Self {
        let shared = Shared {
            clock,
            epoch,
            durability,
            doubts_clock,
            gone: Mutex::default(),
            left: Mutex::default(),
            leaving: Notify::new(),
            large: Arc::new(Semaphore::new(COMMAND_QUEUE_KIB)),
            listings: Arc::new(Semaphore::new(MAX_LISTINGS)),
            ended: CancellationToken::new(),
            why: OnceLock::new(),
            sessions: AtomicUsize::new(0),
            began: Instant::now(),
            beat: AtomicU64::new(0),
        };
        Self {
            commands,
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    pub(crate) fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// Nothing expires and nothing is forgotten: see `--trust-clock`.
    pub(crate) fn doubts_clock(&self) -> bool {
        self.shared.doubts_clock
    }

    /// The loop has ended: streams end once they have sent what they hold.
    pub(crate) fn end(&self, why: End) {
        self.shared.why.get_or_init(|| why);
        self.shared.large.close();
        self.shared.ended.cancel();
    }

    /// Until the loop has ended; says why.
    pub(crate) async fn ended(&self) -> End {
        self.shared.ended.cancelled().await;
        self.why()
    }

    fn why(&self) -> End {
        // Without a reason given the loop has died.
        self.shared.why.get().copied().unwrap_or(End::StoreFailed)
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), End> {
        let bytes = command.payload_bytes();
        // The queue bounds the number of small commands, this the bytes of large ones.
        let share = if bytes <= INLINE_BYTES {
            None
        } else {
            let kib = bytes.div_ceil(1024).min(COMMAND_QUEUE_KIB) as u32;
            let share = self.shared.large.clone().acquire_many_owned(kib).await;
            Some(share.map_err(|_| self.why())?)
        };
        self.commands
            .send(Sent { command, _share: share })
            .await
            .map_err(|_| self.why())
    }

    async fn request<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| self.why().into())
    }

    /// A caller's session.
    pub(crate) fn session(&self) -> CallerGuard {
        self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        CallerGuard {
            caller: Caller::session(),
            broker: self.clone(),
            is_session: true,
        }
    }

    /// What the runs of a worker call on one of its connections.
    pub(crate) fn calls_of(&self, conn: &WorkerConn) -> CallerGuard {
        CallerGuard {
            caller: conn.caller().clone(),
            broker: self.clone(),
            is_session: false,
        }
    }

    /// One operation; nothing of it stays when the future is dropped.
    pub(crate) async fn call(&self, op: Op) -> Result<Answer, Error> {
        let guard = CallerGuard {
            caller: Caller::unary(),
            broker: self.clone(),
            is_session: false,
        };
        self.send(Command::Ask {
            caller: guard.caller.clone(),
            asks: vec![Ask { call: 0, op }],
        })
        .await?;
        let mut batch = Vec::with_capacity(1);
        match guard.take(&mut batch).await {
            Some(error) => Err(error),
            None => match batch.pop().map(|answered| answered.answer) {
                Some(Answer::Failed(error)) => Err(error),
                Some(answer) => Ok(answer),
                None => Err(self.why().into()),
            },
        }
    }

    /// Operations that have one answer each: the answers, in their order.
    pub(crate) async fn call_all(&self, ops: Vec<Op>) -> Result<Vec<Answer>, Error> {
        let guard = CallerGuard {
            caller: Caller::unary(),
            broker: self.clone(),
            is_session: false,
        };
        let asks: Vec<_> = (0..).zip(ops).map(|(call, op)| Ask { call, op }).collect();
        let mut answers = BTreeMap::new();
        let (expected, caller) = (asks.len(), guard.caller.clone());
        self.send(Command::Ask { caller, asks }).await?;
        let mut batch = Vec::new();
        while answers.len() < expected {
            if let Some(error) = guard.take(&mut batch).await {
                return Err(error);
            }
            answers.extend(batch.drain(..).map(|answered| (answered.call, answered.answer)));
        }
        Ok(answers.into_values().collect())
    }

    /// Opens a stream of items: its first answer, and the stream for as long as
    /// somebody takes from it.
    pub(crate) async fn iterate(&self, iterate: Iterate, line: Option<Line>) -> Result<(Answer, ConsumerGuard), Error> {
        let guard = ConsumerGuard::new(self.clone(), iterate.task, iterate.consumer.clone(), line);
        Ok((self.call(Op::Iterate(iterate)).await?, guard))
    }

    pub(crate) async fn worker_hello(&self, hello: WorkerHello, conn: Arc<WorkerConn>) -> Result<SessionId, Error> {
        self.request(|opened| Command::WorkerHello { hello, conn, opened })
            .await?
    }

    pub(crate) async fn complete_large(&self, report: Report) -> Result<Verdict, Error> {
        self.request(|reply| Command::CompleteLarge { report, reply }).await
    }

    pub(crate) async fn fetch_payload(&self, token: LeaseToken) -> Result<Payload, Error> {
        self.request(|reply| Command::FetchPayload { token, reply }).await?
    }

    /// A page of tasks: perhaps less than asked for, with where to go on.
    pub(crate) async fn tasks(&self, asked: ListTasks) -> Result<Page, Error> {
        let room = self.shared.listings.clone().try_acquire_owned();
        let room = room.map_err(|_| Error::TooManyListings)?;
        let page = self.request(|reply| Command::List(Box::new(Listing::new(asked, reply, room))));
        // The thread that reads it may go on for a while after the loop.
        tokio::select! {
            biased;
            page = page => page,
            end = self.ended() => Err(end.into()),
        }
    }

    pub(crate) async fn queues(&self) -> Result<Vec<QueueView>, Error> {
        self.request(Command::Queues).await
    }

    pub(crate) async fn workers(&self) -> Result<Vec<WorkerView>, Error> {
        self.request(Command::Workers).await
    }

    /// All that is counted and measured.
    pub(crate) async fn figures(&self) -> Result<Box<Figures>, Error> {
        self.request(Command::Figures).await
    }

    /// Until the loop answers.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        self.request(Command::Ping).await
    }

    /// Sessions of callers there are.
    pub(super) fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// The loop has ended a turn.
    pub(super) fn beat(&self, now: Instant) {
        let since = now.duration_since(self.shared.began).as_millis() as u64;
        self.shared.beat.store(since, Ordering::Relaxed);
    }

    /// How long ago the loop ended its last turn.
    pub(crate) fn silent_for(&self) -> Duration {
        let beat = Duration::from_millis(self.shared.beat.load(Ordering::Relaxed));
        self.shared.began.elapsed().saturating_sub(beat)
    }

    /// Whether the loop goes round, or has ended in order. What the loop waits
    /// for, a slow disk for one, does not matter: a restart would not mend it.
    pub(crate) async fn goes_round(&self) -> bool {
        let goes_round = || self.is_over().is_some() || self.silent_for() < MAX_SILENCE;
        if goes_round() {
            return true;
        }
        // The whole process may have slept: then the loop wakes up just now.
        sleep(2 * MAX_NAP).await;
        goes_round()
    }

    /// Why the loop has ended, if it has.
    pub(crate) fn is_over(&self) -> Option<End> {
        self.shared.ended.is_cancelled().then(|| self.why())
    }

    pub(super) fn take_gone(&self) -> Vec<CallerId> {
        std::mem::take(&mut *self.shared.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody takes the items of a stream any more.
    pub(super) fn consumer_left(&self, task: TaskId, consumer: Arc<Consumer>, how: Left) {
        let mut left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.push((task, consumer, how));
        drop(left);
        self.shared.leaving.notify_one();
    }

    /// Until a consumer has left. Cancel safe.
    pub(super) async fn leaving(&self) {
        self.shared.leaving.notified().await;
    }

    pub(super) fn take_left(&self) -> Vec<(TaskId, Arc<Consumer>, Left)> {
        std::mem::take(&mut *self.shared.left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A caller for as long as somebody listens: dropped, its waits are withdrawn.
#[derive(Debug)]
pub(crate) struct CallerGuard {
    caller: Arc<Caller>,
    broker: Broker,
    is_session: bool,
}

impl CallerGuard {
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Waits for answers and takes what is there, up to one message's worth; or
    /// says why there will be no more.
    pub(crate) async fn take(&self, batch: &mut Vec<Answered>) -> Option<Error> {
        tokio::select! {
            biased;
            end = self.caller.take(batch) => end,
            end = self.broker.ended() => Some(end.into()),
        }
    }
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.caller.outbox().abandon();
        if self.is_session {
            self.broker.shared.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        let mut gone = self.broker.shared.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.push(self.caller.id());
    }
}
