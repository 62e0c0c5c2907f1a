//! What workers say of runs, and how a run that ends badly goes on.

use std::time::Duration;

use crate::core::{Core, Output};
use crate::effect::{Effect, Verdict};
use crate::history::Cause;
use crate::ids::{LeaseToken, SessionId, TaskId};
use crate::lifecycle::Trigger;
use crate::limits;
use crate::live::Live;
use crate::sched::TaskKey;
use crate::task::{DeadReason, Failure, Outcome, Payload, StateName, StopIntent};
use crate::time::Timestamp;

impl Core {
    pub(crate) fn on_completed(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        result: Payload,
        out: &mut Output,
    ) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match self.stop_intent(key) {
            // The wish to stop came first: the result is late.
            Some(intent) => {
                self.note(now, key, StateName::Stopping, Cause::TooLate);
                self.conclude_stop(now, key, intent, out)
            }
            None if self.live(key).stream().is_some() => {
                self.break_off(now, key, "a result was sent where a stream was asked for".into(), out);
                StateName::Dead
            }
            None => {
                self.finish(now, key, Trigger::Completed, Outcome::Succeeded, Some(result), out);
                StateName::Succeeded
            }
        };
        ack(session, token, state, out);
    }

    pub(crate) fn on_failed(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        (failure, min_attempts): (Failure, u32),
        out: &mut Output,
    ) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match self.stop_intent(key) {
            Some(intent) => self.conclude_stop(now, key, intent, out),
            None => self.fail(now, key, failure.clipped(), min_attempts, out),
        };
        ack(session, token, state, out);
    }

    pub(crate) fn on_timed_out(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        failure: Failure,
        out: &mut Output,
    ) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match self.stop_intent(key) {
            Some(intent) => self.conclude_stop(now, key, intent, out),
            None => self.time_out(now, key, failure.clipped(), out),
        };
        ack(session, token, state, out);
    }

    /// Written at once: after a restart the run must not be taken to be late.
    pub(crate) fn on_extended(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        left: Duration,
        out: &mut Output,
    ) {
        let Some(key) = self.held_run(session, token) else {
            return;
        };
        let Some(held) = self.live(key).held().filter(|held| held.stop.is_none()) else {
            return;
        };
        let wanted = (now.since(held.started_at) + left).min(limits::MAX_DURATION);
        if held.timeout.is_none_or(|timeout| wanted <= timeout) {
            return;
        }
        self.rearm_run(key, |held| {
            (held.timeout, held.extended, held.claimed) = (Some(wanted), true, true);
        });
        self.remember(key, out);
    }

    pub(crate) fn on_crashed(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        failure: Failure,
        out: &mut Output,
    ) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match self.stop_intent(key) {
            Some(intent) => self.conclude_stop(now, key, intent, out),
            None => self.crash(now, key, failure.clipped(), out),
        };
        ack(session, token, state, out);
    }

    pub(crate) fn on_released(&mut self, now: Timestamp, session: SessionId, token: LeaseToken, out: &mut Output) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match self.stop_intent(key) {
            Some(intent) => self.conclude_stop(now, key, intent, out),
            None => {
                self.tally.releases += 1;
                let claimed = self.live(key).held().is_some_and(|held| held.claimed);
                self.note(now, key, StateName::Ready, Cause::Released);
                self.change(key, Trigger::Returned, |task| {
                    task.extra_mut().counters.releases += 1;
                    task.state = task.ready();
                });
                if claimed {
                    self.remember(key, out);
                }
                StateName::Ready
            }
        };
        ack(session, token, state, out);
    }

    pub(crate) fn on_ended(&mut self, now: Timestamp, session: SessionId, token: LeaseToken, out: &mut Output) {
        let Some(key) = self.current_run(session, token, out) else {
            return;
        };
        let state = match self.stop_intent(key) {
            Some(intent) => self.conclude_stop(now, key, intent, out),
            // Nobody had asked for it: as good as lost.
            None => self.lose(now, key, out),
        };
        ack(session, token, state, out);
    }

    /// The run goes on for nobody; its slot is told of apart, see [`Core::on_leaked`].
    pub(crate) fn on_abandoned(&mut self, now: Timestamp, session: SessionId, token: LeaseToken, out: &mut Output) {
        if let Some(key) = self.held_run(session, token)
            && let Some(held) = self.tasks[key.index()].held_mut()
        {
            held.abandoned = true;
        }
        self.on_ended(now, session, token, out);
    }

    /// The task the token is the current grant of, if the session holds it;
    /// else the worker is told.
    pub(crate) fn current_run(&self, session: SessionId, token: LeaseToken, out: &mut Output) -> Option<TaskKey> {
        let current = self.held_run(session, token);
        if current.is_none() {
            let state = self.find(token.task).map(|key| self.live(key).state_name());
            out.effects.push(Effect::Ack {
                session,
                token,
                verdict: Verdict::Stale(state),
            });
        }
        current
    }

    /// The task the token is the current grant of, if the session holds it.
    pub(crate) fn held_run(&self, session: SessionId, token: LeaseToken) -> Option<TaskKey> {
        let key = self.find(token.task)?;
        let task = self.live(key);
        let held = task.held().is_some_and(|held| held.session == session);
        (held && task.grant == token.grant).then_some(key)
    }

    /// A run told to stop has ended, whatever it said last.
    pub(crate) fn conclude_stop(
        &mut self,
        now: Timestamp,
        key: TaskKey,
        intent: StopIntent,
        out: &mut Output,
    ) -> StateName {
        match intent {
            StopIntent::Cancel => self.finish(now, key, Trigger::Cancelled, Outcome::Cancelled, None, out),
            StopIntent::Deadline => self.finish(now, key, Trigger::Expired, Outcome::Expired, None, out),
            StopIntent::Timeout => {
                let failure = self.too_long(key);
                return self.time_out(now, key, failure, out);
            }
        }
        match intent {
            StopIntent::Cancel => StateName::Cancelled,
            StopIntent::Deadline | StopIntent::Timeout => StateName::Expired,
        }
    }

    /// What is said of a run that had to be stopped because of its timeout.
    fn too_long(&self, key: TaskKey) -> Failure {
        let task = self.live(key);
        let (attempt, held) = (task.grant.attempt, task.held());
        let timeout = held.and_then(|held| held.timeout);
        let of = timeout.map_or_else(String::new, |timeout| format!(" of {timeout:?}"));
        let still = match held {
            Some(held) if held.abandoned => ", and has not stopped since",
            _ => "",
        };
        Failure {
            kind: "timeout".into(),
            message: format!("attempt {attempt} ran longer than its timeout{of}{still}"),
            trace: String::new(),
            retryable: true,
        }
    }

    fn time_out(&mut self, now: Timestamp, key: TaskKey, failure: Failure, out: &mut Output) -> StateName {
        self.tally.timeouts += 1;
        let task = &mut self.tasks[key.index()];
        let has_one_try = task.has_one_try();
        let extra = task.extra_mut();
        extra.counters.timeouts += 1;
        extra.failure = Some(Box::new(failure));
        let spent = extra.counters.timeouts;
        let allowed = if has_one_try {
            1
        } else {
            extra.options.max_timeouts.unwrap_or(limits::DEFAULT_MAX_TIMEOUTS)
        };
        if spent >= allowed {
            self.finish(now, key, Trigger::GaveUp, Outcome::Dead(DeadReason::Timeout), None, out);
            return StateName::Dead;
        }
        self.retry(now, key, spent, Cause::TimedOut, out)
    }

    fn fail(
        &mut self,
        now: Timestamp,
        key: TaskKey,
        failure: Failure,
        min_attempts: u32,
        out: &mut Output,
    ) -> StateName {
        let held = self.live(key).held();
        let allowed = held.map_or(limits::DEFAULT_MAX_ATTEMPTS, |held| held.max_attempts);
        let allowed = allowed.max(min_attempts);
        let retryable = failure.retryable;
        let (rejected, differs) = (
            failure.kind == Failure::REJECTED,
            failure.kind == Failure::NON_DETERMINISTIC && self.live(key).stream().is_some(),
        );
        self.tally.failures += 1;
        let task = &mut self.tasks[key.index()];
        let has_one_try = task.has_one_try();
        let extra = task.extra_mut();
        extra.counters.failures += 1;
        extra.failure = Some(Box::new(failure));
        let spent = extra.counters.failures;
        if retryable && spent < allowed && !has_one_try && !differs {
            return self.retry(now, key, spent, Cause::Failed, out);
        }
        let reason = if rejected {
            DeadReason::Rejected
        } else if differs {
            DeadReason::NonDeterministic
        } else {
            DeadReason::Error
        };
        self.finish(now, key, Trigger::GaveUp, Outcome::Dead(reason), None, out);
        StateName::Dead
    }

    /// The process of a run has died: the task may be what kills it.
    pub(crate) fn crash(&mut self, now: Timestamp, key: TaskKey, failure: Failure, out: &mut Output) -> StateName {
        self.tally.crashes += 1;
        let task = &mut self.tasks[key.index()];
        task.forgive();
        let has_one_try = task.has_one_try();
        let extra = task.extra_mut();
        extra.counters.crashes += 1;
        extra.failure = Some(Box::new(failure));
        let reason = if has_one_try {
            DeadReason::WorkerLost
        } else if extra.counters.crashes >= limits::MAX_CRASHES {
            DeadReason::Poison
        } else {
            self.note(now, key, StateName::Ready, Cause::Crashed);
            return self.put_back(key, out);
        };
        self.finish(now, key, Trigger::GaveUp, Outcome::Dead(reason), None, out);
        StateName::Dead
    }

    /// The session under a run has ended.
    pub(crate) fn lose(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) -> StateName {
        if let Some(intent) = self.stop_intent(key) {
            return self.conclude_stop(now, key, intent, out);
        }
        self.tally.losses += 1;
        let for_good = match self.live(key).stream() {
            Some(stream) if stream.has_one_try() => Some(self.lost_stream(key)),
            _ if self.live(key).at_most_once() => Some(Failure::lost(
                "its worker went away before it had ended, and it must not begin twice",
            )),
            _ => None,
        };
        let task = &mut self.tasks[key.index()];
        task.forgive();
        let extra = task.extra_mut();
        extra.counters.losses += 1;
        if let Some(failure) = for_good {
            extra.failure = Some(Box::new(failure));
            self.finish(
                now,
                key,
                Trigger::GaveUp,
                Outcome::Dead(DeadReason::WorkerLost),
                None,
                out,
            );
            return StateName::Dead;
        }
        if extra.counters.losses >= limits::MAX_LOSSES {
            extra.failure = Some(Box::new(Failure {
                kind: "lost".into(),
                message: format!("its worker's session ended under it {} times", limits::MAX_LOSSES),
                trace: String::new(),
                retryable: false,
            }));
            self.finish(now, key, Trigger::GaveUp, Outcome::Dead(DeadReason::Poison), None, out);
            return StateName::Dead;
        }
        self.note(now, key, StateName::Ready, Cause::Lost);
        self.put_back(key, out)
    }

    /// Gives a run up without counting anything.
    pub(crate) fn put_back(&mut self, key: TaskKey, out: &mut Output) -> StateName {
        self.change(key, Trigger::Returned, |task| task.state = task.ready());
        self.remember(key, out);
        StateName::Ready
    }

    fn retry(&mut self, now: Timestamp, key: TaskKey, spent: u32, cause: Cause, out: &mut Output) -> StateName {
        self.tally.retries += 1;
        let task = self.live(key);
        let at = now + backoff(task.id, task.grant.attempt, spent);
        self.note_until(now, key, StateName::Scheduled, cause, Some(at));
        self.change(key, Trigger::Retried, |task| task.state = Live::Scheduled(at));
        self.remember(key, out);
        StateName::Scheduled
    }
}

