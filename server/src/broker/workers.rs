//! Worker sessions: their connections, what they report, what they are handed.

use std::collections::VecDeque;
use std::sync::Arc;

use asynq_core::limits::{MAX_SESSIONS, MIN_ATTEMPTS_AT_LIMIT};
use asynq_core::{
    Assignment, Call, Closed, Effect, Event, Failure, Hello, LeaseToken, Payload, Refusal, RequestId, SessionId,
    StateName, StopCause, TaskSpec, Verdict,
};
use asynq_proto::limits::INLINE_BYTES;
use asynq_store::StoreError;
use foldhash::HashMap;
use tokio::sync::oneshot;
use tracing::{debug, info};

use super::caller::CallingRun;
use super::emitter::Emitter;
use super::error::{End, Error};
use super::payloads::Cached;
use super::reader::{Job, Sent};
use super::run::{Acks, Held, Loop};
use super::worker::{Hangup, Report, ToWorker, WorkerConn, WorkerHello, WorkerInput};
use crate::limits::{INLINE_BACKLOG_BYTES, MAX_STATES_READ};

/// What the shell keeps of worker sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Those whose lease may still run.
    known: HashMap<SessionId, Session>,
    /// Runs whose arguments are being read, or that wait for a commit, with what is
    /// to follow them.
    reading: HashMap<LeaseToken, Vec<StopCause>>,
    /// Who waits for the verdict on what came on the data connection.
    expected: HashMap<LeaseToken, VecDeque<Expecting>>,
    /// Refusals for which the state of a task is being read.
    looked_up: usize,
}

/// See [`Sessions::expect_verdict`].
#[derive(Debug)]
pub(super) enum Expecting {
    /// A result too large for the session.
    Call(oneshot::Sender<Verdict>),
    /// The end of a stream.
    Emit(Arc<Emitter>),
}

impl From<Arc<Emitter>> for Expecting {
    fn from(emitter: Arc<Emitter>) -> Self {
        Self::Emit(emitter)
    }
}

impl From<oneshot::Sender<Verdict>> for Expecting {
    fn from(reply: oneshot::Sender<Verdict>) -> Self {
        Self::Call(reply)
    }
}

#[derive(Debug, Default)]
struct Session {
    conn: Option<Arc<WorkerConn>>,
    draining: bool,
}

impl Sessions {
    /// One that may come back, from before a restart.
    pub(super) fn remember(&mut self, session: SessionId) {
        self.known.entry(session).or_default();
    }

    /// The lease is over.
    pub(super) fn forget(&mut self, session: SessionId) {
        if let Some(conn) = self.known.remove(&session).and_then(|session| session.conn) {
            conn.outbox().end(End::LeaseOver);
        }
    }

    /// The run is not handed out yet: what is said of it waits.
    pub(super) fn hold_back(&mut self, token: LeaseToken) {
        self.reading.insert(token, Vec::new());
    }

    /// The next verdict on the run does not go to its session.
    pub(super) fn expect_verdict(&mut self, token: LeaseToken, by: impl Into<Expecting>) {
        self.expected.entry(token).or_default().push_back(by.into());
    }

    /// Whether a refusal is on its way through the reader.
    pub(super) fn looks_up(&self) -> bool {
        self.looked_up > 0
    }

    fn conn(&self, session: SessionId) -> Option<&Arc<WorkerConn>> {
        self.known.get(&session)?.conn.as_ref()
    }

    /// The session, if `conn` is its connection still.
    fn current(&mut self, session: SessionId, conn: &Arc<WorkerConn>) -> Option<&mut Session> {
        let is_current = |session: &&mut Session| session.conn.as_ref().is_some_and(|now| Arc::ptr_eq(now, conn));
        self.known.get_mut(&session).filter(is_current)
    }

    fn send(&self, session: SessionId, message: ToWorker) {
        match self.conn(session) {
            Some(conn) => conn.outbox().push(message),
            // The core hears of the lost connection, and what the worker held
            // comes to light when it resumes.
            None => debug!(%session, ?message, "not sent: the worker is away"),
        }
    }
}

