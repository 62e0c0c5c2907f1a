//! What must hold between a worker's lease and the grants of its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use asynq_core::{Grant, LeaseToken, SessionId, TaskId, limits};

use super::{Entry, Judge, Record, Rule, Verdict, broken, show};

#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Runs that go on, and of whom.
    running: BTreeMap<LeaseToken, SessionId>,
    /// Tasks that must not begin twice.
    once: BTreeMap<TaskId, Once>,
    /// Sessions of workers that cannot have noticed the end of a lease.
    stalled: BTreeSet<SessionId>,
    /// Durable claims of runs that are not over, as far as was seen.
    claims: BTreeMap<TaskId, Claim>,
    /// The newest grant of each task.
    newest: BTreeMap<TaskId, Grant>,
    /// Tasks the broker remembers durably, and those it did when it was opened.
    remembered: BTreeSet<TaskId>,
    recovered: BTreeSet<TaskId>,
    opened_at: Option<Duration>,
    /// Sessions the broker knows durably.
    known: BTreeSet<SessionId>,
    /// Those of them that have not come back since it was opened.
    awaited: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
struct Once {
    begun: bool,
    /// The newest grant when an operator had it run again: what began by one up to
    /// this was the life before.
    before: Grant,
}

#[derive(Debug)]
struct Claim {
    token: LeaseToken,
    session: SessionId,
    /// The broker was restarted since, and the session has not come back.
    awaited: bool,
}

impl Judge for Leases {
    fn see(&mut self, entry: &Entry) -> Verdict {
        match &entry.what {
            Record::Once(task) => _ = self.once.entry(*task).or_default(),
            Record::Began(token, session) => {
                self.running.insert(*token, *session);
                let once = self.once.get_mut(&token.task).filter(|once| token.grant > once.before);
                if once.is_some_and(|once| std::mem::replace(&mut once.begun, true)) {
                    return broken(Rule::BegunTwice, format!("{} began as a second one", show(*token)));
                }
            }
            Record::Revived(task) => {
                if let Some(once) = self.once.get_mut(task) {
                    let before = self.newest.get(task).copied().unwrap_or_default();
                    *once = Once { begun: false, before };
                }
            }
            Record::Quit(token) => _ = self.running.remove(token),
            Record::Stalled(session) => _ = self.stalled.insert(*session),
            Record::LeaseOver(session) => {
                self.claims.retain(|_, claim| claim.session != *session);
                return self.lease_over(*session);
            }
            Record::Claimed(token, session) => {
                let claim = Claim {
                    token: *token,
                    session: *session,
                    awaited: false,
                };
                self.claims.insert(token.task, claim);
            }
            Record::Opened(_) => {
                self.opened_at = Some(entry.at);
                self.awaited = self.known.clone();
                self.recovered = self.remembered.clone();
                self.claims.values_mut().for_each(|claim| claim.awaited = true);
            }
            Record::Known(session) => _ = self.known.insert(*session),
            Record::Forgotten(session) => _ = self.known.remove(session),
            Record::Resumed(session, _) => {
                self.awaited.remove(session);
                for claim in self.claims.values_mut().filter(|claim| claim.session == *session) {
                    claim.awaited = false;
                }
            }
            // A word of the run, or its end: the claim is spent.
            Record::GivenUp(task) => {
                self.remembered.insert(*task);
                self.claims.remove(task);
            }
            Record::Accepted(token, _) => _ = self.claims.remove(&token.task),
            Record::Ended(task, _) => _ = self.claims.remove(task),
            Record::Granted(token, _) => return self.granted(entry.at, *token),
            _ => {}
        }
        Ok(())
    }
}

impl Leases {
    fn lease_over(&self, session: SessionId) -> Verdict {
        let goes_on = self.running.iter().find(|(_, holder)| **holder == session);
        match goes_on.filter(|_| !self.stalled.contains(&session)) {
            Some((token, _)) => broken(
                Rule::Overlap,
                format!("the lease of session {session} is over, and {} goes on", show(*token)),
            ),
            None => Ok(()),
        }
    }

    fn granted(&mut self, at: Duration, token: LeaseToken) -> Verdict {
        let before = self.newest.insert(token.task, token.grant);
        // A task whose enqueue was lost, and came again, is a new one.
        if let Some(grant) = before.filter(|_| self.recovered.contains(&token.task)) {
            self.again(at, token, LeaseToken { grant, ..token })?;
        }
        let Some(claim) = self.claims.remove(&token.task).filter(|claim| claim.awaited) else {
            return Ok(());
        };
        let since = self.since_open(at);
        if since >= limits::LEASE {
            return Ok(());
        }
        broken(
            Rule::ClaimLost,
            format!(
                "{} was granted {since:?} after a restart, but {} is claimed by session {}, which has not come back",
                show(token),
                show(claim.token),
                claim.session
            ),
        )
    }

    /// Not while the run before goes on, and its session may come back.
    fn again(&self, at: Duration, token: LeaseToken, before: LeaseToken) -> Verdict {
        let holder = self.running.get(&before).filter(|holder| self.awaited.contains(holder));
        match holder.filter(|_| self.since_open(at) < limits::RESUME_GRACE) {
            Some(session) => broken(
                Rule::RunAgain,
                format!(
                    "{} was granted, but {} goes on, and session {session} may come back",
                    show(token),
                    show(before)
                ),
            ),
            None => Ok(()),
        }
    }

    fn since_open(&self, at: Duration) -> Duration {
        self.opened_at.map_or(Duration::MAX, |opened| at.saturating_sub(opened))
    }
}
