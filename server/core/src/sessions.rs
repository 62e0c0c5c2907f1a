//! Worker sessions: one connection, one lease for all its runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::alone::took_it_along;
use crate::change::{Change, SessionRecord};
use crate::core::{Core, Output};
use crate::effect::{Effect, StopCause};
use crate::event::{Closed, Hello};
use crate::history::Cause;
use crate::ids::{LeaseToken, Name, SessionId};
use crate::lifecycle::Trigger;
use crate::limits;
use crate::live::Live;
use crate::names::NameId;
use crate::sched::{ClassId, Routes, Scheduler, TaskKey};
use crate::task::{OnLoss, StateName};
use crate::time::Timestamp;
use crate::timers::Timer;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) worker: Name,
    pub(crate) slots: u32,
    pub(crate) tasks: BTreeMap<NameId, Defaults>,
    /// Its runs, in no order; each knows its place.
    pub(crate) held: Vec<TaskKey>,
    /// Runs whose slot is lent while they wait for credit, at most `slots`, or for
    /// what they have called.
    pub(crate) lent: u32,
    /// Slots taken by runs that are none of `held` any more; at most `slots`.
    pub(crate) leaked: u32,
    /// It gets nothing new, for the sake of one task that is to run, or runs, alone.
    pub(crate) set_aside: bool,
    /// Its connection broke, and the process behind it may be gone.
    broke: bool,
    /// Tasks its runs have called and wait for.
    pub(crate) calls: u32,
    /// So many of its runs wait that it takes only tasks that runs wait for.
    pub(crate) called_only: bool,
    pub(crate) link: Link,
    pub(crate) lease_until: Timestamp,
    /// When the lease timer goes off: heartbeats move the lease, not the timer.
    pub(crate) lease_timer: Timestamp,
    pub(crate) connected_at: Timestamp,
    /// Free slots as the scheduler knows them.
    pub(crate) free: u32,
}

/// What a worker declared with a task name.
#[derive(Debug)]
pub(crate) struct Defaults {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) on_loss: OnLoss,
    /// The route of such tasks where a run waits for them.
    pub(crate) called: NameId,
}

/// Whether a session has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It does, and takes tasks.
    Active(ClassId),
    /// It does, and takes nothing new: it is in no class.
    Draining,
    /// It had one; its runs are given up at that time, but for those that must not
    /// begin twice: these at the end of its lease.
    Lost(Timestamp),
    /// It had one before the broker was restarted.
    Awaited,
}

impl Session {
    /// Slots taken by its runs.
    pub(crate) fn busy(&self) -> u32 {
        self.held.len() as u32 - self.lent
    }

    /// Slots that are free.
    pub(crate) fn idle(&self) -> u32 {
        if self.set_aside {
            return 0;
        }
        self.slots.saturating_sub(self.busy() + self.leaked)
    }

    /// What it takes.
    pub(crate) fn routes(&self) -> Routes {
        let called = self.tasks.values().map(|defaults| defaults.called);
        let names = self.tasks.keys().copied().filter(|_| !self.called_only);
        names.chain(called).collect()
    }

    /// Its runs, in an order that does not depend on which have ended before.
    pub(crate) fn held_in_order(&self) -> Vec<TaskKey> {
        let mut held = self.held.clone();
        held.sort_unstable();
        held
    }

    /// Until when a run is kept for it while it has no connection.
    pub(crate) fn given_up_at(&self, at_most_once: bool) -> Timestamp {
        match self.link {
            Link::Lost(at) if !at_most_once => at.min(self.lease_until),
            Link::Lost(_) | Link::Awaited | Link::Active(_) | Link::Draining => self.lease_until,
        }
    }

    /// Tells the scheduler how many slots are free.
    pub(crate) fn sync_free_slots(&mut self, id: SessionId, sched: &mut Scheduler) {
        let Some(class) = self.link.class() else { return };
        let now = self.idle();
        let before = std::mem::replace(&mut self.free, now);
        sched.set_free(class, id, before, now);
    }
}

impl Link {
    pub(crate) fn is_connected(self) -> bool {
        match self {
            Self::Active(_) | Self::Draining => true,
            Self::Lost(_) | Self::Awaited => false,
        }
    }

    pub(crate) fn class(self) -> Option<ClassId> {
        match self {
            Self::Active(class) => Some(class),
            Self::Draining | Self::Lost(_) | Self::Awaited => None,
        }
    }
}

impl Core {
    pub(crate) fn on_session_opened(&mut self, now: Timestamp, hello: Hello, out: &mut Output) {
        let id = hello.session;
        match self.sessions.get(&id) {
            Some(_) => self.disconnect(id, Link::Awaited),
            None => self.open_session(now, id, &hello.worker, out),
        }
        let after_restart = self.awaited.remove(&id);
        self.connect(now, id, &hello);
        let held: BTreeSet<LeaseToken> = hello.held.into_iter().collect();
        for key in self.session_mut(id).held_in_order() {
            if !held.contains(&self.live(key).token()) {
                self.lose(now, key, out);
            }
        }
        for token in held {
            self.resume_run(now, id, token, after_restart, out);
        }
        if self.awaited.is_empty() {
            self.end_recovery();
        }
    }

