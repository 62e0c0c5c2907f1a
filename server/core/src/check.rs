//! Every invariant that spans the core's structures, for tests.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::Core;
use crate::counts::Counts;
use crate::live::{Live, Task};
use crate::names::NameId;
use crate::sched::TaskKey;
use crate::sessions::Link;
use crate::timers::Timer;

impl Core {
    /// Asserts every invariant that spans the core's structures. For tests: it
    /// walks everything.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        self.sched.check();
        self.check_tasks();
        self.check_sessions();
        self.check_counts();
        self.check_names();
    }

    /// What hangs on a task's state is there, and nothing else is.
    fn check_tasks(&self) {
        assert_eq!(self.by_id.len(), self.tasks.len(), "ids and tasks differ");
        let waiting: BTreeMap<_, _> = self.sched.waiting().map(|(seq, key)| (key, seq)).collect();
        let mut alarms = BTreeSet::new();
        let (mut ready, mut keyed) = (0, 0);
        for (key, task) in &self.tasks {
            let (id, key) = (task.id, TaskKey(key as u32));
            assert_eq!(self.find(id), Some(key), "{id} leads to another task");
            if let Some(name) = task.key() {
                keyed += 1;
                let holder = self.keys.get(&(task.queue, name.clone()));
                assert_eq!(holder, Some(&key), "{id} does not have its key");
            }
            alarms.extend(self.alarms(key));
            if let Some(stream) = task.stream() {
                stream.check(id);
                let waits = stream.detached_until.is_some();
                let stops = task.held().is_some_and(|held| held.stop.is_some());
                assert!(
                    stream.has_reader() || waits || stops,
                    "{id} waits for a reader for ever"
                );
            }
            self.check_calls(task);
            match &task.state {
                Live::Scheduled(_) => {}
                Live::Unread => assert!(
                    task.stream().is_some_and(|stream| !stream.has_reader()),
                    "{id} waits for a reader it has"
                ),
                Live::Ready => {
                    ready += 1;
                    assert!(
                        matches!(task.ready(), Live::Ready),
                        "{id} is to begin, and nobody reads it"
                    );
                    assert_eq!(waiting.get(&key), Some(&task.seq), "{id} is ready and does not wait");
                }
                Live::Aside(aside) => {
                    assert_eq!(
                        self.aside.get(&aside.session),
                        Some(&key),
                        "nobody is set aside for {id}"
                    );
                    assert!(
                        self.sessions[&aside.session].set_aside,
                        "others get what is set aside for {id}"
                    );
                }
                Live::Recovering => assert!(self.recovering.contains(&key), "{id} is held back for ever"),
                Live::Held(held) => {
                    let session = &self.sessions[&held.session];
                    assert_eq!(
                        session.held.get(held.place as usize),
                        Some(&key),
                        "{id} is held by a session that does not know"
                    );
                    assert!(
                        !held.lent || task.stream().is_some() || task.calls().is_some(),
                        "{id} lends a slot without a stream and without a call"
                    );
                    assert!(task.grant.attempt > 0, "{id} runs without a grant");
                }
            }
        }
        assert_eq!(waiting.len(), ready, "something waits that is not ready");
        assert_eq!(self.keys.len(), keyed, "a key of nobody");
        for (at, timer) in self.timers.iter() {
            match timer {
                Timer::Due(_)
                | Timer::Expire(_)
                | Timer::Timeout(_)
                | Timer::Aside(_)
                | Timer::Detached(_)
                | Timer::Checkpoint(_) => {
                    assert!(alarms.remove(&(at, timer)), "{timer:?} lingers");
                }
                Timer::ResumeGrace => {}
                Timer::Lease(id) => assert!(self.sessions.contains_key(&id), "{timer:?} lingers"),
                Timer::ResetGrace(id) => {
                    assert_eq!(self.sessions[&id].link, Link::Lost(at), "{timer:?} lingers");
                }
            }
        }
        assert!(alarms.is_empty(), "not armed: {alarms:?}");
    }

    /// Who was called lives no longer than who waits for it, but to be stopped.
    fn check_calls(&self, task: &Task) {
        let id = task.id;
        if let Some(called) = task.called() {
            let run = called.by.run;
            let waits = self.find(run.task).map(|key| self.live(key)).is_some_and(|caller| {
                let knows = caller.calls().is_some_and(|calls| calls.get(&called.by.n) == Some(&id));
                knows && caller.grant == run.grant
            });
            let stops = task.held().is_some_and(|held| held.stop.is_some());
            assert!(waits || stops, "{id} was called by a run that does not wait for it");
        }
        let Some(calls) = task.calls() else { return };
        let held = task.held();
        assert!(
            held.is_some_and(|held| held.lent && held.claimed && held.stop.is_none()),
            "{id} waits for what it has called and keeps its slot"
        );
        for called in calls.values() {
            assert!(self.find(*called).is_some(), "{id} waits for {called}, which is over");
        }
    }

    fn check_sessions(&self) {
        let free = self.sched.free_slots();
        for (&id, session) in &self.sessions {
            let due = match session.link {
                Link::Active(_) => session.idle(),
                Link::Draining | Link::Lost(_) | Link::Awaited => 0,
            };
            assert_eq!(
                free.get(&id).copied().unwrap_or(0),
                due,
                "the scheduler is wrong about free slots of {id}"
            );
            assert!(
                self.timers.is_armed(session.lease_timer, Timer::Lease(id)),
                "nobody watches the lease of {id}"
            );
            assert!(
                session.lease_timer <= session.lease_until,
                "the lease of {id} ends unseen"
            );
            let lent = session
                .held
                .iter()
                .filter(|&&key| self.live(key).held().is_some_and(|held| held.lent))
                .count();
            let waits_for_one = self.aside.contains_key(&id);
            let runs_one = session
                .held
                .iter()
                .any(|&key| self.live(key).held().is_some_and(|held| held.alone));
            assert_eq!(
                session.set_aside,
                waits_for_one || runs_one,
                "{id} is set aside for nobody"
            );
            assert_eq!(lent, session.lent as usize, "{id} has miscounted its lent slots");
            let (calling, calls) = session
                .held
                .iter()
                .filter_map(|&key| self.live(key).calls())
                .fold((0, 0), |(runs, calls), of_run| (runs + 1, calls + of_run.len()));
            assert_eq!(calls, session.calls as usize, "{id} has miscounted its calls");
            assert!(
                session.lent <= session.slots + calling || session.slots == 0,
                "{id} lends more slots than it has"
            );
            for &key in &session.held {
                let held = self.live(key).held().map(|held| held.session);
                assert_eq!(held, Some(id), "{id} thinks it holds a task");
            }
        }
        assert!(
            free.keys().all(|id| self.sessions.contains_key(id)),
            "free slots of nobody"
        );
        assert!(
            self.awaited.iter().all(|id| self.sessions.contains_key(id)),
            "nobody is awaited"
        );
    }

    fn check_counts(&self) {
        let mut counted: BTreeMap<NameId, Counts> = BTreeMap::new();
        for (_, task) in &self.tasks {
            counted.entry(task.queue).or_default()[task.state_name()] += 1;
        }
        for (queue, counts) in &self.queues {
            let counted = counted.remove(queue).unwrap_or_default();
            for (state, n) in counts.iter().filter(|(state, _)| !state.is_terminal()) {
                assert_eq!(n, counted[state], "the count of {state:?} is off");
            }
        }
        assert!(counted.is_empty(), "tasks in a queue that is not known");
    }

    fn check_names(&self) {
        let declared: usize = self.sessions.values().map(|session| session.tasks.len()).sum();
        let called = self.tasks.iter().filter(|(_, task)| task.called().is_some()).count();
        let users = 3 * self.tasks.len() + called + self.queues.len() + self.settings.len() + 2 * declared;
        assert_eq!(self.names.users(), users, "names leak");
    }
}