impl Loop {
    pub(super) fn worker_hello(&mut self, hello: WorkerHello, conn: Arc<WorkerConn>) -> Result<SessionId, Error> {
        if conn.outbox().is_over() {
            // It must not take the session from a newer connection.
            return Err(End::Gone.into());
        }
        let known = &mut self.sessions.known;
        let resume = hello.resume.filter(|session| known.contains_key(session));
        if resume.is_none() && known.len() >= MAX_SESSIONS {
            return Err(Refusal::Exhausted {
                what: "worker sessions",
                limit: MAX_SESSIONS as u64,
            }
            .into());
        }
        // A name, no secret: it need only be unlike all others.
        let session = resume.unwrap_or_else(|| SessionId(fastrand::u128(..).to_be_bytes()));
        let resumed = resume.is_some();
        info!(%session, worker = %hello.worker, slots = hello.slots, held = hello.held.len(), resumed, "worker connected");
        conn.outbox().push(ToWorker::Welcome {
            session,
            resumed,
            now: self.now,
        });
        let before = known.insert(
            session,
            Session {
                conn: Some(conn),
                draining: false,
            },
        );
        if let Some(before) = before.and_then(|session| session.conn) {
            before.outbox().end(End::Superseded);
        }
        let WorkerHello {
            worker,
            slots,
            tasks,
            held,
            leaked,
            ..
        } = hello;
        self.apply(Event::SessionOpened(Box::new(Hello {
            session,
            worker,
            slots,
            tasks,
            held,
            leaked,
        })));
        Ok(session)
    }

    pub(super) fn worker_input(&mut self, session: SessionId, conn: &Arc<WorkerConn>, input: WorkerInput) {
        let Some(state) = self.sessions.current(session, conn) else {
            return;
        };
        let begins_to_drain = input.draining && !state.draining;
        state.draining |= input.draining;
        if let Some(count) = input.heartbeat {
            conn.outbox().push(ToWorker::HeartbeatAck(count));
            self.apply(Event::Heartbeat(session));
        }
        if let Some(slots) = input.leaked {
            // Before the reports: a slot must not seem free in between.
            self.apply(Event::Leaked { session, slots });
        }
        for (token, left) in input.extensions {
            self.apply(Event::Extended { session, token, left });
        }
        let together = input.number;
        for report in input.reports {
            let event = self.report(session, report);
            self.core.apply(self.now, event, &mut self.out);
            self.absorb(if together.is_some() { Acks::Refusals } else { Acks::All });
        }
        if let Some(number) = together {
            self.hold(Held::Acked(conn.clone(), number.get()));
        }
        if begins_to_drain {
            self.apply(Event::Draining(session));
        }
        for call in input.withdrawn {
            self.withdraw_unseen(call);
            let Call { token, n } = call;
            self.apply(Event::Withdraw { session, token, n });
        }
        if !input.calls.is_empty() {
            self.ask(conn.caller(), input.calls);
        }
    }

    /// The connection is gone.
    pub(super) fn worker_hangup(&mut self, session: SessionId, conn: &Arc<WorkerConn>, how: Hangup) {
        let Some(state) = self.sessions.current(session, conn) else {
            return;
        };
        state.conn = None;
        conn.outbox().end(End::Done);
        let how = match how {
            Hangup::Goodbye if self.core.held_by_session(session) == 0 => Closed::Goodbye,
            Hangup::Goodbye | Hangup::Reset => Closed::Reset,
            Hangup::Silent => Closed::Silent,
        };
        info!(%session, ?how, "worker disconnected");
        self.apply(Event::SessionClosed { session, how });
    }

    /// A result that came on the data connection, which names no session.
    pub(super) fn complete_large(&mut self, report: Report, reply: oneshot::Sender<Verdict>) {
        let token = report.token();
        if !self.core.is_live(token.task)
            && let Some(result) = report.result()
        {
            // Taken before, perhaps, by a call whose answer was lost.
            let result = Sent {
                bytes: result.data.len() as u64,
                content_type: result.content_type.clone(),
            };
            return self.hold(Held::Read(Job::SentAgain { token, result, reply }));
        }
        let holder = self.core.holder(token);
        self.sessions.expect_verdict(token, reply);
        // Nobody holds a stale token: the core refuses it whoever says it.
        let session = holder.unwrap_or(SessionId([0; 16]));
        let event = self.report(session, report);
        self.apply(event);
    }

