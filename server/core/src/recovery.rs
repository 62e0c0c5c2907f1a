//! After a restart: what was there before, and who still works on it.

use std::collections::BTreeMap;

use crate::change::SessionRecord;
use crate::core::{Core, Output};
use crate::counts::Counts;
use crate::ids::{Epoch, Name, Seq};
use crate::lifecycle::Trigger;
use crate::limits;
use crate::live::{Called, Extra, Held, Live, Task};
use crate::names::NameId;
use crate::queues::QueueSettings;
use crate::sched::TaskKey;
use crate::streams::Stream;
use crate::task::{OnLoss, Options, Outcome, Run, State, StateName, StopIntent, TaskRecord};
use crate::time::Timestamp;
use crate::timers::Timer;

/// What was there before, besides the tasks that had not ended.
#[derive(Debug, Default)]
pub struct Recovered {
    /// This incarnation.
    pub epoch: Epoch,
    /// The incarnation before this one.
    pub previous: Epoch,
    /// The first unused place in the order.
    pub next_seq: Seq,
    /// Sessions whose leases may still run.
    pub sessions: Vec<SessionRecord>,
    /// Tasks that have ended and are still kept.
    pub finished: BTreeMap<(Name, StateName), u64>,
    /// Queues that are not as by default.
    pub queues: BTreeMap<Name, QueueSettings>,
}

impl Core {
    /// The shard is opened at `now` by a clock that has gone far ahead since, and that
    /// nobody vouches for: nothing expires, and runs of before have their time from
    /// now on. Before any [`Core::restore`]; it holds until the next open.
    pub fn doubt_clock(&mut self, now: Timestamp) {
        self.doubts_since = Some(now);
    }

    pub(crate) fn believes_clock(&self) -> bool {
        self.doubts_since.is_none()
    }

    /// Takes back a task that had not ended when the shard was last open. Only
    /// before [`Core::start`], in any order.
    ///
    /// # Panics
    /// On a task that had ended: those stay in the store.
    pub fn restore(&mut self, seq: Seq, mut record: TaskRecord) {
        let (state, run) = match record.state {
            State::Scheduled { at } => (Live::Scheduled(at), None),
            State::Ready => (Live::Recovering, None),
            State::Running(run) => (Live::Recovering, Some((run, None))),
            State::Stopping(run, intent) => (Live::Recovering, Some((run, Some(intent)))),
            State::Finished(_) => panic!("a task that has ended is not restored"),
        };
        let streamed = record.options.stream;
        let run = run.map(|(run, stop)| restored_run(run, stop, &record.options));
        if record.called_by.is_some() {
            self.restored_calls.push(record.id);
        }
        let on_loss = match &record.state {
            State::Running(run) | State::Stopping(run, _) => run.on_loss,
            _ => OnLoss::default(),
        };
        let checkpoint = record.checkpoint.take();
        let key = self.take_back(seq, record, state);
        if streamed {
            let stream = Stream::restored(on_loss, checkpoint.map(|it| *it));
            self.tasks[key.index()].extra_mut().stream = Some(Box::new(stream));
            self.restored_streams.push(key);
        }
        self.restored_runs.extend(run.map(|held| (key, held)));
    }

    /// Takes a task of the store's into memory, in this state.
    pub(crate) fn take_back(&mut self, seq: Seq, record: TaskRecord, state: Live) -> TaskKey {
        let TaskRecord {
            options,
            start_at,
            content_type,
            counters,
            failure,
            notes,
            called_by,
            grant,
            ..
        } = record;
        let (niceness, placement) = (options.niceness, options.placement);
        let ordinary = Options {
            niceness,
            placement,
            ..Options::default()
        };
        let plain = options == ordinary
            && start_at.is_none()
            && content_type.is_empty()
            && counters == crate::Counters::default()
            && failure.is_none()
            && notes.is_none()
            && called_by.is_none();
        let called = called_by.map(|by| {
            let route = self.names.acquire(&record.name.called());
            Box::new(Called { by: *by, route })
        });
        let extra = (!plain).then(|| {
            Box::new(Extra {
                stream: None,
                called,
                calls: BTreeMap::new(),
                options,
                start_at,
                content_type,
                counters,
                failure,
                notes,
                replaced_by: None,
            })
        });
        let task = Task {
            id: record.id,
            seq,
            enqueued_at: record.enqueued_at,
            digest: record.digest,
            grant,
            state,
            name: self.names.acquire(&record.name),
            queue: self.names.acquire(&record.queue),
            series: self.names.acquire(&record.series),
            payload_bytes: u32::try_from(record.payload_bytes).unwrap_or(u32::MAX),
            niceness,
            placement,
            extra,
        };
        let key = self.insert(task);
        self.enter_state(key);
        key
    }

