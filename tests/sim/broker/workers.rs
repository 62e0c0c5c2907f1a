//! Worker sessions: their connections, what they report, what they are handed;
//! see asynqd's `workers`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use asynq_core::{
    Assignment, Closed, Effect, Event as CoreEvent, Hello, LeaseToken, Payload, SessionId, StateName, StopCause,
    TaskSpec, Verdict,
};
use asynq_store::StoreError;
use asynq_tests::history::Record;

use super::process::{Held, Process};
use super::reads::Job;
use crate::bug::Bug;
use crate::env::Env;
use crate::message::{Down, INLINE_BYTES, Report, Work};
use crate::net::{ConnId, Hangup};

/// What the shell keeps of worker sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: BTreeMap<SessionId, Session>,
    /// Runs whose arguments are being read, with what is to follow them.
    pub(super) reading: BTreeMap<LeaseToken, Vec<StopCause>>,
    /// Where the verdict goes on what came on another connection.
    pub(super) expected: BTreeMap<LeaseToken, VecDeque<ConnId>>,
}

#[derive(Debug, Default)]
struct Session {
    conn: Option<ConnId>,
    draining: bool,
    /// It has had a connection in this life of the broker.
    seen: bool,
}

impl Sessions {
    /// One that may come back, from before a restart.
    pub(super) fn remember(&mut self, session: SessionId) {
        self.known.entry(session).or_default();
    }

    /// The next verdict on the run does not go to its session.
    pub(super) fn expect_verdict(&mut self, token: LeaseToken, by: ConnId) {
        self.expected.entry(token).or_default().push_back(by);
    }

    fn of(&self, conn: ConnId) -> Option<SessionId> {
        let mut known = self.known.iter();
        known.find_map(|(id, session)| (session.conn == Some(conn)).then_some(*id))
    }
}

impl Process {
    pub(super) fn worker_hello(&mut self, conn: ConnId, hello: Hello, resume: bool, env: &mut Env) {
        let known = &mut self.sessions.known;
        let resumed = resume && known.contains_key(&hello.session);
        let session = if resumed {
            hello.session
        } else {
            SessionId(env.dice.bytes16())
        };
        if resumed {
            env.record(Record::Resumed(session, hello.held.clone()));
        }
        let opened = Session {
            conn: Some(conn),
            draining: false,
            seen: true,
        };
        let before = known.insert(session, opened).and_then(|before| before.conn);
        self.send(conn, Down::WorkerWelcome(session));
        self.superseded(before, env);
        self.apply(CoreEvent::SessionOpened(Box::new(Hello { session, ..hello })), env);
    }

    pub(super) fn worker_input(&mut self, conn: ConnId, work: Work, env: &mut Env) {
        let Some(session) = self.sessions.of(conn) else { return };
        if let Some(beat) = work.heartbeat {
            self.send(conn, Down::HeartbeatAck(beat));
            if !env.has_bug(Bug::HeartbeatsUnheard) {
                self.apply(CoreEvent::Heartbeat(session), env);
            }
        }
        if let Some(slots) = work.leaked
            && !(slots == 0 && env.has_bug(Bug::LeakedForEver))
        {
            // Before the reports: a slot must not seem free in between.
            self.apply(CoreEvent::Leaked { session, slots }, env);
        }
        for (token, left) in work.extensions {
            self.extended(session, token, left, env);
        }
        for (token, report) in work.reports {
            let token = self.current(token, env);
            let event = match report {
                Report::Completed(result, spawned) => self.completed(session, token, (result, spawned), env),
                Report::Failed(failure) => CoreEvent::Failed {
                    session,
                    token,
                    failure,
                    min_attempts: 0,
                },
                Report::Crashed(failure) => CoreEvent::Crashed {
                    session,
                    token,
                    failure,
                },
                Report::Released => CoreEvent::Released { session, token },
                Report::Ended => CoreEvent::Ended { session, token },
                Report::Abandoned => CoreEvent::Abandoned { session, token },
            };
            self.apply(event, env);
        }
        let state = self.sessions.known.get_mut(&session);
        if let Some(state) = state.filter(|state| work.draining && !state.draining) {
            state.draining = true;
            self.apply(CoreEvent::Draining(session), env);
        }
        self.called(conn, session, (work.withdrawn, work.calls), env);
    }

    /// A run is to have more time.
    fn extended(&mut self, session: SessionId, token: LeaseToken, left: Duration, env: &mut Env) {
        let goes_on = self.core.live_state(token.task) == Some(StateName::Running);
        if goes_on && self.core.holder(token) == Some(session) {
            env.record(Record::Extended(token, (self.now + left).as_micros()));
        }
        if !env.has_bug(Bug::ExtensionsUnheard) {
            self.apply(CoreEvent::Extended { session, token, left }, env);
        }
    }

    /// The token itself, unless that bug is planted.
    fn current(&self, token: LeaseToken, env: &Env) -> LeaseToken {
        if !env.has_bug(Bug::TokenIgnored) {
            return token;
        }
        let grant = self.core.task(token.task).map(|view| view.record.grant);
        LeaseToken {
            grant: grant.unwrap_or(token.grant),
            ..token
        }
    }

