//! What can be seen from outside: tasks, queues, workers, and why a task is
//! where it is.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alone::Aside;
use crate::core::Core;
use crate::history::brief;
use crate::ids::{LeaseToken, SessionId, TaskId};
use crate::limits;
use crate::live::{Held, Live, Task};
use crate::sched::{Ahead, TaskKey};
use crate::sessions::{Link, Session};
use crate::task::Placement;
use crate::time::Timestamp;
use crate::view::{Explanation, Reason, TaskView, WorkerState, WorkerView};

/// Tasks a run waits for that are named one by one.
const SHOWN_CALLS: usize = 8;

impl Core {
    /// A task that has not ended.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<TaskView> {
        self.find(id).map(|key| self.view(key))
    }

    pub(crate) fn view(&self, key: TaskKey) -> TaskView {
        let task = self.live(key);
        TaskView {
            record: task.record(&self.names),
            worker: task.held().map(|held| self.sessions[&held.session].worker.clone()),
            reason: self.reason(key),
        }
    }

    /// Why a task that has not ended is where it is.
    #[must_use]
    pub fn explain(&self, now: Timestamp, id: TaskId) -> Option<Explanation> {
        let key = self.find(id)?;
        let task = self.live(key);
        let reason = self.reason(key);
        let mut details = BTreeMap::new();
        if let Some(called) = task.called() {
            details.insert("called_by", called.by.run.task.to_string());
        }
        let message = match (reason, &task.state) {
            (Reason::NotDue, Live::Scheduled(at)) => explain_wait(now, task, *at, &mut details),
            (Reason::Running | Reason::Stopping | Reason::Resuming, Live::Held(held)) => {
                self.explain_run(now, task, held, reason, &mut details)
            }
            (Reason::NoWorker, _) => {
                let name = self.names.get(task.name);
                details.insert("name", name.to_string());
                let draining = |s: &Session| s.link == Link::Draining && s.tasks.contains_key(&task.name);
                if self.sessions.values().any(draining) {
                    format!("The only workers that have registered the task name {name} are draining.")
                } else {
                    format!("No connected worker has registered the task name {name}.")
                }
            }
            (Reason::NoFreeSlot, Live::Aside(aside)) => self.explain_aside(now, task, aside, &mut details),
            (Reason::NoFreeSlot, _) if self.is_passed_over(task) => {
                details.insert("waiting_runs", limits::WAITING_RUNS.to_string());
                "On every worker that could run it, so many runs wait for what they have called that only such tasks are \
                 begun."
                    .into()
            }
            (Reason::NoFreeSlot, _) => {
                let [busy, leaked, aside, slots] = self.taken_slots(task);
                details.insert("busy_slots", busy.to_string());
                details.insert("slots", slots.to_string());
                let mut message =
                    format!("It is next, but all {slots} slots of the workers that could run it are taken");
                if leaked > 0 {
                    details.insert("leaked_slots", leaked.to_string());
                    message += &format!(", {leaked} of them by runs that were told to stop and did not");
                }
                if aside > 0 {
                    details.insert("set_aside_slots", aside.to_string());
                    message += &format!(", {aside} of them kept free for a task that is to run alone");
                }
                message + "."
            }
            (Reason::Behind, _) => explain_place(task, self.sched.ahead_of(&task.waiting(key)), &mut details),
            (Reason::WaitingReader, _) => explain_unread(now, task, &mut details),
            (Reason::Resuming, _) => {
                let workers = self.awaited.len();
                details.insert("awaited_workers", workers.to_string());
                format!(
                    "The broker has restarted and gives workers up to {:?} to say that they still run it; yet to come back: \
                     {workers}.",
                    limits::RESUME_GRACE
                )
            }
            (Reason::NotDue | Reason::Running | Reason::Stopping | Reason::Finished, _) => {
                unreachable!("the reason follows from the state")
            }
        };
        Some(Explanation {
            task: id,
            state: task.state_name(),
            reason,
            message,
            details,
        })
    }

    fn reason(&self, key: TaskKey) -> Reason {
        let task = self.live(key);
        match &task.state {
            Live::Scheduled(_) => Reason::NotDue,
            Live::Recovering => Reason::Resuming,
            Live::Unread => Reason::WaitingReader,
            Live::Aside(_) => Reason::NoFreeSlot,
            Live::Held(held) if held.stop.is_some() => Reason::Stopping,
            Live::Held(held) if !self.sessions[&held.session].link.is_connected() => Reason::Resuming,
            Live::Held(_) => Reason::Running,
            Live::Ready if !self.sched.is_served(task.route()) => match self.is_passed_over(task) {
                true => Reason::NoFreeSlot,
                false => Reason::NoWorker,
            },
            Live::Ready if self.sched.is_head(&task.waiting(key)) => Reason::NoFreeSlot,
            Live::Ready => Reason::Behind,
        }
    }

    /// Workers could run it, but on all of them so many runs wait that they take
    /// only what runs wait for.
    fn is_passed_over(&self, task: &Task) -> bool {
        let called = self.names.find(&self.names.get(task.name).called());
        let is_served = |route| self.sched.is_served(route);
        task.called().is_none() && !is_served(task.name) && called.is_some_and(is_served)
    }

    fn explain_run(
        &self,
        now: Timestamp,
        task: &Task,
        held: &Held,
        reason: Reason,
        details: &mut BTreeMap<&'static str, String>,
    ) -> String {
        let session = &self.sessions[&held.session];
        let (worker, attempt) = (&session.worker, task.grant.attempt);
        let ran = now.since(held.started_at);
        details.insert("worker", worker.to_string());
        if let Some(stream) = task.stream() {
            details.insert("items", stream.head.index.to_string());
            details.insert("items_taken", stream.credit.acked.to_string());
            details.insert("blocked_on", if held.lent { "credit" } else { "worker" }.into());
        }
        details.insert("session", held.session.to_string());
        details.insert("running_ms", ran.as_millis().to_string());
        details.insert("lease_ms", session.lease_until.since(now).as_millis().to_string());
        match reason {
            Reason::Stopping => {
                let why = match held.stop {
                    Some(crate::StopIntent::Timeout) => "its attempt took too long",
                    Some(crate::StopIntent::Deadline) => "its deadline has passed",
                    Some(crate::StopIntent::Cancel) | None => "it was cancelled",
                };
                if session.link.is_connected() {
                    format!("Worker {worker} has been told to stop it because {why}; it has not confirmed yet.")
                } else {
                    let left = session.given_up_at(task.at_most_once()).since(now);
                    format!(
                        "It is to stop because {why}, but worker {worker}, which holds it, has no connection; if it does \
                         not come back, this ends in {left:.1?}."
                    )
                }
            }
            Reason::Resuming => {
                let left = session.given_up_at(task.at_most_once()).since(now);
                let since = if session.link == Link::Awaited {
                    "has not come back since the broker restarted"
                } else {
                    "has no connection"
                };
                details.insert("given_up_ms", left.as_millis().to_string());
                format!("Worker {worker} holds it but {since}; it is given up in {left:.1?}.")
            }
            _ if task.calls().is_some() => {
                let calls = task.calls().into_iter().flatten();
                let called: Vec<_> = calls.map(|(_, id)| id.to_string()).collect();
                let (shown, all) = (called.len().min(SHOWN_CALLS), called.len());
                let ids = called[..shown].join(", ");
                details.insert("waits_for", ids.clone());
                details.insert("waits_for_tasks", all.to_string());
                match all {
                    1 => format!(
                        "Worker {worker} waits for task {ids}, which it has called. Its slot is lent meanwhile."
                    ),
                    _ => format!(
                        "Worker {worker} waits for {all} tasks it has called: {ids}{}. Its slot is lent meanwhile.",
                        if shown < all { " and others" } else { "" }
                    ),
                }
            }
            _ if held.lent => format!(
                "Worker {worker} waits for its caller to take items: {} sent, {} taken. Its slot is lent meanwhile.",
                task.stream().map_or(0, |stream| stream.head.index),
                task.stream().map_or(0, |stream| stream.credit.acked),
            ),
            _ => format!("Worker {worker} has run attempt {attempt} for {ran:.1?}."),
        }
    }

    /// Slots taken by runs, slots leaked, slots kept free for a task that is to run
    /// alone, and all slots of the workers that could run the task.
    fn taken_slots(&self, task: &Task) -> [u32; 4] {
        let able = self
            .sessions
            .values()
            .filter(|s| s.link.class().is_some() && s.tasks.contains_key(&task.name));
        able.fold([0; 4], |[busy, leaked, aside, slots], session| {
            let free = session.slots.saturating_sub(session.busy() + session.leaked);
            [
                busy + session.busy(),
                leaked + session.leaked,
                aside + if session.set_aside { free } else { 0 },
                slots + session.slots,
            ]
        })
    }

    /// A worker is being emptied for it.
    fn explain_aside(
        &self,
        now: Timestamp,
        task: &Task,
        aside: &Aside,
        details: &mut BTreeMap<&'static str, String>,
    ) -> String {
        let session = &self.sessions[&aside.session];
        // Those that lend their slots among them: they are waited for as well.
        let (worker, others) = (&session.worker, session.held.len() as u32 + session.leaked);
        let (left, losses) = (aside.until.since(now), task.counters().losses);
        details.insert("worker", worker.to_string());
        details.insert("others_running", others.to_string());
        details.insert("set_aside_ms", left.as_millis().to_string());
        format!(
            "Its worker's session ended under it {losses} times, so it is to run alone: worker {worker} gets nothing new \
             until its {others} other runs have ended, for at most {left:.1?}; then it runs there all the same."
        )
    }

    /// Every worker session, by worker name.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        let mut workers: Vec<_> = self
            .sessions
            .iter()
            .map(|(&id, session)| WorkerView {
                name: session.worker.clone(),
                session: id,
                state: match session.link {
                    Link::Active(_) => WorkerState::Active,
                    Link::Draining => WorkerState::Draining,
                    Link::Lost(_) | Link::Awaited => WorkerState::Lost,
                },
                slots: session.slots,
                busy: session.busy(),
                leaked: session.leaked,
                tasks: session.tasks.keys().map(|&name| self.names.get(name).clone()).collect(),
                connected_at: session.connected_at,
            })
            .collect();
        workers.sort_by(|a, b| (&a.name, a.session).cmp(&(&b.name, b.session)));
        for worker in &mut workers {
            worker.tasks.sort();
        }
        workers
    }

    /// Which session holds a run, if its token is the task's current grant.
    #[must_use]
    pub fn holder(&self, token: LeaseToken) -> Option<SessionId> {
        let task = self.live(self.find(token.task)?);
        task.held()
            .filter(|_| task.grant == token.grant)
            .map(|held| held.session)
    }

    /// Runs a session holds.
    #[must_use]
    pub fn held_by_session(&self, id: SessionId) -> usize {
        self.sessions.get(&id).map_or(0, |session| session.held.len())
    }

    /// Whether a session may still be resumed.
    #[must_use]
    pub fn knows_session(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }
}