    /// Begins to decide, after a restart or for the first time.
    ///
    /// Tasks that workers may still run are held back until every session has
    /// resumed, at most [`limits::RESUME_GRACE`]; claimed ones for a lease.
    pub fn start(&mut self, now: Timestamp, recovered: Recovered, out: &mut Output) {
        let Recovered {
            epoch,
            previous,
            next_seq,
            sessions,
            finished,
            queues,
        } = recovered;
        self.epoch = epoch;
        self.previous = previous;
        self.next_seq = next_seq.max(Seq(1));
        self.recovering_below = self.next_seq;
        for ((queue, state), count) in finished {
            let id = self.names.acquire(&queue);
            self.queue_mut(id)[state] += count;
            self.names.release(id);
        }
        self.restore_queues(queues);
        for session in sessions {
            self.awaited.insert(session.id);
            self.insert_session(now, session);
        }
        for key in std::mem::take(&mut self.restored_streams) {
            self.with_stream(key, |stream| stream.detach(now));
        }
        for (key, held) in std::mem::take(&mut self.restored_runs) {
            let stop = held.stop;
            if self.live(key).at_most_once() && !self.sessions.contains_key(&held.session) {
                // See below; but this one must not begin again, so its worker is waited for.
                self.insert_session(
                    now,
                    SessionRecord {
                        id: held.session,
                        worker: Name::new("unknown").expect("a name"),
                        opened_at: held.started_at,
                    },
                );
            }
            if self.sessions.contains_key(&held.session) {
                self.change(key, Trigger::Adopted, |task| {
                    task.state = Live::Held(Box::new(Held { stop: None, ..held }));
                });
                if stop.is_some() {
                    self.change(key, Trigger::StopWanted, |task| task.stop_with(stop));
                }
                continue;
            }
            // A session is written before its claims and closed after them, so
            // this takes a damaged store. The run is over with its session.
            match stop {
                Some(StopIntent::Cancel) => self.finish(now, key, Trigger::Cancelled, Outcome::Cancelled, None, out),
                Some(StopIntent::Deadline) => self.finish(now, key, Trigger::Expired, Outcome::Expired, None, out),
                Some(StopIntent::Timeout) | None => {}
            }
        }
        self.restore_calls();
        self.cancel_orphans(now, out);
        self.hasten_retries(now);
        if self.awaited.is_empty() {
            self.end_recovery();
        } else {
            self.grace_until = now + limits::RESUME_GRACE;
            self.timers.arm(self.grace_until, Timer::ResumeGrace);
        }
        self.dispatch(now, out);
    }

    /// No task waits longer than that to be tried again: one that does was put off by
    /// a clock that was ahead, and would wait until it is as late as that once more.
    fn hasten_retries(&mut self, now: Timestamp) {
        let latest = now + limits::BACKOFF_CAP;
        let late = |task: &Task| task.has_started() && matches!(task.state, Live::Scheduled(at) if at > latest);
        let late: Vec<_> = (self.tasks.iter())
            .filter(|(_, task)| late(task))
            .map(|(key, _)| TaskKey(key as u32))
            .collect();
        for key in late {
            self.rearm(key, |task| task.state = Live::Scheduled(latest));
        }
    }

    /// A scheduled task's time has come. Before a restart it may have come already
    /// and the task have been granted, unwritten: then it is held back like any that
    /// was ready.
    pub(crate) fn come_due(&mut self, key: TaskKey) {
        let task = self.live(key);
        let held_back = task.seq < self.recovering_below && task.grant.epoch < self.epoch;
        self.change(key, Trigger::Due, |task| {
            task.state = if held_back { Live::Recovering } else { task.ready() };
        });
    }

    /// The grace may be over, unless a gap has lengthened it.
    pub(crate) fn on_resume_grace(&mut self, now: Timestamp) {
        if self.grace_until > now {
            self.timers.arm(self.grace_until, Timer::ResumeGrace);
        } else {
            self.end_recovery();
        }
    }

    /// Recovered tasks wait no longer.
    pub(crate) fn end_recovery(&mut self) {
        self.recovering_below = Seq(0);
        for key in std::mem::take(&mut self.recovering) {
            let recovering = |task: &Task| matches!(task.state, Live::Recovering);
            if self.tasks.get(key.index()).is_some_and(recovering) {
                // Ready before and after: only the scheduler learns of it.
                self.tasks[key.index()].state = self.live(key).ready();
                if matches!(self.live(key).state, Live::Ready) {
                    self.sched.insert(&self.live(key).waiting(key));
                }
            }
        }
    }

    /// Changes a run without changing its state.
    pub(crate) fn rearm_run(&mut self, key: TaskKey, with: impl FnOnce(&mut Held)) {
        self.rearm(key, |task| {
            if let Some(held) = task.held_mut() {
                with(held);
            }
        });
    }

    /// Changes when something happens to a task, and nothing else.
    fn rearm(&mut self, key: TaskKey, with: impl FnOnce(&mut Task)) {
        for (at, timer) in self.alarms(key) {
            self.timers.disarm(at, timer);
        }
        with(&mut self.tasks[key.index()]);
        for (at, timer) in self.alarms(key) {
            self.timers.arm(at, timer);
        }
    }

    /// A queue without tasks, live or kept, is as if it had never been.
    fn forget_if_empty(&mut self, queue: NameId) {
        if self.queues.get(&queue).is_some_and(Counts::is_zero) {
            self.queues.remove(&queue);
            self.names.release(queue);
        }
    }

    /// The store has pruned that many finished tasks.
    pub fn forgot(&mut self, pruned: &BTreeMap<(Name, StateName), u64>) {
        for ((queue, state), count) in pruned {
            let Some(id) = self.names.find(queue) else { continue };
            if let Some(counts) = self.queues.get_mut(&id) {
                counts[*state] = counts[*state].saturating_sub(*count);
            }
            self.forget_if_empty(id);
        }
    }
}

fn restored_run(run: Run, stop: Option<StopIntent>, options: &Options) -> Held {
    Held {
        session: run.session,
        started_at: run.started_at,
        timeout: run.extended.or(options.timeout),
        extended: run.extended.is_some(),
        max_attempts: options.max_attempts.unwrap_or(limits::DEFAULT_MAX_ATTEMPTS),
        place: 0,
        claimed: true,
        alone: false,
        lent: false,
        abandoned: false,
        stop,
    }
}
