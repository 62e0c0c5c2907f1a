//! Runs that call: they wait for other tasks and lend their slots meanwhile; and
//! runs that spawn: other tasks begin with their end.

use std::collections::BTreeMap;

use crate::core::{Core, Output};
use crate::effect::{Effect, Refusal, Reply};
use crate::event::{Call, RequestId};
use crate::ids::{LeaseToken, SessionId, TaskId};
use crate::keys::Admitted;
use crate::limits;
use crate::sched::TaskKey;
use crate::sessions::Link;
use crate::task::{CalledBy, Failure, Payload, TaskSpec};
use crate::time::Timestamp;

/// The answer, if the task is known. Tasks that runs make have no keys, so none takes
/// another's place.
fn known(admitted: Admitted) -> Option<Reply> {
    match admitted {
        Admitted::Known(reply) => Some(reply),
        Admitted::New | Admitted::Instead(_) => None,
    }
}

impl Core {
    pub(crate) fn on_call(
        &mut self,
        now: Timestamp,
        request: RequestId,
        session: SessionId,
        call: Call,
        spec: Box<TaskSpec>,
        out: &mut Output,
    ) {
        let reply = match self.may_call(now, session, call, &spec) {
            Ok((_, _, Some(known))) => known,
            Ok((caller, by, None)) => self.call(now, caller, by, spec, out),
            Err(refusal) => Reply::Refused(refusal),
        };
        out.effects.push(Effect::Reply(request, reply));
    }

    /// Who calls, and as what; and the answer, if that was called before.
    fn may_call(
        &self,
        now: Timestamp,
        session: SessionId,
        Call { token, n }: Call,
        spec: &TaskSpec,
    ) -> Result<(TaskKey, CalledBy, Option<Reply>), Refusal> {
        let caller = self.held_run(session, token);
        let Some(caller) = caller.filter(|&key| self.stop_intent(key).is_none()) else {
            return Err(Refusal::StaleCall(token));
        };
        let depth = self.live(caller).called().map_or(0, |called| called.by.depth) + 1;
        let by = CalledBy { run: token, n, depth };
        if let Some(key) = self.find(spec.id) {
            if self.live(key).called().is_none_or(|called| called.by != by) {
                return Err(Refusal::AlreadyExists(spec.id));
            }
            return Ok((caller, by, known(self.admit(now, spec)?)));
        }
        let calls = self.live(caller).calls().map_or(0, BTreeMap::len);
        for (what, is_full, limit) in [
            (
                "how deep calls may be within calls",
                depth > limits::MAX_CALL_DEPTH,
                u64::from(limits::MAX_CALL_DEPTH),
            ),
            (
                "calls of one run without an answer",
                calls >= limits::MAX_CALLS,
                limits::MAX_CALLS as u64,
            ),
            (
                "calls of one worker without an answer",
                self.sessions[&session].calls >= limits::MAX_SESSION_CALLS,
                u64::from(limits::MAX_SESSION_CALLS),
            ),
        ] {
            if is_full {
                return Err(Refusal::Exhausted { what, limit });
            }
        }
        Ok((caller, by, known(self.admit(now, spec)?)))
    }

    /// The caller's run becomes durable with what it calls: after a restart it is
    /// known whose task this is, and whether that run goes on.
    fn call(&mut self, now: Timestamp, caller: TaskKey, by: CalledBy, spec: Box<TaskSpec>, out: &mut Output) -> Reply {
        let id = spec.id;
        self.claim(caller, out);
        self.wait_for(caller, by.n, id);
        self.accept(now, spec, None, Some(by), out)
    }

    /// A run waits for a task, and lends its slot.
    fn wait_for(&mut self, caller: TaskKey, n: u32, id: TaskId) {
        let task = &mut self.tasks[caller.index()];
        let Some(held) = task.held_mut() else { return };
        let (session, was_alone) = (held.session, std::mem::take(&mut held.alone));
        task.extra_mut().calls.insert(n, id);
        let holder = self.session_mut(session);
        holder.calls += 1;
        // What it waits for may have no other worker than this.
        holder.set_aside &= !was_alone;
        self.set_lent(caller, true);
    }

    /// A called task is over: its run goes on, even if more runs do for a while
    /// than there are slots.
    pub(crate) fn answer_call(&mut self, id: TaskId, by: CalledBy) {
        let Some(caller) = self.find(by.run.task) else { return };
        let task = &mut self.tasks[caller.index()];
        if task.grant != by.run.grant || task.calls().and_then(|calls| calls.get(&by.n)) != Some(&id) {
            return;
        }
        let calls = &mut task.extra_mut().calls;
        calls.remove(&by.n);
        let waits = !calls.is_empty();
        let session = task.held().expect("only runs call").session;
        self.session_mut(session).calls -= 1;
        self.set_lent(caller, waits);
    }