    fn open_session(&mut self, now: Timestamp, id: SessionId, worker: &Name, out: &mut Output) {
        self.insert_session(
            now,
            SessionRecord {
                id,
                worker: worker.clone(),
                opened_at: now,
            },
        );
        out.changes.push(Change::SessionOpened(SessionRecord {
            id,
            worker: worker.clone(),
            opened_at: now,
        }));
    }

    /// A session without a connection, with a whole lease before it.
    pub(crate) fn insert_session(&mut self, now: Timestamp, record: SessionRecord) {
        let lease = now + limits::LEASE;
        let session = Session {
            worker: record.worker,
            slots: 0,
            tasks: BTreeMap::new(),
            held: Vec::new(),
            lent: 0,
            leaked: 0,
            set_aside: false,
            broke: false,
            calls: 0,
            called_only: false,
            link: Link::Awaited,
            lease_until: lease,
            lease_timer: lease,
            connected_at: now,
            free: 0,
        };
        self.sessions.insert(record.id, session);
        self.timers.arm(lease, Timer::Lease(record.id));
    }

    fn connect(&mut self, now: Timestamp, id: SessionId, hello: &Hello) {
        let mut declared = BTreeMap::new();
        for task in &hello.tasks {
            let name = self.names.acquire(&task.name);
            let defaults = Defaults {
                timeout: task.timeout,
                max_attempts: task.max_attempts,
                on_loss: task.on_loss,
                called: self.names.acquire(&task.name.called()),
            };
            if let Some(before) = declared.insert(name, defaults) {
                self.names.release(name);
                self.names.release(before.called);
            }
        }
        let session = self.sessions.get_mut(&id).expect("it has just been opened");
        session.slots = hello.slots;
        session.leaked = hello.leaked.min(hello.slots);
        session.tasks = declared;
        session.called_only = false;
        let class = self.sched.join(&session.routes());
        session.link = Link::Active(class);
        session.broke = false;
        session.connected_at = now;
        session.lease_until = now + limits::LEASE;
        session.sync_free_slots(id, &mut self.sched);
        self.sync_reach(id);
    }

    /// Takes the session out of its class; its runs stay.
    fn disconnect(&mut self, id: SessionId, to: Link) {
        self.unset_aside(id);
        let session = self.session_mut(id);
        let from = std::mem::replace(&mut session.link, to);
        let free = std::mem::take(&mut session.free);
        let names = std::mem::take(&mut session.tasks);
        if let Link::Lost(at) = from {
            self.timers.disarm(at, Timer::ResetGrace(id));
        }
        if let Some(class) = from.class() {
            self.sched.set_free(class, id, free, 0);
            self.sched.leave(class);
        }
        for (name, defaults) in names {
            self.names.release(name);
            self.names.release(defaults.called);
        }
    }

    /// A resuming worker still runs this. It goes on if it is the task's current
    /// grant, or a grant of the incarnation just before that was never written
    /// and that no newer one has replaced. Of older incarnations nobody knows
    /// what was granted since.
    fn resume_run(&mut self, now: Timestamp, id: SessionId, token: LeaseToken, after_restart: bool, out: &mut Output) {
        let key = self.find(token.task);
        let Some(key) = key.filter(|&key| self.may_resume(id, key, token)) else {
            out.effects.push(Effect::Stop {
                session: id,
                token,
                cause: StopCause::Stale,
            });
            return;
        };
        let fresh = self.held_by(id, key, now);
        if let Some(on_loss) = self.declared_on_loss(key, id)
            && let Some(stream) = self.stream_mut(key)
        {
            // What it was granted with may not have been written.
            stream.on_loss = on_loss;
        }
        if after_restart {
            let worker = self.sessions[&id].worker.clone();
            self.note_adopted(now, key, token.grant.attempt, worker);
        }
        if self.live(key).held().is_some() {
            // The worker's defaults were not kept over the restart.
            self.rearm_run(key, |held| {
                held.max_attempts = fresh.max_attempts;
                if !held.extended {
                    held.timeout = fresh.timeout;
                }
            });
            if let Some(cause) = self.live(key).held().and_then(|held| held.stop).map(StopCause::from) {
                out.effects.push(Effect::Stop {
                    session: id,
                    token,
                    cause,
                });
            }
            return;
        }
        self.change(key, Trigger::Adopted, |task| {
            task.grant = token.grant;
            task.state = Live::Held(Box::new(fresh));
        });
        // Claimed at once: another restart must not take it for an older one.
        self.claim(key, out);
    }

    fn may_resume(&self, id: SessionId, key: TaskKey, token: LeaseToken) -> bool {
        let task = self.live(key);
        match &task.state {
            Live::Held(held) => held.session == id && task.grant == token.grant,
            Live::Scheduled(_) | Live::Ready | Live::Recovering | Live::Unread | Live::Aside(_) => {
                let ahead = token.grant.attempt.saturating_sub(task.grant.attempt);
                token.grant > task.grant && token.grant.epoch == self.previous && ahead <= limits::MAX_UNWRITTEN_GRANTS
            }
        }
    }

