//! The runs a worker holds, and outcomes the broker has not acknowledged; see
//! `worker/src/ledger.rs`.

use std::time::Duration;

use asynq_core::{Assignment, LeaseToken, SessionId};
use asynq_tests::history::Record;

use super::calls::Calls;
use super::stream::Stream;
use super::time::Extension;
use super::{Wake, Worker};
use crate::bug::Bug;
use crate::env::Env;
use crate::message::Report;
use crate::net::To;

#[derive(Debug)]
pub(super) enum Phase {
    /// Its arguments are still to be fetched.
    Fetching(Box<Assignment>),
    /// With its handler.
    Going,
    /// Ended, and kept until the broker acknowledges the outcome; `sent`: over
    /// the connection there is.
    Over { report: Report, sent: bool },
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) phase: Phase,
    /// How its handler will return, if it is not stopped.
    pub(super) report: Report,
    /// It was told to stop.
    pub(super) stopping: bool,
    /// It does not hear that until it is done.
    pub(super) stubborn: bool,
    /// It goes on without its slot, which others may have.
    pub(super) slotless: bool,
    /// Its task must not begin twice.
    pub(super) at_most_once: bool,
    /// Its items go out as they come.
    pub(super) stream: Option<Stream>,
    /// The time it has asked for.
    pub(super) extension: Extension,
    /// What it has called.
    pub(super) calls: Calls,
}

impl Run {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            report: Report::Ended,
            stopping: false,
            stubborn: false,
            slotless: false,
            at_most_once: false,
            stream: None,
            extension: Extension::default(),
            calls: Calls::default(),
        }
    }
}

/// The token of a run whose handler goes on.
pub(super) fn going((token, run): (LeaseToken, Run)) -> Option<LeaseToken> {
    matches!(run.phase, Phase::Going).then_some(token)
}

impl Worker {
    /// A run ended. Its first outcome counts.
    pub(super) fn over(&mut self, token: LeaseToken, report: Report, env: &mut Env) {
        let Some(run) = self.runs.get_mut(&token) else { return };
        match run.phase {
            Phase::Over { .. } => return,
            Phase::Going => env.record(Record::Quit(token)),
            Phase::Fetching(_) => {}
        }
        run.phase = Phase::Over { report, sent: false };
        if let Some(conn) = run.stream.as_ref().map(|stream| stream.conn)
            && self.side.remove(&conn).is_some()
        {
            env.close(conn, To::Peer);
        }
        self.drop_calls(token, env);
    }

    /// Nothing more is said or heard of a run.
    pub(super) fn forget(&mut self, token: LeaseToken, env: &mut Env) {
        self.drop_calls(token, env);
        if let Some(run) = self.runs.remove(&token) {
            if let Some(conn) = run.stream.as_ref().map(|stream| stream.conn)
                && self.side.remove(&conn).is_some()
            {
                env.close(conn, To::Peer);
            }
            if let Some(token) = going((token, run)) {
                env.record(Record::Quit(token));
            }
        }
    }

    /// A grant that is answered without ever having been a run here.
    pub(super) fn answer(&mut self, token: LeaseToken, report: Report) {
        self.runs.insert(token, Run::new(Phase::Over { report, sent: false }));
    }

    /// The broker wants a run to end.
    pub(super) fn wanted_stopped(&mut self, token: LeaseToken, env: &mut Env) {
        let Some(run) = self.runs.get_mut(&token) else {
            // Its end was acknowledged, or it never got here: it does not go on.
            return self.answer(token, Report::Ended);
        };
        match run.phase {
            Phase::Fetching(_) => self.over(token, Report::Ended, env),
            Phase::Going if std::mem::replace(&mut run.stopping, true) => {}
            Phase::Going if run.stubborn => self.abandons_later(token, env),
            Phase::Going => {
                let soon = self
                    .dice
                    .long_tailed(Duration::from_micros(10)..Duration::from_millis(50));
                self.wake_in(soon, Wake::Stopped(token), env);
            }
            Phase::Over { .. } => {}
        }
    }

    /// A run that was told to stop has stopped.
    pub(super) fn stopped(&mut self, token: LeaseToken, env: &mut Env) {
        if env.has_bug(Bug::SilentStop) {
            if let Some(run) = self.runs.get_mut(&token) {
                run.stubborn = true;
            }
            return;
        }
        self.over(token, Report::Ended, env);
    }

    /// The broker has an outcome, or will not have it.
    pub(super) fn acknowledged(&mut self, token: LeaseToken, stale: bool, env: &mut Env) {
        let over = |run: &Run| matches!(run.phase, Phase::Over { .. });
        if stale || self.runs.get(&token).is_some_and(over) {
            self.forget(token, env);
        }
    }

    /// A stream ended, and the broker has said what became of it there.
    pub(super) fn settled(&mut self, token: LeaseToken, env: &mut Env) {
        let over = |run: &Run| matches!(run.phase, Phase::Over { .. });
        if !self.runs.get(&token).is_some_and(over) {
            self.forget(token, env);
        }
    }

    /// Gives back what has not started.
    pub(super) fn release_unstarted(&mut self) {
        for run in self.runs.values_mut() {
            if matches!(run.phase, Phase::Fetching(_)) {
                run.phase = Phase::Over {
                    report: Report::Released,
                    sent: false,
                };
            }
        }
    }

    /// Stops and gives back what has not ended; but a run whose items have gone
    /// out cannot be given back.
    pub(super) fn release_all(&mut self, env: &mut Env) {
        let honest = !env.has_bug(Bug::BegunReleased);
        let bound = |run: &Run| run.stream.is_some() || (run.at_most_once && honest);
        let tokens: Vec<(LeaseToken, bool)> = self.runs.iter().map(|(t, run)| (*t, bound(run))).collect();
        for (token, is_bound) in tokens {
            let report = if is_bound { Report::Ended } else { Report::Released };
            self.over(token, report, env);
        }
    }

    /// A new connection: what was said on the old one is to be said again.
    pub(super) fn owe_all_again(&mut self) {
        for run in self.runs.values_mut() {
            if let Phase::Over { sent, .. } = &mut run.phase {
                *sent = false;
            }
        }
    }

    pub(super) fn holder(&self) -> SessionId {
        self.session.unwrap_or(SessionId([0; 16]))
    }
}