    /// The connection is gone.
    pub(super) fn worker_hangup(&mut self, conn: ConnId, how: Hangup, env: &mut Env) {
        let Some(session) = self.sessions.of(conn) else { return };
        let Some(state) = self.sessions.known.get_mut(&session) else {
            return;
        };
        state.conn = None;
        let has_drained = state.draining && self.core.held_by_session(session) == 0;
        if how == Hangup::Clean {
            self.ending.push(conn);
        }
        let how = match how {
            Hangup::Clean if has_drained => Closed::Goodbye,
            Hangup::Clean | Hangup::Reset => Closed::Reset,
            Hangup::Silent => Closed::Silent,
        };
        self.apply(CoreEvent::SessionClosed { session, how }, env);
    }

    /// The core has ended a session.
    pub(super) fn session_over(&mut self, id: SessionId, env: &mut Env) {
        let Some(session) = self.sessions.known.remove(&id) else {
            return;
        };
        // Without a connection in this life, or with a silent one, it was the
        // lease; else it was the connection.
        if session.conn.is_some() || !session.seen {
            env.record(Record::LeaseOver(id));
        }
        self.superseded(session.conn, env);
    }

    /// A result that came on a connection of its own, which names no session.
    pub(super) fn complete_large(
        &mut self,
        conn: ConnId,
        token: LeaseToken,
        (result, mut spawned): (Payload, Vec<TaskSpec>),
        env: &mut Env,
    ) {
        if env.has_bug(Bug::SpawnedForgotten) {
            spawned.clear();
        }
        let token = self.current(token, env);
        let holder = self.core.holder(token);
        self.sessions.expect_verdict(token, conn);
        let session = holder.unwrap_or(SessionId([0; 16]));
        let event = self.completed(session, token, (result, spawned), env);
        self.apply(event, env);
    }

    /// Arguments too large to ride with their run.
    pub(super) fn fetch(&mut self, conn: ConnId, token: LeaseToken) {
        if self.core.holder(token).is_some() {
            self.hold(Held::Read(Job::Fetch(token.task, conn)));
        } else {
            self.send(conn, Down::Arguments(None));
        }
    }

    fn assign(&mut self, run: Box<Assignment>) {
        match self.arguments.remove(&run.seq) {
            Some(payload) => self.send_run(run, payload),
            None if run.payload_bytes > INLINE_BYTES as u64 => self.send_run(run, None),
            None => {
                self.sessions.reading.insert(run.token, Vec::new());
                if run.seq <= self.durable {
                    self.read(Job::Arguments(run));
                } else {
                    self.hold(Held::Read(Job::Arguments(run)));
                }
            }
        }
    }

    /// A run that had to wait, now that what was decided before it is durable.
    pub(super) fn assign_late(&mut self, run: Box<Assignment>, env: &mut Env) {
        let stops = self.sessions.reading.remove(&run.token).unwrap_or_default();
        let (session, token) = (run.session, run.token);
        if self.core.holder(token) != Some(session) {
            return;
        }
        self.effect(Effect::Assign(run), env);
        for cause in stops {
            self.effect(Effect::Stop { session, token, cause }, env);
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
        let missing = || StoreError::Failed(format!("the arguments of task {} are missing", token.task));
        self.send_run(run, Some(payload.ok_or_else(missing)?));
        for cause in stops {
            self.send_to(session, Down::Stop(token, cause));
        }
        Ok(())
    }

    fn send_run(&mut self, run: Box<Assignment>, payload: Option<Payload>) {
        self.send_to(run.session, Down::Assign(run, payload));
    }

    /// To a worker; what it cannot be told comes to light when it resumes.
    fn send_to(&mut self, session: SessionId, message: Down) {
        let conn = self.sessions.known.get(&session).and_then(|session| session.conn);
        if let Some(conn) = conn {
            self.send(conn, message);
        }
    }

    fn acknowledge(&mut self, session: SessionId, token: LeaseToken, verdict: Verdict) {
        let Some(expecting) = self.sessions.expected.get_mut(&token) else {
            return self.send_to(session, Down::Ack(token, verdict));
        };
        let conn = expecting.pop_front();
        if expecting.is_empty() {
            self.sessions.expected.remove(&token);
        }
        if let Some(conn) = conn {
            self.last_word(conn, verdict);
        }
    }

    /// Carries an effect out.
    pub(super) fn effect(&mut self, effect: Effect, env: &mut Env) {
        match effect {
            Effect::Assign(run) => {
                env.record(Record::Granted(run.token, run.session));
                self.assign(run);
            }
            Effect::Stop { session, token, cause } => match self.sessions.reading.get_mut(&token) {
                // It must not overtake the run.
                Some(stops) => stops.push(cause),
                None => self.send_to(session, Down::Stop(token, cause)),
            },
            Effect::Ack {
                session,
                token,
                verdict,
            } => {
                if let Verdict::Accepted(state) = verdict {
                    env.record(Record::Accepted(token, state));
                }
                self.acknowledge(session, token, verdict);
            }
            Effect::SessionEnded(session) => self.session_over(session, env),
            Effect::Credit { token, credit, .. } => self.credit(token, credit),
            Effect::Items { task, batch, .. } => self.items(task, batch, env),
            Effect::Reading { task, at } => self.reading(task, at, env),
            Effect::NotRead { task, .. } => self.not_read(task, env),
            Effect::SendFrom { token, from, .. } => self.send_from(token, from),
            Effect::Reply(..) | Effect::Finished(_) => {}
        }
    }
}
