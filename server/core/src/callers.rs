//! What callers ask for: a task to be run, a task to be given up.

use xxhash_rust::xxh3::Xxh3;

use crate::change::Change;
use crate::core::{Core, Output};
use crate::effect::{CancelOutcome, Effect, Refusal, Reply};
use crate::event::RequestId;
use crate::ids::{Grant, Seq, TaskId};
use crate::lifecycle::Trigger;
use crate::limits;
use crate::live::{Extra, Live, Task};
use crate::sched::TaskKey;
use crate::streams::{Reader, Stream};
use crate::task::{Options, Outcome, StateName, StopIntent, TaskSpec};
use crate::time::Timestamp;

/// Fingerprint of what is asked for: two enqueues with one id are the same
/// task if their name, queue, series, content type and arguments are. XXH3,
/// so it may be kept on disk.
#[must_use]
pub fn digest(spec: &TaskSpec) -> u64 {
    let mut hash = Xxh3::new();
    for name in [&spec.name, &spec.queue, &spec.series] {
        hash.update(name.as_str().as_bytes());
        hash.update(&[0]);
    }
    hash.update(spec.payload.content_type.as_bytes());
    hash.update(&[0]);
    hash.update(&spec.payload.data);
    hash.digest()
}

impl Core {
    pub(crate) fn on_enqueue(
        &mut self,
        now: Timestamp,
        request: RequestId,
        spec: TaskSpec,
        reader: Option<Reader>,
        out: &mut Output,
    ) {
        let reply = match self.admit(now, &spec) {
            Ok(None) => self.accept(now, spec, reader, out),
            Ok(Some(_)) if reader.is_some() => Reply::Refused(Refusal::BeingRead(spec.id)),
            Ok(Some(known)) => known,
            Err(refusal) => Reply::Refused(refusal),
        };
        out.effects.push(Effect::Reply(request, reply));
    }

    /// Whether there is room and sense; the answer, if the task is known.
    fn admit(&self, now: Timestamp, spec: &TaskSpec) -> Result<Option<Reply>, Refusal> {
        if let Some(&key) = self.by_id.get(&spec.id) {
            let task = self.live(key);
            if task.digest != digest(spec) {
                return Err(Refusal::AlreadyExists(spec.id));
            }
            let worker_known = self.sched.is_served(task.name);
            return Ok(Some(Reply::Enqueued {
                task: spec.id,
                existed: true,
                worker_known,
            }));
        }
        let options = &spec.options;
        for (field, at) in [("deadline", options.deadline), ("start_before", options.start_before)] {
            if at.is_some_and(|at| at <= now) {
                return Err(Refusal::Invalid {
                    field,
                    problem: "lies in the past".into(),
                });
            }
            if at.is_some_and(|at| spec.start_at.is_some_and(|start| start >= at)) {
                return Err(Refusal::Invalid {
                    field,
                    problem: "is not after the start".into(),
                });
            }
        }
        if self.tasks.len() >= limits::MAX_LIVE_TASKS {
            return Err(Refusal::Exhausted {
                what: "tasks in the broker",
                limit: limits::MAX_LIVE_TASKS as u64,
            });
        }
        let is_new = self
            .names
            .find(&spec.queue)
            .is_none_or(|queue| !self.queues.contains_key(&queue));
        if is_new && self.queues.len() >= limits::MAX_QUEUES {
            return Err(Refusal::Exhausted {
                what: "queues",
                limit: limits::MAX_QUEUES as u64,
            });
        }
        Ok(None)
    }