    /// What a run calls.
    pub(super) fn call_of(&self, request: RequestId, by: CallingRun, spec: Box<TaskSpec>) -> Event {
        let call = by.call;
        let session = by.session.or_else(|| self.core.holder(call.token));
        Event::Call {
            request,
            session: session.unwrap_or(SessionId([0; 16])),
            call,
            spec,
        }
    }

    /// The end of a run that has spawned tasks: they need a place, and a store that
    /// keeps what they ask for; without, the run has failed.
    fn completed_with(&self, session: SessionId, token: LeaseToken, result: Payload, children: Vec<TaskSpec>) -> Event {
        let bytes = children.iter().map(|spec| spec.payload.data.len()).sum();
        let refused = (children.iter())
            .find_map(|spec| self.refuse_promise(spec))
            .map(|refusal| ("error", refusal.to_string(), false));
        let full = || {
            self.admission
                .refuse(bytes, children.len())
                .map(|full| ("limit", full.to_string(), true))
        };
        match refused.or_else(full) {
            Some((kind, why, retryable)) => Event::Failed {
                session,
                token,
                failure: Failure {
                    kind: kind.into(),
                    message: format!("a task it spawns is refused: {why}"),
                    trace: String::new(),
                    retryable,
                },
                // A disk that is full now may not be in a while.
                min_attempts: if retryable { MIN_ATTEMPTS_AT_LIMIT } else { 0 },
            },
            None => Event::CompletedWith {
                session,
                token,
                result,
                children,
            },
        }
    }

    fn report(&self, session: SessionId, report: Report) -> Event {
        match report {
            Report::Completed(token, result) => Event::Completed { session, token, result },
            Report::CompletedWith(token, result, children) => self.completed_with(session, token, result, children),
            Report::Failed {
                token,
                failure,
                min_attempts,
            } => Event::Failed {
                session,
                token,
                failure,
                min_attempts,
            },
            Report::TimedOut(token, failure) => Event::TimedOut {
                session,
                token,
                failure,
            },
            Report::Crashed(token, failure) => Event::Crashed {
                session,
                token,
                failure,
            },
            Report::Released(token) => Event::Released { session, token },
            Report::Ended(token) => Event::Ended { session, token },
            Report::Abandoned(token) => Event::Abandoned { session, token },
        }
    }

    /// Arguments too large to ride with their run.
    pub(super) fn fetch(&mut self, token: LeaseToken, reply: oneshot::Sender<Result<Payload, Error>>) {
        if self.core.holder(token).is_some() {
            self.hold(Held::Read(Job::Fetch { token, reply }));
        } else {
            // A worker that has gone needs no answer.
            let _ = reply.send(Err(Error::StaleLease(token)));
        }
    }

    /// Hands a run out, with its arguments if they are at hand.
    pub(super) fn assign(&mut self, run: Box<Assignment>) {
        match self.payloads.take(run.seq) {
            Cached::Here(payload) => self.send_run(run, Some(payload)),
            Cached::Large => self.send_run(run, None),
            // Read only when the worker fetches them.
            Cached::Unknown if run.payload_bytes > INLINE_BYTES as u64 => self.send_run(run, None),
            Cached::Unknown => {
                self.sessions.hold_back(run.token);
                if self.payloads.is_durable(run.seq) {
                    self.reader.push(Job::Arguments(run));
                } else {
                    self.hold(Held::Read(Job::Arguments(run)));
                }
            }
        }
    }

    /// A run that had to wait, now that what was decided before it is durable.
    pub(super) fn assign_late(&mut self, run: Box<Assignment>) {
        let stops = self.sessions.reading.remove(&run.token).unwrap_or_default();
        let (session, token) = (run.session, run.token);
        // Meanwhile the session may have been lost, and the task with it.
        if self.core.holder(token) != Some(session) {
            return;
        }
        self.effect(Effect::Assign(run));
        for cause in stops {
            self.stop_run(session, token, cause);
        }
    }