    pub(crate) fn on_withdraw(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        n: u32,
        out: &mut Output,
    ) {
        let Some(caller) = self.held_run(session, token) else {
            return;
        };
        let called = self.live(caller).calls().and_then(|calls| calls.get(&n));
        if let Some(key) = called.and_then(|&id| self.find(id)) {
            self.cancel(now, key, out);
        }
    }

    /// A run is over, or is to be: what it has called is wanted no more. It is
    /// cancelled before the event is over.
    pub(crate) fn drop_calls(&mut self, caller: TaskKey) {
        let task = &mut self.tasks[caller.index()];
        if task.calls().is_none() {
            return;
        }
        let calls = std::mem::take(&mut task.extra_mut().calls);
        let held = task.held_mut().expect("only runs call");
        held.lent = false;
        let session = held.session;
        self.session_mut(session).calls -= calls.len() as u32;
        self.orphans.extend(calls.into_values());
    }

    /// Of whose runs are over, with what they have called themselves.
    pub(crate) fn cancel_orphans(&mut self, now: Timestamp, out: &mut Output) {
        while !self.orphans.is_empty() {
            for id in std::mem::take(&mut self.orphans) {
                if let Some(key) = self.find(id) {
                    self.cancel(now, key, out);
                }
            }
        }
    }

    /// After a restart: which runs wait for which tasks.
    pub(crate) fn restore_calls(&mut self) {
        for id in std::mem::take(&mut self.restored_calls) {
            let Some(by) = self
                .find(id)
                .and_then(|key| self.live(key).called().map(|called| called.by))
            else {
                continue;
            };
            let goes_on = |&key: &TaskKey| {
                let task = self.live(key);
                task.grant == by.run.grant && task.held().is_some_and(|held| held.stop.is_none())
            };
            match self.find(by.run.task).filter(goes_on) {
                Some(caller) => self.wait_for(caller, by.n, id),
                None => self.orphans.push(id),
            }
        }
    }

    /// Has a session on which many runs wait take called tasks only, and any task
    /// again once it is half as many. So what a run waits for finds a slot, however
    /// many runs wait before it.
    pub(crate) fn sync_reach(&mut self, id: SessionId) {
        let session = self.sessions.get_mut(&id).expect("a run's session is known");
        let Link::Active(class) = session.link else { return };
        let many = session.slots + limits::WAITING_RUNS;
        let called_only = if session.called_only {
            session.lent > many / 2
        } else {
            session.lent >= many
        };
        if called_only == session.called_only {
            return;
        }
        session.called_only = called_only;
        let free = std::mem::take(&mut session.free);
        self.sched.set_free(class, id, free, 0);
        self.sched.leave(class);
        session.link = Link::Active(self.sched.join(&session.routes()));
        session.sync_free_slots(id, &mut self.sched);
    }

    /// A run has returned, and other tasks are to begin with its end: both, or
    /// neither.
    pub(crate) fn on_completed_with(
        &mut self,
        now: Timestamp,
        session: SessionId,
        token: LeaseToken,
        result: Payload,
        children: Vec<TaskSpec>,
        out: &mut Output,
    ) {
        let current = self.held_run(session, token);
        let wanted = current.filter(|&key| self.stop_intent(key).is_none() && self.live(key).stream().is_none());
        if wanted.is_none() {
            return self.on_completed(now, session, token, result, out);
        }
        if let Err(full) = self.have_room(&children) {
            let failure = Failure {
                kind: "limit".into(),
                message: format!("its children have no place: {full}"),
                trace: String::new(),
                retryable: true,
            };
            return self.on_failed(now, session, token, (failure, limits::MIN_ATTEMPTS_AT_LIMIT), out);
        }
        for spec in children {
            let id = spec.id;
            if self.find(id).is_some() {
                continue;
            }
            self.accept(now, Box::new(spec), None, None, out);
            // Its time may have passed while the run went on.
            let passed = |key: &TaskKey| {
                let at = self.live(*key).expires_at().filter(|_| self.believes_clock());
                at.is_some_and(|at| at <= now)
            };
            if let Some(key) = self.find(id).filter(passed) {
                self.on_expire(now, key, out);
            }
        }
        self.on_completed(now, session, token, result, out);
    }
}
