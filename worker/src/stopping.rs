//! Runs that were told to stop: how long they may go on, and which of them do when the
//! session has none of them any more.

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use crate::context::{Control, LeaseToken};

#[derive(Debug, Default)]
pub(crate) struct Stopping {
    /// How long a run that was told to stop may go on.
    kill_grace: Duration,
    /// Until when those may that were told to, the first first.
    until: VecDeque<(Instant, LeaseToken)>,
    /// Runs that go on, though they are none of the session's any more.
    ghosts: HashMap<LeaseToken, Ghost>,
}

#[derive(Debug)]
struct Ghost {
    control: Control,
    /// It has had its time to end.
    overdue: bool,
}

impl Stopping {
    pub(crate) fn new(kill_grace: Duration) -> Self {
        Self {
            kill_grace,
            ..Self::default()
        }
    }

    /// The run has just been told.
    pub(crate) fn told(&mut self, token: LeaseToken) {
        self.until.push_back((Instant::now() + self.kill_grace, token));
    }

    /// The run has just been told, and the session has it no more.
    pub(crate) fn disowned(&mut self, token: LeaseToken, control: Control) {
        let overdue = false;
        self.ghosts.insert(token, Ghost { control, overdue });
        self.told(token);
    }

    /// The run has had its time, and the session has it no more.
    pub(crate) fn abandoned(&mut self, token: LeaseToken, control: Control) {
        let overdue = true;
        self.ghosts.insert(token, Ghost { control, overdue });
        warn(token);
    }

    /// When the next has had its time.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.until.front().map(|(at, _)| *at)
    }

    /// The next that has had its time by `now`, and is the session's as far as is known here.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<LeaseToken> {
        loop {
            let (_, token) = self.until.pop_front_if(|(at, _)| *at <= now)?;
            let Some(ghost) = self.ghosts.get_mut(&token) else {
                return Some(token);
            };
            ghost.overdue = true;
            warn(token);
        }
    }

    /// The run has come to its end.
    pub(crate) fn returned(&mut self, token: LeaseToken) {
        if self.ghosts.remove(&token).is_some_and(|ghost| ghost.overdue) {
            tracing::info!(?token, "a run that was abandoned has ended after all");
        }
    }

    /// Slots taken by runs which are none of the session's any more, and of which
    /// nobody knows when they are free again.
    pub(crate) fn leaked(&self) -> u32 {
        let leaked = |ghost: &&Ghost| ghost.overdue && !ghost.control.is_slotless();
        self.ghosts.values().filter(leaked).count() as u32
    }

    #[cfg(test)]
    pub(crate) fn ghosts(&self) -> usize {
        self.ghosts.len()
    }
}

fn warn(token: LeaseToken) {
    tracing::error!(
        ?token,
        "a run goes on though it was told to stop; its slot is lost until it returns"
    );
}
