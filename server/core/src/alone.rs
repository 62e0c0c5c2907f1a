//! Tasks under which sessions have ended: they may be what ends them. Such a task runs
//! alone, so that it takes nobody along and can be told from those it took along.
//!
//! When its turn comes, a worker is set aside for it: that gets nothing new until its
//! other runs have ended, for at most [`limits::SET_ASIDE`]; then the task runs there
//! all the same, beside what is left.

use std::collections::BTreeSet;

use crate::core::{Core, Output};
use crate::ids::SessionId;
use crate::limits;
use crate::live::{Live, Task};
use crate::sched::TaskKey;
use crate::sessions::{Link, Session};
use crate::task::Failure;
use crate::time::Timestamp;
use crate::timers::Timer;

/// A worker is being emptied for the task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aside {
    pub(crate) session: SessionId,
    /// For how long at most.
    pub(crate) until: Timestamp,
}

impl Task {
    /// It has to run alone.
    pub(crate) fn is_suspect(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.counters.losses >= limits::LOSSES_BEFORE_ALONE)
    }
}

impl Session {
    /// Nothing goes on in its process: a run that lends its slot would be taken along, too.
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.leaked == 0
    }
}

impl Core {
    /// It is the turn of such a task, which a free slot of `near` could run.
    pub(crate) fn grant_alone(&mut self, now: Timestamp, key: TaskKey, near: SessionId, out: &mut Output) {
        let name = self.live(key).name;
        let fits = |session: &Session| {
            let able = matches!(session.link, Link::Active(_)) && session.tasks.contains_key(&name);
            able && session.idle() > 0
        };
        let empty = self
            .sessions
            .iter()
            .find(|(_, session)| fits(session) && session.is_empty());
        if let Some((&id, _)) = empty {
            return self.grant(now, key, id, true, out);
        }
        // A run that waits for the task does not end before it: where one is, it would be
        // waited for in vain.
        let waiting = self.sessions_waiting_for(key);
        let near = if waiting.contains(&near) {
            let other = (self.sessions.iter()).find(|(id, session)| fits(session) && !waiting.contains(id));
            match other {
                Some((&id, _)) => id,
                None => return self.grant(now, key, near, false, out),
            }
        } else {
            near
        };
        let aside = Aside {
            session: near,
            until: now + limits::SET_ASIDE,
        };
        // Ready before and after: only the session learns of it.
        self.tasks[key.index()].state = Live::Aside(Box::new(aside));
        self.timers.arm(aside.until, Timer::Aside(key));
        self.aside.insert(near, key);
        self.keep_aside(near, true);
    }

    /// Where runs wait for the task: the one that has called it, and those that wait for
    /// that one.
    fn sessions_waiting_for(&self, key: TaskKey) -> BTreeSet<SessionId> {
        let mut sessions = BTreeSet::new();
        let mut at = key;
        while let Some(caller) = self.live(at).called().and_then(|called| self.find(called.by.run.task)) {
            sessions.extend(self.live(caller).held().map(|held| held.session));
            at = caller;
        }
        sessions
    }

    /// Workers that were set aside, and that have become empty.
    pub(crate) fn grant_aside(&mut self, now: Timestamp, out: &mut Output) {
        let emptied = |(&id, &key): (&SessionId, &TaskKey)| self.sessions[&id].is_empty().then_some((id, key));
        let emptied: Vec<_> = self.aside.iter().filter_map(emptied).collect();
        for (id, key) in emptied {
            self.grant(now, key, id, true, out);
        }
    }

    /// It has waited for long enough.
    pub(crate) fn on_aside(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        let Live::Aside(aside) = &self.live(key).state else {
            return;
        };
        let id = aside.session;
        let session = &self.sessions[&id];
        if session.busy() + session.leaked < session.slots {
            self.grant(now, key, id, false, out);
        } else {
            self.unset_aside(id);
        }
    }

    /// The session takes nothing new: what it was set aside for waits for its turn again.
    pub(crate) fn unset_aside(&mut self, id: SessionId) {
        let Some(&key) = self.aside.get(&id) else { return };
        self.leave_aside(key);
        self.tasks[key.index()].state = Live::Ready;
        self.sched.insert(&self.live(key).waiting(key));
    }

    /// No worker is kept for the task any more.
    pub(crate) fn leave_aside(&mut self, key: TaskKey) {
        let Live::Aside(aside) = &self.live(key).state else {
            return;
        };
        let Aside { session, until } = **aside;
        self.timers.disarm(until, Timer::Aside(key));
        self.aside.remove(&session);
        self.keep_aside(session, false);
    }

    /// Whether the session takes nothing new, for the sake of one task.
    pub(crate) fn keep_aside(&mut self, id: SessionId, aside: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.set_aside = aside;
            session.sync_free_slots(id, &mut self.sched);
        }
    }
}

/// What is said of a task that ran alone in a process which is gone.
pub(crate) fn took_it_along() -> Failure {
    Failure {
        kind: "crash".into(),
        message: "its worker went away while it ran there alone, and did not come back".into(),
        trace: String::new(),
        retryable: true,
    }
}