    pub(crate) fn on_heartbeat(&mut self, now: Timestamp, id: SessionId, out: &mut Output) {
        match self.sessions.get_mut(&id) {
            Some(session) => session.lease_until = now + limits::LEASE,
            None => out.effects.push(Effect::SessionEnded(id)),
        }
    }

    pub(crate) fn on_leaked(&mut self, id: SessionId, slots: u32) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.leaked = slots.min(session.slots);
            session.sync_free_slots(id, &mut self.sched);
        }
    }

    pub(crate) fn on_draining(&mut self, id: SessionId) {
        self.unset_aside(id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Link::Active(class) = session.link {
            session.link = Link::Draining;
            let free = std::mem::take(&mut session.free);
            self.sched.set_free(class, id, free, 0);
            self.sched.leave(class);
        }
    }

    pub(crate) fn on_session_closed(&mut self, now: Timestamp, id: SessionId, how: Closed, out: &mut Output) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        // One that drained has said itself that it ends.
        session.broke = how == Closed::Reset && session.link.class().is_some();
        let (holds, lease_until) = (!session.held.is_empty(), session.lease_until);
        match how {
            Closed::Reset if holds => self.give_up_fast(now, id, out),
            Closed::Silent if holds => self.await_resume(id, lease_until),
            Closed::Goodbye | Closed::Reset | Closed::Silent => self.end_session(now, id, out),
        }
    }

    /// A connection broke under runs: those of queues that ask for it are given up at
    /// once, the others in a while.
    fn give_up_fast(&mut self, now: Timestamp, id: SessionId, out: &mut Output) {
        let at_once = self.given_up_at_once(id);
        if at_once.len() == self.sessions[&id].held.len() {
            return self.end_session(now, id, out);
        }
        self.await_resume(id, now + limits::RESET_GRACE);
        for key in at_once {
            self.lose(now, key, out);
        }
    }

    /// What the session runs is given up then, unless it resumes.
    fn await_resume(&mut self, id: SessionId, until: Timestamp) {
        self.disconnect(id, Link::Lost(until));
        self.timers.arm(until, Timer::ResetGrace(id));
    }

    /// All sessions have as much longer, and so have those that a restart waits for.
    pub(crate) fn on_gap(&mut self, gap: Duration) {
        self.grace_until = self.grace_until + gap;
        for (&id, session) in &mut self.sessions {
            session.lease_until = session.lease_until + gap;
            if let Link::Lost(until) = &mut session.link {
                self.timers.disarm(*until, Timer::ResetGrace(id));
                *until = *until + gap;
                self.timers.arm(*until, Timer::ResetGrace(id));
            }
        }
    }

    pub(crate) fn on_lease_timer(&mut self, now: Timestamp, id: SessionId, out: &mut Output) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.lease_until > now {
            session.lease_timer = session.lease_until;
            self.timers.arm(session.lease_until, Timer::Lease(id));
            return;
        }
        if session.link.is_connected() {
            out.effects.push(Effect::SessionEnded(id));
        }
        self.end_session(now, id, out);
    }

    /// Its worker has not come back soon. What must not begin twice may still go on
    /// there, so that waits for the end of the lease; all else is given up.
    pub(crate) fn on_reset_grace(&mut self, now: Timestamp, id: SessionId, out: &mut Output) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Link::Lost(_) = session.link else { return };
        let lease_until = session.lease_until;
        let held = session.held_in_order();
        let waits = |&&key: &&TaskKey| self.live(key).at_most_once();
        if now >= lease_until || !held.iter().any(|key| waits(&key)) {
            return self.end_session(now, id, out);
        }
        for key in held {
            if !self.live(key).at_most_once() {
                self.lose(now, key, out);
            }
        }
        self.await_resume(id, lease_until);
    }

    /// The session is over: what it held is given up.
    fn end_session(&mut self, now: Timestamp, id: SessionId, out: &mut Output) {
        let session = self.session_mut(id);
        let before_restart = session.link == Link::Awaited;
        let (broke, held) = (session.broke, session.held_in_order());
        self.disconnect(id, Link::Awaited);
        let ran = held.len();
        for key in held {
            // A restart of the broker counts no loss.
            let task = self.live(key);
            let is_going = task.held().is_some_and(|held| held.stop.is_none());
            let was_alone = task.held().is_some_and(|held| held.alone);
            if broke && was_alone && is_going && ran == 1 {
                self.crash(now, key, took_it_along(), out);
            } else if before_restart && is_going && !task.has_one_try() {
                self.note(now, key, StateName::Ready, Cause::NotResumed);
                self.put_back(key, out);
            } else {
                self.lose(now, key, out);
            }
        }
        let session = self.sessions.remove(&id).expect("it was there");
        self.timers.disarm(session.lease_timer, Timer::Lease(id));
        out.changes.push(Change::SessionClosed(id));
        if self.awaited.remove(&id) && self.awaited.is_empty() {
            self.end_recovery();
        }
    }

    pub(crate) fn session_mut(&mut self, id: SessionId) -> &mut Session {
        self.sessions.get_mut(&id).expect("a run's session is known")
    }
}
