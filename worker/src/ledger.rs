//! What the broker and this worker owe each other: the runs the worker holds,
//! and outcomes the broker has not acknowledged. Plain data, no wire. The clock is
//! read only for runs that are told to stop or that ask for more time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use asynq_proto::limits::{INLINE_BYTES, MAX_BATCH_BYTES, MAX_BATCH_OPS};
use asynq_proto::{Payload, TaskError, v1};
use foldhash::HashMap;
use tokio::time::Instant;
use uuid::Uuid;

use crate::calls;
use crate::context::{Control, LeaseToken, StopCause};
use crate::limits::{MAX_UNACKED, MAX_UNACKED_BYTES};
use crate::stopping::Stopping;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It returned a value.
    Completed(Payload),
    /// It returned a value, and left tasks behind to begin with it.
    CompletedWith(Box<(Payload, Vec<v1::RunCall>)>),
    /// It failed.
    Failed(TaskError),
    /// It is given back, to be run by someone else.
    Released,
    /// It was told to stop, and has.
    Ended,
    /// It was told to stop, and goes on: nobody waits for it any more.
    Abandoned,
}

impl Outcome {
    fn bytes(&self) -> usize {
        match self {
            Self::Completed(result) => result.len(),
            Self::CompletedWith(with) => with.0.len() + with.1.iter().map(calls::weight).sum::<usize>(),
            Self::Failed(error) => error.message.len() + error.trace.len(),
            Self::Released | Self::Ended | Self::Abandoned => 0,
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// Its arguments are still to be fetched.
    Fetching(Box<v1::Assignment>),
    /// With the runtime.
    Going,
    /// Ended, and kept until the broker acknowledges the outcome.
    Over(Outcome),
}

#[derive(Debug)]
struct Run {
    control: Control,
    phase: Phase,
    /// Nobody else can take the run up: its items go out as they come, or its task
    /// must not begin twice.
    is_bound: bool,
    /// What it has called and waits for.
    calls: calls::Slot,
}

impl calls::Runs for HashMap<LeaseToken, Run> {
    fn slot(&mut self, run: LeaseToken) -> Option<&mut calls::Slot> {
        Some(&mut self.get_mut(&run)?.calls)
    }
}

impl Run {
    fn new(control: Control, phase: Phase) -> Self {
        Self {
            control,
            phase,
            is_bound: false,
            calls: None,
        }
    }
}

/// The runs this worker's session holds.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    runs: HashMap<LeaseToken, Run>,
    unsent: VecDeque<LeaseToken>,
    unsent_large: VecDeque<LeaseToken>,
    unfetched: VecDeque<LeaseToken>,
    /// Messages on this connection that told of outcomes.
    messages: u64,
    /// Whose outcomes they told of, as far as that is not acknowledged.
    told: VecDeque<(u64, Vec<LeaseToken>)>,
    unacked: usize,
    unacked_bytes: usize,
    calls: calls::Queue,
    stopping: Stopping,
    /// Runs whose handlers have asked for more time, and until when they have it now.
    extended: HashMap<LeaseToken, Instant>,
    /// Those of them the broker is yet to be told of.
    unsent_extended: VecDeque<LeaseToken>,
}

impl Ledger {
    pub(crate) fn new(kill_grace: Duration) -> Self {
        Self {
            stopping: Stopping::new(kill_grace),
            ..Self::default()
        }
    }

    /// Nothing is held and nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Runs that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.runs.len() - self.unacked
    }