    fn accept(&mut self, now: Timestamp, spec: TaskSpec, reader: Option<Reader>, out: &mut Output) -> Reply {
        let seq = self.next_seq;
        self.next_seq = Seq(seq.0 + 1);
        let digest = digest(&spec);
        let TaskSpec {
            id,
            name,
            queue,
            series,
            mut options,
            start_at,
            payload,
        } = spec;
        options.stream = reader.is_some();
        let state = match start_at.filter(|&at| at > now) {
            Some(at) => Live::Scheduled(at),
            None => Live::Ready,
        };
        let (niceness, placement) = (options.niceness, options.placement);
        let ordinary = Options {
            niceness,
            placement,
            ..Options::default()
        };
        let extra = (options != ordinary || start_at.is_some() || !payload.content_type.is_empty()).then(|| {
            Box::new(Extra {
                options,
                start_at,
                content_type: payload.content_type.clone(),
                stream: reader.map(Stream::new),
                ..Extra::default()
            })
        });
        self.queue_mut(&queue);
        let task = Task {
            id,
            seq,
            enqueued_at: now,
            digest,
            grant: Grant::default(),
            state,
            name: self.names.acquire(&name),
            queue: self.names.acquire(&queue),
            series: self.names.acquire(&series),
            payload_bytes: u32::try_from(payload.data.len()).unwrap_or(u32::MAX),
            niceness,
            placement,
            extra,
        };
        let worker_known = self.sched.is_served(task.name);
        let key = self.insert(task);
        let record = Box::new(self.live(key).record(&self.names));
        out.changes.push(Change::Insert { seq, record, payload });
        self.enter_state(key);
        Reply::Enqueued {
            task: id,
            existed: false,
            worker_known,
        }
    }

    /// Takes a task into memory and counts it; [`Core::enter_state`] comes next.
    pub(crate) fn insert(&mut self, task: Task) -> TaskKey {
        let (id, queue, state) = (task.id, task.queue, task.state_name());
        let key = TaskKey(u32::try_from(self.tasks.insert(task)).expect("limits keep tasks below 2^32"));
        self.by_id.insert(id, key);
        *self.queues.entry(queue).or_default().entry(state).or_default() += 1;
        key
    }

    pub(crate) fn on_cancel(&mut self, now: Timestamp, request: RequestId, id: TaskId, out: &mut Output) {
        let Some(&key) = self.by_id.get(&id) else {
            out.effects
                .push(Effect::Reply(request, Reply::Refused(Refusal::NotFound(id))));
            return;
        };
        let (outcome, state) = self.cancel(now, key, out);
        out.effects.push(Effect::Reply(
            request,
            Reply::Cancelled {
                task: id,
                outcome,
                state,
            },
        ));
    }

    /// Nobody wants the task any more.
    pub(crate) fn cancel(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) -> (CancelOutcome, StateName) {
        if self.live(key).held().is_some() {
            self.want_stop(key, StopIntent::Cancel, out);
            (CancelOutcome::Stopping, StateName::Stopping)
        } else {
            self.finish(now, key, Trigger::Cancelled, Outcome::Cancelled, None, out);
            (CancelOutcome::Cancelled, StateName::Cancelled)
        }
    }

    /// A deadline, or the time to start, has passed.
    pub(crate) fn on_expire(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        if self.live(key).held().is_some() {
            self.want_stop(key, StopIntent::Deadline, out);
        } else {
            self.finish(now, key, Trigger::Expired, Outcome::Expired, None, out);
        }
    }

    /// An attempt has taken too long.
    pub(crate) fn on_timeout(&mut self, key: TaskKey, out: &mut Output) {
        self.want_stop(key, StopIntent::Timeout, out);
    }

    /// Tells the worker to end a run. The slot stays taken until it says it has,
    /// or its lease is over. A cancel or a deadline replaces a timeout.
    fn want_stop(&mut self, key: TaskKey, intent: StopIntent, out: &mut Output) {
        let held = self.live(key).held().expect("only a run can be stopped");
        if held.stop.is_some_and(|stop| stop != StopIntent::Timeout) || held.stop == Some(intent) {
            return;
        }
        let session = held.session;
        self.change(key, Trigger::StopWanted, |task| task.stop_with(Some(intent)));
        self.remember(key, out);
        out.effects.push(Effect::Stop {
            session,
            token: self.live(key).token(),
            cause: intent.into(),
        });
    }
}
