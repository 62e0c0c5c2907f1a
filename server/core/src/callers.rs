//! What callers ask for: a task to be run, a task to be given up.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::change::Change;
use crate::core::{Core, Output};
use crate::effect::{CancelOutcome, Effect, Refusal, Reply};
use crate::event::RequestId;
use crate::ids::{Grant, Name, Seq, TaskId};
use crate::keys::Admitted;
use crate::lifecycle::Trigger;
use crate::limits;
use crate::live::{Called, Extra, Live, Task};
use crate::names::NameId;
use crate::sched::TaskKey;
use crate::streams::{Reader, Stream};
use crate::task::{CalledBy, Options, Outcome, StateName, StopIntent, TaskSpec};
use crate::time::Timestamp;

/// Fingerprint of what is asked for: two enqueues with one id are the same
/// task if their name, queue, series, content type and arguments are. XXH3,
/// so it may be kept on disk.
#[must_use]
pub fn digest(spec: &TaskSpec) -> u64 {
    let texts = [
        spec.name.as_str(),
        spec.queue.as_str(),
        spec.series.as_str(),
        &spec.payload.content_type,
    ];
    let data = &spec.payload.data[..];
    let length = texts.iter().map(|text| text.len() + 1).sum::<usize>() + data.len();
    if length <= AT_ONCE {
        // After each text comes a zero, which is there already.
        let (mut all, mut at) = ([0; AT_ONCE], 0);
        for text in texts {
            all[at..][..text.len()].copy_from_slice(text.as_bytes());
            at += text.len() + 1;
        }
        all[at..length].copy_from_slice(data);
        return xxh3_64(&all[..length]);
    }
    let mut hash = Xxh3::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update(&[0]);
    }
    hash.update(data);
    hash.digest()
}

/// Bytes of a task that are laid end to end and hashed at once: for so few, a
/// hash in steps costs more to set up than to do.
const AT_ONCE: usize = 512;

fn too_many_queues() -> Refusal {
    Refusal::Exhausted {
        what: "queues",
        limit: limits::MAX_QUEUES as u64,
    }
}

impl Core {
    pub(crate) fn on_enqueue(
        &mut self,
        now: Timestamp,
        request: RequestId,
        spec: Box<TaskSpec>,
        reader: Option<Reader>,
        out: &mut Output,
    ) {
        let reply = match self.admit(now, &spec) {
            Ok(Admitted::New) => self.accept(now, spec, reader, None, out),
            Ok(Admitted::Instead(before)) => {
                self.replace(now, before, spec.id, out);
                self.accept(now, spec, reader, None, out)
            }
            Ok(Admitted::Known(known)) => match (reader, self.find(spec.id)) {
                (Some(reader), Some(key)) => self.attach(now, key, reader, true, out),
                _ => known,
            },
            Err(refusal) => Reply::Refused(refusal),
        };
        out.effects.push(Effect::Reply(request, reply));
    }

