//! What runs call: to the core it is said like an enqueue, but by a run; see asynqd's
//! `callers` and `workers`.

use asynq_core::{Call, Event as CoreEvent, LeaseToken, Payload, Refusal, RequestId, SessionId, TaskId, TaskSpec};
use asynq_tests::history::Record;

use super::callers::{Asked, Behind};
use super::process::Process;
use super::seen::asker;
use crate::bug::Bug;
use crate::env::Env;
use crate::message::{Answer, Ask, CallingRun, Op, Refused, RunCall};
use crate::net::ConnId;

impl Process {
    /// What a worker's message says of calls.
    pub(super) fn called(
        &mut self,
        conn: ConnId,
        session: SessionId,
        (withdrawn, calls): (Vec<Call>, Vec<RunCall>),
        env: &mut Env,
    ) {
        for call in withdrawn {
            self.withdraw_unseen(call, env);
            let Call { token, n } = call;
            if self.core.holder(token) == Some(session) && self.is_called(token.child(n)) {
                env.record(Record::Withdrew(token.child(n)));
            }
            if !env.has_bug(Bug::WithdrawalsUnheard) {
                self.apply(CoreEvent::Withdraw { session, token, n }, env);
            }
        }
        let op = |told: RunCall| {
            let session = Some(session);
            let call = told.call;
            let op = match told.spec {
                None => Op::Wait(call.token.child(call.n)),
                Some(spec) => Op::Enqueue {
                    spec,
                    first_send: !told.again,
                    wait: true,
                    by: Some(CallingRun { session, call }),
                },
            };
            Ask { call: told.number, op }
        };
        self.ask(conn, calls.into_iter().map(op).collect(), env);
    }

    /// Whether a task lives for a run that has called it.
    fn is_called(&self, task: TaskId) -> bool {
        let lives = self.core.task(task).filter(|_| self.core.is_live(task));
        lives.is_some_and(|view| view.record.called_by.is_some())
    }

    /// One on a connection of its own, which may come late: it is always looked up.
    pub(super) fn call_apart(&mut self, id: ConnId, call: Call, spec: Box<TaskSpec>, env: &mut Env) {
        const ONLY: u64 = 0;
        env.record(Record::Question(asker(id), ONLY));
        let op = Op::Enqueue {
            spec,
            first_send: false,
            wait: false,
            by: Some(CallingRun { session: None, call }),
        };
        self.operate(Asked { id, call: ONLY, op }, env);
    }

    pub(super) fn call_of(&self, request: RequestId, by: CallingRun, spec: Box<TaskSpec>, env: &Env) -> CoreEvent {
        if env.has_bug(Bug::CallIsEnqueue) {
            return CoreEvent::Enqueue {
                request,
                spec,
                reader: None,
            };
        }
        let session = by.session.or_else(|| self.core.holder(by.call.token));
        CoreEvent::Call {
            request,
            session: session.unwrap_or(SessionId([0; 16])),
            call: by.call,
            spec,
        }
    }

    /// The end of a run, with what it has spawned.
    pub(super) fn completed(
        &mut self,
        session: SessionId,
        token: LeaseToken,
        (result, mut children): (Payload, Vec<TaskSpec>),
        env: &mut Env,
    ) -> CoreEvent {
        if env.has_bug(Bug::SpawnedApart) {
            for spec in std::mem::take(&mut children) {
                // Nobody hears what becomes of it.
                let request = self.request(ConnId(0), 0, false);
                let event = CoreEvent::Enqueue {
                    request,
                    spec: Box::new(spec),
                    reader: None,
                };
                self.apply(event, env);
            }
        }
        if children.is_empty() {
            return CoreEvent::Completed { session, token, result };
        }
        CoreEvent::CompletedWith {
            session,
            token,
            result,
            children,
        }
    }

    /// A run wants no more what it has called, and that is still looked up: the core
    /// must not hear of it after that.
    fn withdraw_unseen(&mut self, call: Call, env: &mut Env) {
        let Some(behind) = self.resolving.get_mut(&call.token.child(call.n)) else {
            return;
        };
        let is_that = |asked: &Asked| matches!(&asked.op, Op::Enqueue { by: Some(by), .. } if by.call == call);
        let (withdrawn, stay): (Behind, Behind) = std::mem::take(behind).into_iter().partition(is_that);
        *behind = stay;
        for asked in withdrawn {
            let refused = Refused::ByCore(Refusal::StaleCall(call.token));
            self.answer(asked.id, asked.call, Answer::Refused(refused), true, env);
        }
    }

    /// A worker's connection is closed from here: what was asked over it is asked again
    /// over another, or wanted no more.
    pub(super) fn superseded(&mut self, conn: Option<ConnId>, env: &mut Env) {
        if let Some(conn) = conn {
            self.waiters.remove_caller(conn);
            env.record(Record::Gone(asker(conn)));
            self.ending.push(conn);
        }
    }
}
