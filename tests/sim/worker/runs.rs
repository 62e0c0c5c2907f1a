//! Runs: from assignment to outcome, and the transfers on the way.

use std::time::Duration;

use asynq_core::{Assignment, Failure, LeaseToken, Payload, limits};
use asynq_tests::history::Record;

use super::ledger::{Phase, Run};
use super::stream::Content;
use super::{Wake, Worker};
use crate::bug::Bug;
use crate::caller::on_loss;
use crate::dice::fingerprint;
use crate::env::Env;
use crate::message::{INLINE_BYTES, Report, Up};
use crate::net::ConnId;
use crate::plan::Fault;

impl Worker {
    pub(super) fn assigned(&mut self, assignment: Assignment, payload: Option<Payload>, env: &mut Env) {
        let token = assignment.token;
        if self.runs.contains_key(&token) {
            return; // said twice
        }
        if self.draining || !self.has_slot(env) {
            return self.answer(token, Report::Released);
        }
        match payload {
            Some(payload) => self.begin(assignment, &payload, env),
            None => {
                self.runs.insert(token, Run::new(Phase::Fetching(Box::new(assignment))));
                self.transfer(token, env);
            }
        }
    }

    pub(super) fn fetched(&mut self, token: LeaseToken, payload: Option<Payload>, env: &mut Env) {
        let Some(run) = self.runs.get_mut(&token) else { return };
        let Phase::Fetching(assignment) = &run.phase else {
            return;
        };
        let assignment = Assignment::clone(assignment);
        match payload {
            Some(payload) => self.begin(assignment, &payload, env),
            // A stale token's failure is refused like any other stale word.
            None => self.over(
                token,
                Report::Failed(failure("failed to fetch the arguments", true)),
                env,
            ),
        }
    }

    /// The handler begins.
    fn begin(&mut self, assignment: Assignment, payload: &Payload, env: &mut Env) {
        let token = assignment.token;
        let mut run = Run::new(Phase::Going);
        env.record(Record::Began(token, self.holder()));
        // A generator hears of it at its next item, at the latest.
        run.at_most_once = assignment.at_most_once;
        run.stubborn = assignment.stream.is_none() && self.dice.chance(100);
        if let Some(stream) = assignment.stream {
            let content = Content::of(token, on_loss(&assignment.name), env);
            run.stream = Some(self.open_stream(token, (stream, content), env));
            self.runs.insert(token, run);
            return;
        }
        run.calls = self.calls_of(&assignment, payload, env);
        run.report = match self.dice.int(0..100) {
            0..80 => Report::Completed(self.result(token, env), Vec::new()),
            80..92 => Report::Failed(failure("it did not work", true)),
            92..94 => Report::Crashed(failure("its process died", true)),
            _ => Report::Failed(failure("it never will", false)),
        };
        let most = if self.dice.chance(100) { 60 } else { 10 };
        let mut time = self
            .dice
            .long_tailed(Duration::from_millis(1)..Duration::from_secs(most));
        if assignment
            .timeout
            .or(assignment.deadline.map(|_| Duration::ZERO))
            .is_some()
            && self.dice.chance(150)
        {
            time = Duration::from_secs(100_000);
            run.stubborn &= env.plan.has(Fault::Abandons);
        }
        if env.has_bug(Bug::NoFence) {
            // Only a run that outlasts a lease shows that nobody ended it.
            time = time.max(3 * limits::LEASE);
        }
        self.runs.insert(token, run);
        self.extends_later(&assignment, env);
        self.go_on(token, time, env);
    }

    /// A value that no other run returns.
    fn result(&mut self, token: LeaseToken, env: &Env) -> Payload {
        let large = env.has_fault(Fault::Large) && self.dice.chance(400);
        let len = if large { INLINE_BYTES + 16 } else { 8 };
        let mut data = token.task.0.to_vec();
        data.extend(token.grant.epoch.0.to_be_bytes());
        data.extend(token.grant.attempt.to_be_bytes());
        data.resize(data.len() + len - 8, b'.');
        Payload {
            content_type: "".into(),
            data: data.into(),
        }
    }

    /// The handler returns.
    pub(super) fn returns(&mut self, token: LeaseToken, env: &mut Env) {
        let Some(run) = self.runs.get(&token).filter(|run| matches!(run.phase, Phase::Going)) else {
            return;
        };
        // A blocking handler that was told to stop: its value is not wanted.
        if run.stopping {
            if !env.has_bug(Bug::SilentStop) {
                self.over(token, Report::Ended, env);
            }
            return;
        }
        let mut report = run.report.clone();
        if let Report::Completed(result, spawned) = &mut report {
            *spawned = self.spawns(token, env);
            env.record(Record::Returned(token, fingerprint(&result.data)));
        }
        self.over(token, report, env);
    }

    /// Fetches arguments, or delivers a large result.
    pub(super) fn transfer(&mut self, token: LeaseToken, env: &mut Env) {
        let message = match self.runs.get(&token).map(|run| &run.phase) {
            Some(Phase::Fetching(_)) => Up::Fetch(token),
            Some(Phase::Over {
                report: Report::Completed(result, spawned),
                ..
            }) => Up::CompleteLarge(token, result.clone(), spawned.clone()),
            _ => return,
        };
        let conn = env.connect(self.peer(), self.life);
        self.side.insert(conn, token);
        env.up(conn, message);
    }

    /// On a new connection, what was under way on the old one is done again.
    pub(super) fn redo_transfers(&mut self, env: &mut Env) {
        let fetching = |(token, run): (&LeaseToken, &Run)| matches!(run.phase, Phase::Fetching(_)).then_some(*token);
        let tokens: Vec<_> = self.runs.iter().filter_map(fetching).collect();
        tokens.into_iter().for_each(|token| self.transfer(token, env));
    }

    /// Connections of transfers.
    pub(super) fn transfers(&self) -> Vec<ConnId> {
        let streams = |(conn, token): &(&ConnId, &LeaseToken)| !self.is_streaming(**token, **conn);
        self.side.iter().filter(streams).map(|(conn, _)| *conn).collect()
    }

    /// A connection apart from the session's is gone.
    pub(super) fn lost_aside(&mut self, conn: ConnId, token: LeaseToken, env: &mut Env) {
        if self.is_streaming(token, conn) {
            self.emit_lost(token, conn, env);
        } else {
            let pause = self.dice.time(Duration::from_millis(1)..Duration::from_millis(500));
            self.wake_in(pause, Wake::Transfer(token), env);
        }
    }

    /// Whether that is the connection of the run's items.
    pub(super) fn is_streaming(&self, token: LeaseToken, conn: ConnId) -> bool {
        let stream = self.runs.get(&token).and_then(|run| run.stream.as_ref());
        stream.is_some_and(|stream| stream.conn == conn)
    }
}

pub(super) fn failure(message: &str, retryable: bool) -> Failure {
    Failure {
        kind: "error".into(),
        message: message.into(),
        trace: String::new(),
        retryable,
    }
}
