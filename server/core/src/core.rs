//! The state machine itself: what it holds, and the one way in.
//!
//! Every change of a task's state goes through [`Core::change`] or
//! [`Core::finish`], which keep all that hangs on a state (timers, the
//! scheduler, the session's slots, the counts) in step with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use slab::Slab;

use crate::by_id::ById;
use crate::change::Change;
use crate::counts::Counts;
use crate::effect::{Assignment, Effect};
use crate::event::Event;
use crate::ids::{Epoch, Grant, Seq, SessionId, TaskId};
use crate::keys::Key;
use crate::lifecycle::{self, Trigger};
use crate::limits;
use crate::live::{Held, Live, Task};
use crate::names::{NameId, Names};
use crate::queues::QueueSettings;
use crate::sched::{Scheduler, TaskKey};
use crate::sessions::Session;
use crate::task::{OnLoss, StateName, Tally};
use crate::time::Timestamp;
use crate::timers::{Timer, Timers};

/// What one or more events lead to, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// To be remembered.
    pub changes: Vec<Change>,
    /// To be done.
    pub effects: Vec<Effect>,
}

/// Decides for one shard.
#[derive(Debug)]
pub struct Core {
    pub(crate) epoch: Epoch,
    /// The incarnation before this one.
    pub(crate) previous: Epoch,
    pub(crate) next_seq: Seq,
    pub(crate) names: Names,
    pub(crate) tasks: Slab<Task>,
    pub(crate) by_id: ById,
    /// Which live task has a key in a queue.
    pub(crate) keys: BTreeMap<(NameId, Key), TaskKey>,
    /// [`limits::MAX_LIVE_KEYS`], less in tests.
    pub(crate) most_keys: usize,
    pub(crate) queues: BTreeMap<NameId, Counts>,
    /// Of queues that are not as by default.
    pub(crate) settings: BTreeMap<NameId, QueueSettings>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) sched: Scheduler,
    pub(crate) timers: Timers,
    /// Sessions that are being emptied, and the tasks they are for.
    pub(crate) aside: BTreeMap<SessionId, TaskKey>,
    /// Grants that get a durable claim if they still run by then.
    pub(crate) claims: VecDeque<Claim>,
    /// Tasks before this place were there before a restart, and may be run by
    /// somebody who has yet to come back; 0 once nobody is waited for.
    pub(crate) recovering_below: Seq,
    /// How long they are waited for.
    pub(crate) grace_until: Timestamp,
    /// Tasks held back after a restart; some may have moved on since.
    pub(crate) recovering: Vec<TaskKey>,
    /// Runs found at a restart, before their sessions are.
    pub(crate) restored_runs: Vec<(TaskKey, Held)>,
    /// Streams found at a restart: their readers went with the broker.
    pub(crate) restored_streams: Vec<TaskKey>,
    /// Tasks found at a restart that were called by runs.
    pub(crate) restored_calls: Vec<TaskId>,
    /// Called tasks whose runs are over; empty between events.
    pub(crate) orphans: Vec<TaskId>,
    /// Sessions of before a restart that have not resumed yet.
    pub(crate) awaited: BTreeSet<SessionId>,
    /// When the shard was opened, if by a clock that is not believed: see
    /// [`Core::doubt_clock`].
    pub(crate) doubts_since: Option<Timestamp>,
    /// Decides nothing.
    pub(crate) tally: Tally,
}

/// A grant of this incarnation that is to become durable if it still runs then.
/// There are as many as are made in [`limits::CLAIM_AFTER`], so it is small.
#[derive(Debug)]
pub(crate) struct Claim {
    at: Timestamp,
    seq: Seq,
    key: TaskKey,
    attempt: u32,
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}