    /// Whether there is room and sense; the answer, if the task is known. A known id
    /// is answered for whatever key comes with it: it may have been replaced since.
    pub(crate) fn admit(&self, now: Timestamp, spec: &TaskSpec) -> Result<Admitted, Refusal> {
        if let Some(key) = self.find(spec.id) {
            let task = self.live(key);
            if task.digest != digest(spec) {
                return Err(Refusal::AlreadyExists(spec.id));
            }
            let worker_known = self.worker_known(task.name);
            return Ok(Admitted::Known(Reply::Enqueued {
                task: spec.id,
                existed: true,
                worker_known,
            }));
        }
        let admitted = self.admit_keyed(spec)?;
        if matches!(admitted, Admitted::Known(_)) {
            return Ok(admitted);
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
        self.has_room(spec)?;
        Ok(admitted)
    }

    /// Whether there is room for a task, its key and its queue.
    fn has_room(&self, spec: &TaskSpec) -> Result<(), Refusal> {
        self.has_places(1)?;
        if spec.options.key.is_some() {
            self.has_place_for_key()?;
        }
        if self.queues.len() >= limits::MAX_QUEUES && !self.knows_queue(&spec.queue) {
            return Err(too_many_queues());
        }
        Ok(())
    }

    /// The same for tasks that runs make: those have no keys.
    pub(crate) fn have_room(&self, specs: &[TaskSpec]) -> Result<(), Refusal> {
        self.has_places(specs.len())?;
        let new = specs.iter().map(|spec| &spec.queue);
        let new: BTreeSet<_> = new.filter(|queue| !self.knows_queue(queue)).collect();
        if !new.is_empty() && self.queues.len() + new.len() > limits::MAX_QUEUES {
            return Err(too_many_queues());
        }
        Ok(())
    }

    /// Whether so many more tasks can live.
    pub(crate) fn has_places(&self, tasks: usize) -> Result<(), Refusal> {
        if self.tasks.len() + tasks > limits::MAX_LIVE_TASKS {
            return Err(Refusal::Exhausted {
                what: "tasks in the broker",
                limit: limits::MAX_LIVE_TASKS as u64,
            });
        }
        Ok(())
    }

    /// Whether one more live task can have a key.
    pub(crate) fn has_place_for_key(&self) -> Result<(), Refusal> {
        if self.keys.len() >= self.most_keys {
            return Err(Refusal::Exhausted {
                what: "tasks with a key in the broker",
                limit: self.most_keys as u64,
            });
        }
        Ok(())
    }

    fn knows_queue(&self, queue: &Name) -> bool {
        let queue = self.names.find(queue);
        queue.is_some_and(|queue| self.queues.contains_key(&queue))
    }

    /// Some connected worker has registered the name; it may take only tasks that runs
    /// wait for just now.
    pub(crate) fn worker_known(&self, name: NameId) -> bool {
        let is_served = |route| self.sched.is_served(route);
        let called = || self.names.find(&self.names.get(name).called());
        is_served(name) || called().is_some_and(is_served)
    }

    pub(crate) fn accept(
        &mut self,
        now: Timestamp,
        spec: Box<TaskSpec>,
        reader: Option<Reader>,
        called_by: Option<CalledBy>,
        out: &mut Output,
    ) -> Reply {
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
            on_key: _,
            payload,
        } = *spec;
        // A stream that a run has called is read by somebody who comes later.
        options.stream |= reader.is_some();
        let state = match start_at.filter(|&at| at > now) {
            Some(at) => Live::Scheduled(at),
            None if options.stream => Live::Unread,
            None => Live::Ready,
        };
        let (niceness, placement, is_stream) = (options.niceness, options.placement, options.stream);
        let ordinary = Options {
            niceness,
            placement,
            ..Options::default()
        };
        let called = called_by.map(|by| {
            let route = self.names.acquire(&name.called());
            Box::new(Called { by, route })
        });
        let plain = options == ordinary && start_at.is_none() && payload.content_type.is_empty() && called.is_none();
        let extra = (!plain).then(|| {
            Box::new(Extra {
                called,
                options,
                start_at,
                content_type: payload.content_type.clone(),
                stream: is_stream.then(|| Box::new(Stream::new(reader.as_ref(), now))),
                ..Extra::default()
            })
        });
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
        let worker_known = self.worker_known(task.name);
        let key = self.insert(task);
        let record = Box::new(self.live(key).record(&self.names));
        out.changes.push(Change::Insert { seq, record, payload });
        self.enter_state(key);
        match reader {
            Some(reader) => self.attach(now, key, reader, false, out),
            None => Reply::Enqueued {
                task: id,
                existed: false,
                worker_known,
            },
        }
    }