fn ack(session: SessionId, token: LeaseToken, state: StateName, out: &mut Output) {
    out.effects.push(Effect::Ack {
        session,
        token,
        verdict: Verdict::Accepted(state),
    });
}

/// How long to wait after `spent` failures: full jitter, up to the base doubled
/// with each, up to the cap. Drawn from the task and its attempt, so that a
/// replay draws the same.
fn backoff(task: TaskId, attempt: u32, spent: u32) -> Duration {
    let doubled = limits::BACKOFF_BASE.saturating_mul(1_u32.checked_shl(spent.saturating_sub(1)).unwrap_or(u32::MAX));
    let most = doubled.min(limits::BACKOFF_CAP).as_micros() as u64;
    let draw = xxhash_rust::xxh3::xxh3_64_with_seed(&task.0, u64::from(attempt));
    Duration::from_micros(((u128::from(draw) * u128::from(most)) >> 64) as u64)
}

impl Failure {
    /// The kind of a failure that no retry can mend.
    pub const REJECTED: &str = "rejected";
    /// Of a run whose worker has gone.
    pub(crate) fn lost(message: &str) -> Self {
        Self {
            kind: "lost".into(),
            message: message.into(),
            trace: String::new(),
            retryable: true,
        }
    }

    /// The kind of a failure of a generator that, run again, yielded other items.
    pub const NON_DETERMINISTIC: &str = "non_deterministic";