impl Core {
    /// An empty shard, not yet open. [`Core::start`] comes next, after a [`Core::restore`]
    /// for each task there was.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    /// [`Core::new`] for callers who are not to be trusted: `seed`, which they must
    /// not know, decides where their ids lie in memory, and nothing else.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            epoch: Epoch::default(),
            previous: Epoch::default(),
            next_seq: Seq(1),
            names: Names::default(),
            tasks: Slab::new(),
            by_id: ById::new(seed),
            keys: BTreeMap::new(),
            most_keys: limits::MAX_LIVE_KEYS,
            queues: BTreeMap::new(),
            settings: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sched: Scheduler::new(),
            timers: Timers::default(),
            aside: BTreeMap::new(),
            claims: VecDeque::new(),
            recovering_below: Seq(0),
            grace_until: Timestamp::ZERO,
            recovering: Vec::new(),
            restored_runs: Vec::new(),
            restored_streams: Vec::new(),
            restored_calls: Vec::new(),
            orphans: Vec::new(),
            awaited: BTreeSet::new(),
            doubts_since: None,
            tally: Tally::default(),
        }
    }

    /// Takes in what happened at `now` and appends to `out` what follows.
    pub fn apply(&mut self, now: Timestamp, event: Event, out: &mut Output) {
        match event {
            Event::Enqueue { request, spec, reader } => self.on_enqueue(now, request, spec, reader, out),
            Event::Call {
                request,
                session,
                call,
                spec,
            } => self.on_call(now, request, session, call, spec, out),
            Event::Withdraw { session, token, n } => self.on_withdraw(now, session, token, n, out),
            Event::Cancel { request, task } => self.on_cancel(now, request, task, out),
            Event::Retry { request, seq, record } => self.on_retry(now, request, seq, *record, out),
            Event::Purge {
                request,
                seq,
                record,
                states,
            } => self.on_purge(request, seq, *record, states, out),
            Event::SetQueue { request, queue, update } => self.on_set_queue(now, request, queue, update, out),
            Event::SessionOpened(hello) => self.on_session_opened(now, *hello, out),
            Event::Heartbeat(session) => self.on_heartbeat(now, session, out),
            Event::Draining(session) => self.on_draining(session),
            Event::SessionClosed { session, how } => self.on_session_closed(now, session, how, out),
            Event::Completed { session, token, result } => self.on_completed(now, session, token, result, out),
            Event::CompletedWith {
                session,
                token,
                result,
                children,
            } => self.on_completed_with(now, session, token, result, children, out),
            Event::Failed {
                session,
                token,
                failure,
                min_attempts,
            } => self.on_failed(now, session, token, (failure, min_attempts), out),
            Event::TimedOut {
                session,
                token,
                failure,
            } => self.on_timed_out(now, session, token, failure, out),
            Event::Crashed {
                session,
                token,
                failure,
            } => self.on_crashed(now, session, token, failure, out),
            Event::Released { session, token } => self.on_released(now, session, token, out),
            Event::Ended { session, token } => self.on_ended(now, session, token, out),
            Event::Extended { session, token, left } => self.on_extended(now, session, token, left, out),
            Event::Abandoned { session, token } => self.on_abandoned(now, session, token, out),
            Event::Leaked { session, slots } => self.on_leaked(session, slots),
            Event::Attach { request, task, reader } => self.on_attach(now, request, task, reader, out),
            Event::Flow {
                task,
                consumer,
                open_seq,
                credit,
            } => self.on_flow(now, task, (consumer, open_seq), credit, out),
            Event::ReaderGone {
                task,
                consumer,
                open_seq,
                how,
            } => self.on_reader_gone(now, task, (consumer, open_seq), how, out),
            Event::EmitOpened { session, token, resume } => self.on_emit_opened(now, session, token, resume, out),
            Event::Items { session, token, batch } => self.on_items(now, session, token, batch, out),
            Event::Checkpoint {
                session,
                token,
                checkpoint,
            } => self.on_checkpoint(now, session, token, checkpoint, out),
            Event::Blocked { session, token, credit } => self.on_blocked(session, token, credit),
            Event::Iterated {
                session,
                token,
                count,
                digest,
            } => self.on_iterated(now, session, token, (count, digest), out),
            Event::Gap(gap) => self.on_gap(gap),
            Event::Tick => self.on_tick(now, out),
        }
        self.cancel_orphans(now, out);
        self.dispatch(now, out);
    }

    /// When [`Event::Tick`] is due next.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let claim = self.claims.front().map(|claim| claim.at);
        [self.timers.next(), claim].into_iter().flatten().min()
    }

    /// What has gone wrong with tasks so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the session has a connection.
    #[must_use]
    pub fn is_connected(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.link.is_connected())
    }

    /// Whether the task is known and has not ended.
    #[must_use]
    pub fn is_live(&self, id: TaskId) -> bool {
        self.find(id).is_some()
    }

    fn on_tick(&mut self, now: Timestamp, out: &mut Output) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::ResumeGrace => self.on_resume_grace(now),
                Timer::Lease(session) => self.on_lease_timer(now, session, out),
                Timer::ResetGrace(session) => self.on_reset_grace(now, session, out),
                // `change` disarms the timer that has just gone off: no harm.
                Timer::Due(key) => self.come_due(key),
                Timer::Expire(key) => self.on_expire(now, key, out),
                Timer::Timeout(key) => self.on_timeout(now, key, out),
                Timer::Aside(key) => self.on_aside(now, key, out),
                Timer::Detached(key) => self.on_detached(now, key, out),
                Timer::Checkpoint(key) => self.on_checkpoint_due(key, out),
            }
        }
        while let Some(claim) = self.claims.pop_front_if(|claim| claim.at <= now) {
            let attempt = claim.attempt;
            let granted = Grant {
                epoch: self.epoch,
                attempt,
            };
            let is_that = |task: &Task| task.seq == claim.seq && task.grant == granted;
            if self.tasks.get(claim.key.index()).is_some_and(is_that) {
                self.claim(claim.key, out);
            }
        }
    }

    /// Makes a run durable that has gone on for a while.
    pub(crate) fn claim(&mut self, key: TaskKey, out: &mut Output) {
        let task = &mut self.tasks[key.index()];
        let Some(held) = task.held_mut().filter(|held| !held.claimed) else {
            return;
        };
        held.claimed = true;
        self.remember(key, out);
    }

    /// Starts what can be started: no task waits beside a free slot that could
    /// run it.
    pub(crate) fn dispatch(&mut self, now: Timestamp, out: &mut Output) {
        if !self.aside.is_empty() {
            self.grant_aside(now, out);
        }
        while let Some((key, session)) = self.sched.pair() {
            if self.live(key).is_suspect() {
                self.grant_alone(now, key, session, out);
            } else {
                self.grant(now, key, session, false, out);
            }
        }
    }

    pub(crate) fn grant(&mut self, now: Timestamp, key: TaskKey, id: SessionId, alone: bool, out: &mut Output) {
        let (epoch, attempt) = (self.epoch, self.live(key).grant.attempt.saturating_add(1));
        let mut held = self.held_by(id, key, now);
        // Whoever begins it must be known for certain, so this run waits for its claim.
        let claim_first = self.live(key).at_most_once() || self.declared_on_loss(key, id) == Some(OnLoss::Fail);
        (held.claimed, held.alone) = (claim_first, alone);
        self.change(key, Trigger::Granted, |task| {
            task.grant = Grant { epoch, attempt };
            task.state = Live::Held(Box::new(held));
        });
        let Ok(stream) = self.begin_stream(key, id) else {
            return self.give_up_stream(now, key, out);
        };
        let task = self.live(key);
        let token = task.token();
        out.effects.push(Effect::Assign(Box::new(Assignment {
            session: id,
            token,
            seq: task.seq,
            name: self.names.get(task.name).clone(),
            queue: self.names.get(task.queue).clone(),
            series: self.names.get(task.series).clone(),
            timeout: task.held().and_then(|held| held.timeout),
            deadline: task.deadline().filter(|_| self.believes_clock()),
            payload_bytes: u64::from(task.payload_bytes),
            enqueued_at: task.enqueued_at,
            stream,
            at_most_once: claim_first,
        })));
        if claim_first {
            return self.remember(key, out);
        }
        self.claims.push_back(Claim {
            at: now + limits::CLAIM_AFTER,
            seq: task.seq,
            key,
            attempt,
        });
    }

    /// A run of the task by the session, with the session's defaults.
    pub(crate) fn held_by(&self, session: SessionId, key: TaskKey, now: Timestamp) -> Held {
        let task = self.live(key);
        let options = task.extra.as_ref().map(|extra| &extra.options);
        let declared = self.sessions[&session].tasks.get(&task.name);
        Held {
            session,
            started_at: now,
            timeout: options
                .and_then(|o| o.timeout)
                .or_else(|| declared.and_then(|d| d.timeout)),
            max_attempts: options
                .and_then(|o| o.max_attempts)
                .or_else(|| declared.and_then(|d| d.max_attempts))
                .unwrap_or(limits::DEFAULT_MAX_ATTEMPTS),
            place: 0,
            claimed: false,
            alone: false,
            lent: false,
            abandoned: false,
            extended: false,
            stop: None,
        }
    }

    /// Moves a live task to another live state.
    pub(crate) fn change(&mut self, key: TaskKey, trigger: Trigger, to: impl FnOnce(&mut Task)) {
        let from = self.live(key).state_name();
        self.leave_state(key, trigger == Trigger::Granted);
        to(&mut self.tasks[key.index()]);
        let now = self.live(key).state_name();
        debug_assert_eq!(lifecycle::next(from, trigger), Some(now), "{from:?} by {trigger:?}");
        let queue = self.live(key).queue;
        self.count(queue, from, now);
        self.enter_state(key);
    }

    /// Has the store remember a live task as it is now.
    pub(crate) fn remember(&self, key: TaskKey, out: &mut Output) {
        let task = self.live(key);
        out.changes.push(Change::Update {
            seq: task.seq,
            record: Box::new(task.record(&self.names)),
        });
    }

    /// The live task with this id.
    pub(crate) fn find(&self, id: TaskId) -> Option<TaskKey> {
        self.by_id.get(id, |key| self.live(key).id == id)
    }

    pub(crate) fn live(&self, key: TaskKey) -> &Task {
        &self.tasks[key.index()]
    }

    /// A queue's counts. A queue that had tasks once stays known, by a use of its
    /// name of its own.
    pub(crate) fn queue_mut(&mut self, id: NameId) -> &mut Counts {
        self.queues.entry(id).or_insert_with(|| {
            self.names.share(id);
            Counts::default()
        })
    }

    pub(crate) fn count(&mut self, queue: NameId, from: StateName, to: StateName) {
        let counts = self.queues.get_mut(&queue).expect("a queue with tasks is known");
        counts[from] -= 1;
        counts[to] += 1;
    }

    pub(crate) fn enter_state(&mut self, key: TaskKey) {
        for (at, timer) in self.alarms(key) {
            self.timers.arm(at, timer);
        }
        let task = &mut self.tasks[key.index()];
        match &mut task.state {
            // Who sets a worker aside has seen to it.
            Live::Scheduled(_) | Live::Unread | Live::Aside(_) => {}
            Live::Ready => self.sched.insert(&task.waiting(key)),
            Live::Recovering => self.recovering.push(key),
            Live::Held(held) => {
                let session = self.sessions.get_mut(&held.session).expect("a run's session is known");
                held.place = session.held.len() as u32;
                session.held.push(key);
                session.lent += u32::from(held.lent);
                session.set_aside |= held.alone;
                session.sync_free_slots(held.session, &mut self.sched);
            }
        }
    }

    pub(crate) fn leave_state(&mut self, key: TaskKey, popped: bool) {
        for (at, timer) in self.alarms(key) {
            self.timers.disarm(at, timer);
        }
        let task = &self.tasks[key.index()];
        match &task.state {
            // A key that stays behind in `recovering` is told by the state.
            Live::Scheduled(_) | Live::Recovering | Live::Unread => {}
            Live::Ready if popped => {}
            Live::Aside(_) => self.leave_aside(key),
            Live::Ready => {
                let was_there = self.sched.remove(&task.waiting(key));
                debug_assert!(was_there, "a ready task was not waiting");
            }
            Live::Held(held) => {
                let (id, place) = (held.session, held.place);
                let session = self.sessions.get_mut(&id).expect("a run's session is known");
                session.held.swap_remove(place as usize);
                session.lent -= u32::from(held.lent);
                session.set_aside &= !held.alone;
                session.sync_free_slots(id, &mut self.sched);
                let waits = held.lent;
                if let Some(last) = session.held.get(place as usize) {
                    let moved = self.tasks[last.index()].held_mut();
                    moved.expect("a session holds runs").place = place;
                }
                if waits {
                    self.drop_calls(key);
                    self.sync_reach(id);
                }
            }
        }
    }
}