    /// The arguments of a run have been read.
    pub(super) fn arguments_read(&mut self, run: Box<Assignment>, payload: Option<Payload>) -> Result<(), StoreError> {
        let stops = self.sessions.reading.remove(&run.token).unwrap_or_default();
        let (session, token) = (run.session, run.token);
        // Meanwhile the session may have been lost and the task have gone on.
        if self.core.holder(token) != Some(session) {
            return Ok(());
        }
        let Some(payload) = payload else {
            return Err(StoreError::Failed(format!(
                "the arguments of task {} are missing",
                token.task
            )));
        };
        self.send_run(run, Some(payload));
        for cause in stops {
            self.sessions.send(session, ToWorker::Stop(token, cause));
        }
        Ok(())
    }

    fn send_run(&self, run: Box<Assignment>, payload: Option<Payload>) {
        let Some(conn) = self.sessions.conn(run.session) else {
            return debug!(session = %run.session, "run not sent: the worker is away");
        };
        let crowded = conn.outbox().bytes() > INLINE_BACKLOG_BYTES;
        let payload = payload.filter(|payload| !crowded && payload.data.len() <= INLINE_BYTES);
        conn.outbox().push(ToWorker::Assign(run, payload));
    }

    pub(super) fn stop_run(&mut self, session: SessionId, token: LeaseToken, cause: StopCause) {
        match self.sessions.reading.get_mut(&token) {
            // It must not overtake the run.
            Some(stops) => stops.push(cause),
            None => self.sessions.send(session, ToWorker::Stop(token, cause)),
        }
    }

    /// What became of what a worker said, now that it is durable.
    pub(super) fn acknowledge(&mut self, session: SessionId, token: LeaseToken, verdict: Verdict) {
        let Some(expecting) = self.sessions.expected.get_mut(&token) else {
            return self.sessions.send(session, ToWorker::Ack(token, verdict));
        };
        match expecting.pop_front() {
            // A worker that has gone asks again.
            Some(Expecting::Call(reply)) => drop(reply.send(verdict)),
            Some(Expecting::Emit(emitter)) => emitter.acknowledge(verdict),
            None => {}
        }
        if expecting.is_empty() {
            self.sessions.expected.remove(&token);
        }
    }

    /// The task of a refused report has been looked up.
    pub(super) fn state_found(&mut self, session: SessionId, token: LeaseToken, state: Option<StateName>) {
        self.sessions.looked_up -= 1;
        // Meanwhile an operator may have had it run again.
        let state = self.core.live_state(token.task).or(state);
        self.acknowledge(session, token, Verdict::Stale(state));
    }

    /// Effects for workers, and for who consumes what they yield.
    pub(super) fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Assign(run) => {
                self.meters.assigned(self.now, &run);
                self.assign(run);
            }
            Effect::Stop { session, token, cause } => self.stop_run(session, token, cause),
            // It has ended, or never was: the worker is told which, as far as there is room.
            Effect::Ack {
                session,
                token,
                verdict: Verdict::Stale(None),
            } if self.sessions.looked_up < MAX_STATES_READ => {
                self.sessions.looked_up += 1;
                self.reader.push(Job::State { session, token });
            }
            Effect::Ack {
                session,
                token,
                verdict,
            } => self.acknowledge(session, token, verdict),
            Effect::SessionEnded(session) => self.sessions.forget(session),
            Effect::Credit { token, credit, .. } => self.streams.credit(token, credit),
            Effect::Items { task, batch, .. } => {
                self.meters.items(&batch);
                self.streams.items(task, batch);
            }
            Effect::Reading { task, at } => self.streams.reading(task, at),
            Effect::NotRead { task, floor } => self.streams.not_read(task, floor),
            Effect::SendFrom { token, from, .. } => self.streams.send_from(token, from),
            Effect::Reply(..) | Effect::Finished(_) => {}
        }
    }
}