/// Why it waits for a time.
fn explain_unread(now: Timestamp, task: &Task, details: &mut BTreeMap<&'static str, String>) -> String {
    let until = task.stream().and_then(|stream| stream.detached_until);
    let left = until.map_or(Duration::ZERO, |until| until.since(now));
    details.insert("cancelled_in_ms", left.as_millis().to_string());
    format!(
        "It is a stream that nobody reads: its reader's connection was lost, or the broker has restarted. It begins when \
         somebody reads it; if nobody does, it is cancelled in {left:.1?}."
    )
}

fn explain_wait(now: Timestamp, task: &Task, due: Timestamp, details: &mut BTreeMap<&'static str, String>) -> String {
    let left = due.since(now);
    details.insert("due_at_ms", due.as_millis().to_string());
    details.insert("due_in_ms", left.as_millis().to_string());
    let attempt = task.grant.attempt;
    let failure = task.extra.as_ref().and_then(|extra| extra.failure.as_deref());
    match failure.filter(|_| attempt > 0) {
        Some(failure) => {
            let failure = brief(failure);
            let message = format!("Attempt {attempt} failed ({failure}); it is tried again in {left:.1?}.");
            details.insert("attempt", attempt.to_string());
            details.insert("failure", failure.into());
            message
        }
        None => format!("It was enqueued to start later: in {left:.1?}."),
    }
}

fn explain_place(task: &Task, ahead: Ahead, details: &mut BTreeMap<&'static str, String>) -> String {
    details.insert("ahead_in_series", ahead.in_series.to_string());
    let own = ahead.in_series;
    match (task.placement, ahead.bound) {
        (Placement::Last, _) | (_, None) => "It was enqueued to run last: only when nothing else can.".into(),
        (Placement::Next, Some(bound)) => {
            details.insert("at_most_ahead", bound.to_string());
            format!("At most {bound} tasks that were also enqueued to run next start before it.")
        }
        (Placement::Fair, Some(bound)) => {
            details.insert("at_most_ahead", bound.to_string());
            format!(
                "{own} tasks of its own series and niceness are before it; with the shares of the others, at most \
                 {bound} tasks start before it, later arrivals included."
            )
        }
    }
}
