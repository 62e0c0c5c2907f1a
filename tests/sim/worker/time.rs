//! Runs that ask for more time, and runs that do not stop when their time is over; see
//! `worker/src/extend.rs` and `worker/src/stopping.rs`.

use std::time::Duration;

use asynq_core::{Assignment, LeaseToken};

use super::ledger::{Phase, Run};
use super::{Wake, Worker};
use crate::bug::Bug;
use crate::env::Env;
use crate::message::Report;
use crate::plan::Fault;

/// How long a run may go on that was told to stop.
const KILL_GRACE: Duration = Duration::from_secs(6);
/// How often a run asks for more time, at most.
const MAX_EXTENSIONS: u32 = 3;

/// The time a run has asked for.
#[derive(Debug, Default)]
pub(super) struct Extension {
    until: Option<Duration>,
    times: u32,
    /// It is to be said on the connection there is.
    due: bool,
}

impl Worker {
    /// Whether the handler will ask for more time.
    pub(super) fn extends_later(&mut self, assignment: &Assignment, env: &mut Env) {
        let Some(timeout) = assignment.timeout.filter(|_| env.plan.has(Fault::Extends)) else {
            return;
        };
        if self.dice.chance(700) {
            let soon = self.dice.time(Duration::from_millis(1)..timeout);
            self.wake_in(soon, Wake::Extends(assignment.token), env);
        }
    }

    /// The handler asks for more time.
    pub(super) fn extends(&mut self, token: LeaseToken, env: &mut Env) {
        let left = self.dice.time(Duration::from_secs(1)..Duration::from_secs(20));
        let again = self.dice.time(Duration::from_millis(100)..left);
        let goes_on = |run: &&mut Run| matches!(run.phase, Phase::Going) && !run.stopping;
        let Some(run) = self.runs.get_mut(&token).filter(goes_on) else {
            return;
        };
        let Extension { until, times, due } = &mut run.extension;
        *until = (*until).max(Some(env.now + left));
        *times += 1;
        *due = true;
        if *times < MAX_EXTENSIONS {
            self.wake_in(again, Wake::Extends(token), env);
        }
    }

    /// A new connection: what runs have asked for is asked for again.
    pub(super) fn extend_all_again(&mut self) {
        for run in self.runs.values_mut() {
            run.extension.due = run.extension.until.is_some();
        }
    }

    /// What there is to be asked for, from now on.
    pub(super) fn gather_extensions(&mut self, env: &Env) -> Vec<(LeaseToken, Duration)> {
        let mut extensions = Vec::new();
        for (token, run) in &mut self.runs {
            if std::mem::take(&mut run.extension.due)
                && matches!(run.phase, Phase::Going)
                && let Some(until) = run.extension.until
            {
                extensions.push((*token, until.saturating_sub(env.now)));
            }
        }
        extensions
    }

    /// A run that does not hear it was told to stop.
    pub(super) fn abandons_later(&self, token: LeaseToken, env: &mut Env) {
        if env.plan.has(Fault::Abandons) {
            self.wake_in(KILL_GRACE, Wake::Overdue(token), env);
        }
    }

    /// It has not stopped: it goes on for nobody, and keeps its slot.
    pub(super) fn abandon(&mut self, token: LeaseToken, env: &mut Env) {
        let goes_on = |run: &&Run| matches!(run.phase, Phase::Going) && run.stopping;
        if self.runs.get(&token).filter(goes_on).is_none() || env.has_bug(Bug::AbandonedUnsaid) {
            return;
        }
        self.ghosts.insert(token);
        self.over(token, Report::Abandoned, env);
        let most = self.dice.long_tailed(Duration::from_millis(1)..Duration::from_secs(60));
        self.wake_in(most, Wake::Returned(token), env);
    }

    /// What is new of slots that are taken by runs that were abandoned.
    pub(super) fn gather_leaked(&mut self) -> Option<u32> {
        let leaked = self.leaked();
        (std::mem::replace(&mut self.leaked_told, leaked) != leaked).then_some(leaked)
    }

    pub(super) fn leaked(&self) -> u32 {
        (self.ghosts.len() as u32).min(self.slots)
    }
}