    /// Takes a task into memory and counts it; [`Core::enter_state`] comes next.
    pub(crate) fn insert(&mut self, task: Task) -> TaskKey {
        let (id, queue, state) = (task.id, task.queue, task.state_name());
        let key = TaskKey(u32::try_from(self.tasks.insert(task)).expect("limits keep tasks below 2^32"));
        self.by_id.insert(id, key);
        self.queue_mut(queue)[state] += 1;
        self.take_key(key);
        key
    }

    pub(crate) fn on_cancel(&mut self, now: Timestamp, request: RequestId, id: TaskId, out: &mut Output) {
        let Some(key) = self.find(id) else {
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
            self.want_stop(now, key, StopIntent::Cancel, out);
            (CancelOutcome::Stopping, StateName::Stopping)
        } else {
            self.finish(now, key, Trigger::Cancelled, Outcome::Cancelled, None, out);
            (CancelOutcome::Cancelled, StateName::Cancelled)
        }
    }

    /// A deadline, or the time to start, has passed.
    pub(crate) fn on_expire(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        if self.live(key).held().is_some() {
            self.want_stop(now, key, StopIntent::Deadline, out);
        } else {
            self.finish(now, key, Trigger::Expired, Outcome::Expired, None, out);
        }
    }

    /// An attempt has taken too long.
    pub(crate) fn on_timeout(&mut self, now: Timestamp, key: TaskKey, out: &mut Output) {
        self.want_stop(now, key, StopIntent::Timeout, out);
    }

    /// Tells the worker to end a run. The slot stays taken until it says it has,
    /// or its lease is over. A cancel or a deadline replaces a timeout.
    fn want_stop(&mut self, now: Timestamp, key: TaskKey, intent: StopIntent, out: &mut Output) {
        let held = self.live(key).held().expect("only a run can be stopped");
        if held.stop.is_some_and(|stop| stop != StopIntent::Timeout) || held.stop == Some(intent) {
            return;
        }
        let session = held.session;
        self.note(now, key, StateName::Stopping, intent.into());
        self.change(key, Trigger::StopWanted, |task| task.stop_with(Some(intent)));
        self.remember(key, out);
        out.effects.push(Effect::Stop {
            session,
            token: self.live(key).token(),
            cause: intent.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Name, NameError};
    use crate::task::Payload;

    fn spec(series: &str, content_type: &str, bytes: usize) -> Result<TaskSpec, NameError> {
        Ok(TaskSpec {
            id: TaskId([0; 16]),
            name: Name::new("resize")?,
            queue: Name::new("default")?,
            series: Name::or_empty(series)?,
            options: Options::default(),
            start_at: None,
            on_key: crate::keys::OnKey::default(),
            payload: Payload {
                content_type: content_type.into(),
                data: (0..bytes).map(|i| (i * 7) as u8).collect::<Vec<u8>>().into(),
            },
        })
    }

    /// Digests are kept on disk: another value for the same task would turn a resend into a conflict.
    #[test]
    fn digests_stay_as_they_are() -> Result<(), NameError> {
        let long = "s".repeat(limits::MAX_NAME_BYTES);
        let known: [(&str, &str, usize, u64); 8] = [
            ("", "", 0, 0x9155227b9236a319),
            ("", "", 1, 0xfc99a48c76f4521b),
            ("", "", 100, 0xebc590e26efdb0f5),
            ("alice", "application/cbor", 200, 0x80c134196b8c98fa),
            // Up to the most that is hashed at once, and one more.
            ("", "", 495, 0xec3698ec030da7bb),
            ("", "", 496, 0x17bace7c35cb0b93),
            ("", "", 5_000, 0x8f39460cf62bc7f7),
            (&long, &long, 400, 0x864a157899aef331),
        ];
        let found = known.map(|(series, content_type, bytes, _)| Ok(digest(&spec(series, content_type, bytes)?)));
        let found = found.into_iter().collect::<Result<Vec<_>, NameError>>()?;
        assert_eq!(found, known.map(|(.., digest)| digest));
        Ok(())
    }
}