    /// Without what exceeds [`limits::MAX_FAILURE_BYTES`]: of the message the
    /// end goes, of the trace the beginning.
    fn clipped(mut self) -> Self {
        let most = limits::MAX_FAILURE_BYTES;
        for text in [&mut self.kind, &mut self.message] {
            text.truncate(text.floor_char_boundary(most));
        }
        if self.trace.len() > most {
            let from = self.trace.ceil_char_boundary(self.trace.len() - most);
            self.trace.drain(..from);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_stays_in_its_range_and_uses_it() {
        for spent in 1..40 {
            let most = limits::BACKOFF_BASE
                .saturating_mul(1 << (spent - 1).min(20))
                .min(limits::BACKOFF_CAP);
            let draws: Vec<_> = (0..200).map(|n| backoff(TaskId([n; 16]), spent, spent)).collect();
            assert!(draws.iter().all(|&d| d <= most), "{spent}: beyond {most:?}");
            assert!(
                draws.iter().any(|&d| d > most / 2) && draws.iter().any(|&d| d < most / 2),
                "{spent}: no jitter"
            );
        }
    }

    #[test]
    fn failures_are_clipped_at_character_boundaries() {
        let long = "é".repeat(limits::MAX_FAILURE_BYTES);
        let clipped = Failure {
            message: long.clone(),
            trace: format!("x{long}end"),
            ..Failure::default()
        }
        .clipped();
        assert!(clipped.message.len() <= limits::MAX_FAILURE_BYTES);
        assert!(clipped.trace.len() <= limits::MAX_FAILURE_BYTES && clipped.trace.ends_with("end"));
    }
}