    /// Whether further outcomes may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.unacked < MAX_UNACKED && self.unacked_bytes < MAX_UNACKED_BYTES
    }

    pub(crate) fn contains(&self, token: LeaseToken) -> bool {
        self.runs.contains_key(&token)
    }

    /// Every run the broker must go on counting as ours when we come back.
    pub(crate) fn held(&self) -> Vec<v1::LeaseToken> {
        self.runs.keys().map(|token| token.to_wire()).collect()
    }

    /// A run goes to the runtime.
    pub(crate) fn going(&mut self, token: LeaseToken) -> Control {
        let control = Control::default();
        self.runs.insert(token, Run::new(control.clone(), Phase::Going));
        control
    }

    /// Nobody else can take the run up once it has begun.
    pub(crate) fn bind(&mut self, token: LeaseToken) {
        if let Some(run) = self.runs.get_mut(&token) {
            run.is_bound = true;
        }
    }

    /// Unfinished runs that go on without a slot, which others may have.
    pub(crate) fn slotless(&self) -> usize {
        let lent = |run: &Run| run.control.is_slotless() || run.calls.is_some();
        let slotless = |run: &&Run| lent(run) && !matches!(run.phase, Phase::Over(_));
        self.runs.values().filter(slotless).count()
    }

    /// A run waits for its arguments.
    pub(crate) fn fetching(&mut self, token: LeaseToken, assignment: v1::Assignment) {
        let phase = Phase::Fetching(Box::new(assignment));
        self.runs.insert(token, Run::new(Control::default(), phase));
        self.unfetched.push_back(token);
    }

    /// The next run whose arguments are to be fetched.
    pub(crate) fn next_fetch(&mut self) -> Option<LeaseToken> {
        loop {
            let token = self.unfetched.pop_front()?;
            if matches!(
                self.runs.get(&token),
                Some(Run {
                    phase: Phase::Fetching(_),
                    ..
                })
            ) {
                return Some(token);
            }
        }
    }

    /// Arguments came: what to run, unless the run is wanted no more.
    pub(crate) fn fetched(&mut self, token: LeaseToken) -> Option<(v1::Assignment, Control)> {
        let run = self
            .runs
            .get_mut(&token)
            .filter(|run| matches!(run.phase, Phase::Fetching(_)))?;
        match std::mem::replace(&mut run.phase, Phase::Going) {
            Phase::Fetching(assignment) => Some((*assignment, run.control.clone())),
            Phase::Going | Phase::Over(_) => None,
        }
    }

    /// A run is to have time until then.
    pub(crate) fn extend(&mut self, token: LeaseToken, until: Instant) {
        if matches!(
            self.runs.get(&token),
            Some(Run {
                phase: Phase::Going,
                ..
            })
        ) {
            self.extended.insert(token, until);
            self.unsent_extended.push_back(token);
        }
    }

    /// A run has come to its end by itself; `None` if the broker has acknowledged that
    /// elsewhere.
    pub(crate) fn returned(&mut self, token: LeaseToken, outcome: Option<Outcome>) {
        self.stopping.returned(token);
        match outcome {
            Some(outcome) => self.over(token, outcome),
            None => self.settled(token),
        }
    }

    /// A run ended. Its first outcome counts; nobody waits for that of a run
    /// the ledger no longer has.
    pub(crate) fn over(&mut self, token: LeaseToken, outcome: Outcome) {
        let Some(run) = self.runs.get_mut(&token) else { return };
        if matches!(run.phase, Phase::Over(_)) {
            return;
        }
        self.unacked += 1;
        self.unacked_bytes += outcome.bytes();
        self.extended.remove(&token);
        run.phase = Phase::Over(outcome);
        // The broker cancels what it has called.
        self.calls.over(&mut run.calls);
        self.unsent.push_back(token);
    }

    /// A run calls. One that is over, or is to stop, is not answered.
    pub(crate) fn call(&mut self, shared: &Arc<calls::Shared>, asked: calls::Asked) {
        let run = self.runs.get_mut(&asked.token);
        let goes_on = |run: &&mut Run| matches!(run.phase, Phase::Going) && run.control.cause().is_none();
        if let Some(run) = run.filter(goes_on) {
            self.calls.ask(shared, &mut run.calls, asked);
        }
    }

    /// Nobody waits for a call any more.
    pub(crate) fn withdraw(&mut self, call: u64) {
        self.of_call(call, |calls, slot| calls.withdraw(call, slot));
    }

    /// A called task is over.
    pub(crate) fn answered(&mut self, answer: v1::CallAnswer) {
        self.of_call(answer.call, |calls, slot| calls.answered(answer, slot));
    }

    /// The same, where the answer came on the data connection.
    pub(crate) fn answered_apart(&mut self, call: u64, of: v1::call_answer::Of) {
        self.of_call(call, |calls, slot| calls.tell(call, of, slot));
    }

    /// The broker has a call that came on the data connection.
    pub(crate) fn call_uploaded(&mut self, call: u64, task: Uuid) {
        self.of_call(call, |calls, slot| calls.uploaded(call, task, slot));
    }

    /// The next call for the data connection.
    pub(crate) fn next_call_apart(&mut self) -> Option<v1::RunCall> {
        self.calls.next_apart(&mut self.runs)
    }

    /// The next result of a called task that is too large for the session.
    pub(crate) fn next_result(&mut self) -> Option<(u64, v1::FetchResultRequest)> {
        self.calls.next_fetch(&mut self.runs)
    }

    fn of_call(&mut self, call: u64, with: impl FnOnce(&mut calls::Queue, &mut calls::Slot)) {
        let run = self.calls.run_of(call);
        if let Some(run) = run.and_then(|token| self.runs.get_mut(&token)) {
            with(&mut self.calls, &mut run.calls);
        }
    }

    /// A run ended, and the broker has acknowledged that elsewhere.
    fn settled(&mut self, token: LeaseToken) {
        let over = |run: &Run| matches!(run.phase, Phase::Over(_));
        // What has been said of it meanwhile, the broker answers as well.
        if !self.runs.get(&token).is_some_and(over) {
            self.forget(token);
        }
    }

    /// A grant that is answered without ever having been a run here.
    pub(crate) fn answer(&mut self, token: LeaseToken, outcome: Outcome) {
        let _ = self.going(token);
        self.over(token, outcome);
    }

    /// The broker refuses a result for good: the run failed instead.
    pub(crate) fn refused(&mut self, token: LeaseToken, error: TaskError) {
        if let Some(control) = self.forget(token) {
            self.runs.insert(token, Run::new(control, Phase::Going));
            self.over(token, Outcome::Failed(error));
        }
    }

    /// The broker wants a run to end.
    pub(crate) fn stop(&mut self, token: LeaseToken, cause: StopCause) {
        if cause == StopCause::LeaseLost {
            return self.disown(token);
        }
        match self.runs.get(&token) {
            // Its end was acknowledged, or it never got here: either way it does not go on.
            None => self.answer(token, Outcome::Ended),
            Some(run) => {
                let told_before = run.control.cause().is_some();
                run.control.stop(cause);
                match run.phase {
                    Phase::Fetching(_) => self.over(token, Outcome::Ended),
                    Phase::Going if !told_before => self.stopping.told(token),
                    Phase::Going | Phase::Over(_) => {}
                }
            }
        }
    }

    /// The broker has an outcome, or will not have it.
    pub(crate) fn acknowledged(&mut self, token: LeaseToken, stale: bool) {
        let over = matches!(
            self.runs.get(&token),
            Some(Run {
                phase: Phase::Over(_),
                ..
            })
        );
        if over {
            self.forget(token);
        } else if stale {
            self.disown(token);
        }
    }

    /// The run is not ours any more: it is to end, and nobody will hear of it.
    fn disown(&mut self, token: LeaseToken) {
        let going = |run: &Run| matches!(run.phase, Phase::Going);
        let going = self.runs.get(&token).is_some_and(going);
        let Some(control) = self.forget(token) else { return };
        control.stop(StopCause::LeaseLost);
        if going {
            self.stopping.disowned(token, control);
        }
    }

    /// When [`Ledger::abandon`] is due.
    pub(crate) fn abandons_at(&self) -> Option<Instant> {
        self.stopping.next()
    }

    /// Abandons what was told to stop and has not by `now`.
    pub(crate) fn abandon(&mut self, now: Instant) {
        while let Some(token) = self.stopping.pop_overdue(now) {
            let Some(run) = self.runs.get(&token).filter(|run| matches!(run.phase, Phase::Going)) else {
                continue;
            };
            self.stopping.abandoned(token, run.control.clone());
            self.over(token, Outcome::Abandoned);
        }
    }

    /// The broker has what messages up to this number told, or has refused it.
    pub(crate) fn all_acknowledged(&mut self, number: u64) {
        while let Some((_, tokens)) = self.told.pop_front_if(|(message, _)| *message <= number) {
            for token in tokens {
                self.acknowledged(token, false);
            }
        }
    }

    /// See [`Stopping::leaked`].
    pub(crate) fn leaked(&self) -> u32 {
        self.stopping.leaked()
    }

    /// Gives back what has not started.
    pub(crate) fn release_unstarted(&mut self) {
        let waiting = |run: &Run| matches!(run.phase, Phase::Fetching(_));
        for token in self.tokens(waiting) {
            self.over(token, Outcome::Released);
        }
    }

    /// Tells what has not ended to stop; each run then says itself how it ended.
    pub(crate) fn stop_all(&mut self) {
        for run in self.runs.values() {
            if !matches!(run.phase, Phase::Over(_)) {
                run.control.stop(StopCause::Shutdown);
            }
        }
    }

    /// Stops and gives back what has not ended; but a run that is bound cannot be
    /// given back.
    pub(crate) fn release_all(&mut self) {
        for token in self.tokens(|run| !matches!(run.phase, Phase::Over(_))) {
            let Some(run) = self.runs.get(&token) else { continue };
            run.control.stop(StopCause::Shutdown);
            let outcome = if run.is_bound {
                Outcome::Ended
            } else {
                Outcome::Released
            };
            self.over(token, outcome);
        }
    }

    /// The lease is lost: all runs stop, nothing is owed. Says how many went on.
    pub(crate) fn drop_all(&mut self) -> usize {
        let unfinished = self.unfinished();
        for token in self.tokens(|_| true) {
            self.disown(token);
        }
        *self = Self {
            stopping: std::mem::take(&mut self.stopping),
            ..Self::default()
        };
        unfinished
    }

    /// A new connection: what was under way on the old one is to be done again.
    pub(crate) fn reconnected(&mut self) {
        self.unsent = self.tokens(|run| matches!(run.phase, Phase::Over(_))).into();
        self.unsent_large.clear();
        self.unsent_extended = self.extended.keys().copied().collect();
        self.told.clear();
        self.messages = 0;
        self.unfetched = self.tokens(|run| matches!(run.phase, Phase::Fetching(_))).into();
        self.calls
            .reconnected(self.runs.iter_mut().map(|(token, run)| (*token, &mut run.calls)));
    }

    /// Whether [`Ledger::gather`] would have something to say.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || !self.unsent_extended.is_empty() || self.calls.has_unsaid()
    }

    /// Adds unsent outcomes to a message, as many as fit.
    pub(crate) fn gather(&mut self, request: &mut v1::WorkRequest) {
        for _ in 0..MAX_BATCH_OPS {
            let Some(token) = self.unsent_extended.pop_front() else {
                break;
            };
            // As of now: it is counted from when it is read.
            let left = self.extended.get(&token).map(|until| *until - Instant::now());
            request.extensions.extend(left.map(|left| v1::Extension {
                token: Some(token.to_wire()),
                left_ms: left.as_millis() as u64, // ten years at most
            }));
        }
        if self.calls.has_unsaid() {
            self.calls.gather(&mut self.runs, request);
        }
        let mut bytes = 0;
        let mut told = Vec::with_capacity(self.unsent.len().min(MAX_BATCH_OPS));
        request.completions.reserve(told.capacity());
        for _ in 0..MAX_BATCH_OPS {
            if bytes >= MAX_BATCH_BYTES {
                break;
            }
            let Some(token) = self.unsent.pop_front() else { break };
            let Some(Run {
                phase: Phase::Over(outcome),
                ..
            }) = self.runs.get(&token)
            else {
                continue;
            };
            let wire = Some(token.to_wire());
            match outcome {
                Outcome::Completed(_) | Outcome::CompletedWith(_) if outcome.bytes() > INLINE_BYTES => {
                    self.unsent_large.push_back(token);
                    continue;
                }
                Outcome::Completed(result) => request.completions.push(completion(token, result, &[])),
                Outcome::CompletedWith(with) => request.completions.push(completion(token, &with.0, &with.1)),
                Outcome::Failed(error) => {
                    request.failures.push(v1::Failure {
                        token: wire,
                        timed_out: error.timed_out,
                        min_attempts: error.min_attempts,
                        failure: Some(error.clone().into_wire()),
                    });
                }
                Outcome::Released => request.released.extend(wire),
                Outcome::Ended => request.ended.extend(wire),
                Outcome::Abandoned => request.abandoned.extend(wire),
            }
            told.push(token);
            bytes += outcome.bytes();
        }
        if !told.is_empty() {
            // What a broker acknowledged run by run is left behind here.
            let runs = &self.runs;
            let settled = |(_, tokens): &mut (u64, Vec<_>)| !tokens.iter().any(|token| runs.contains_key(token));
            while self.told.pop_front_if(settled).is_some() {}
            self.messages += 1;
            request.number = self.messages;
            self.told.push_back((self.messages, told));
        }
    }

    /// The next result that is too large for the session.
    pub(crate) fn next_upload(&mut self) -> Option<(LeaseToken, v1::Completion)> {
        loop {
            let token = self.unsent_large.pop_front()?;
            match self.runs.get(&token).map(|run| &run.phase) {
                Some(Phase::Over(Outcome::Completed(result))) => return Some((token, completion(token, result, &[]))),
                Some(Phase::Over(Outcome::CompletedWith(with))) => {
                    return Some((token, completion(token, &with.0, &with.1)));
                }
                _ => {}
            }
        }
    }

    fn tokens(&self, which: impl Fn(&Run) -> bool) -> Vec<LeaseToken> {
        self.runs
            .iter()
            .filter(|(_, run)| which(run))
            .map(|(token, _)| *token)
            .collect()
    }

    fn forget(&mut self, token: LeaseToken) -> Option<Control> {
        let mut run = self.runs.remove(&token)?;
        self.extended.remove(&token);
        self.calls.over(&mut run.calls);
        if let Phase::Over(outcome) = &run.phase {
            self.unacked -= 1;
            self.unacked_bytes -= outcome.bytes();
        }
        Some(run.control)
    }
}

fn completion(token: LeaseToken, result: &Payload, spawned: &[v1::RunCall]) -> v1::Completion {
    v1::Completion {
        token: Some(token.to_wire()),
        result: Some(result.clone().into()),
        spawned: spawned.to_vec(),
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
