//! Idempotency keys: a caller's own name for what is to be done once. In a queue
//! one task has a key, for as long as that task is remembered. The core knows
//! which of the live tasks has it; the shell has looked for one that has ended.

use std::fmt;
use std::sync::Arc;

use crate::callers::digest;
use crate::core::{Core, Output};
use crate::effect::{Refusal, Reply};
use crate::ids::{Name, TaskId};
use crate::lifecycle::Trigger;
use crate::limits::MAX_KEY_BYTES;
use crate::sched::TaskKey;
use crate::task::{Outcome, TaskSpec};
use crate::time::Timestamp;

/// A key: 1…[`MAX_KEY_BYTES`] bytes of text without control characters. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a string is no [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("is {0} bytes long, at most {MAX_KEY_BYTES} are allowed")]
    TooLong(usize),
    /// It holds a control character.
    #[error("holds {0:?}; control characters are not allowed")]
    Control(char),
}

impl Key {
    /// Checks and takes a key.
    ///
    /// # Errors
    /// Says what is wrong with an empty or overlong one, or with its characters.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong(text.len()));
        }
        match text.chars().find(|c| c.is_control()) {
            Some(c) => Err(KeyError::Control(c)),
            None => Ok(Self(text.into())),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What is to become of an enqueue whose key another task has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum OnKey {
    /// It is answered with that task if both ask for the same, and refused if not.
    #[default]
    Same,
    /// It is answered with that task, whatever that was asked for, if it has not
    /// started; else as [`OnKey::Same`].
    Return,
    /// It takes the place of that task if that has not started; else as
    /// [`OnKey::Same`].
    Replace,
    /// It is refused.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Answered with the task that has the key.
    Known,
    /// Takes that task's place.
    Instead,
    /// Refused.
    Refused,
}

impl OnKey {
    /// What becomes of it. `same`: that task was asked for with the same digest.
    const fn decide(self, same: bool, has_started: bool) -> Verdict {
        match self {
            Self::Replace if !has_started => Verdict::Instead,
            Self::Return if !has_started => Verdict::Known,
            Self::Same | Self::Return | Self::Replace if same => Verdict::Known,
            Self::Same | Self::Return | Self::Replace | Self::Refuse => Verdict::Refused,
        }
    }
}

/// What is to become of a new id.
pub(crate) enum Admitted {
    /// A new task.
    New,
    /// A new task, in the place of this one.
    Instead(TaskKey),
    /// Nothing: the task is known.
    Known(Reply),
}

/// A key that another task has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTaken {
    /// The key.
    pub key: Key,
    /// In which queue.
    pub queue: Name,
    /// The task that has it.
    pub task: TaskId,
    /// That one was asked for with the same name, series and arguments.
    pub same: bool,
}

impl fmt::Display for KeyTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, queue, task, same } = self;
        write!(f, "key {key:?} of queue {queue} belongs to task {task}, which ")?;
        f.write_str(if *same {
            "asks for the same"
        } else {
            "is a different one (name, series or arguments differ)"
        })
    }
}

/// Whether `spec`, whose key a task has that is over, is answered with that task.
///
/// # Errors
/// If it is refused.
pub fn answer_ended(spec: &TaskSpec, task: TaskId, of_task: u64) -> Result<(), Refusal> {
    let same = of_task == digest(spec);
    match spec.on_key.decide(same, true) {
        Verdict::Known | Verdict::Instead => Ok(()),
        Verdict::Refused => Err(taken(spec, task, same)),
    }
}

fn taken(spec: &TaskSpec, task: TaskId, same: bool) -> Refusal {
    let Some(key) = spec.options.key.clone() else {
        return Refusal::AlreadyExists(task);
    };
    Refusal::KeyTaken(Box::new(KeyTaken {
        key,
        queue: spec.queue.clone(),
        task,
        same,
    }))
}

impl Core {
    /// The live task that has a key.
    #[must_use]
    pub fn keyed(&self, queue: &Name, key: &Key) -> Option<TaskId> {
        self.find_keyed(queue, key).map(|key| self.live(key).id)
    }

    /// Whether an enqueue would make a task, rather than be answered or refused for the
    /// sake of one that lives.
    #[must_use]
    pub fn makes_task(&self, spec: &TaskSpec) -> bool {
        let is_new = |admitted| matches!(admitted, Admitted::New | Admitted::Instead(_));
        self.find(spec.id).is_none() && self.admit_keyed(spec).is_ok_and(is_new)
    }

    fn find_keyed(&self, queue: &Name, key: &Key) -> Option<TaskKey> {
        if self.keys.is_empty() {
            return None;
        }
        let queue = self.names.find(queue)?;
        self.keys.get(&(queue, key.clone())).copied()
    }

    /// What the task that has the key makes of a new id.
    pub(crate) fn admit_keyed(&self, spec: &TaskSpec) -> Result<Admitted, Refusal> {
        let holder = spec.options.key.as_ref();
        let Some(holder) = holder.and_then(|key| self.find_keyed(&spec.queue, key)) else {
            return Ok(Admitted::New);
        };
        let task = self.live(holder);
        let same = task.digest == digest(spec);
        // After a restart it may be run by a worker that has yet to come back.
        let may_run = task.seq < self.recovering_below && task.grant.epoch < self.epoch;
        match spec.on_key.decide(same, task.has_started() || may_run) {
            Verdict::Known => Ok(Admitted::Known(Reply::Enqueued {
                task: task.id,
                existed: true,
                worker_known: self.worker_known(task.name),
            })),
            Verdict::Instead => Ok(Admitted::Instead(holder)),
            Verdict::Refused => Err(taken(spec, task.id, same)),
        }
    }

    /// A task that has not started makes room for one with the same key.
    pub(crate) fn replace(&mut self, now: Timestamp, before: TaskKey, by: TaskId, out: &mut Output) {
        let task = &mut self.tasks[before.index()];
        let (queue, extra) = (task.queue, task.extra_mut());
        extra.replaced_by = Some(Box::new(by));
        if let Some(key) = extra.options.key.take() {
            self.keys.remove(&(queue, key));
        }
        self.finish(now, before, Trigger::Cancelled, Outcome::Cancelled, None, out);
    }

    /// A task has come into memory.
    pub(crate) fn take_key(&mut self, key: TaskKey) {
        let task = self.live(key);
        if let Some(name) = task.key() {
            let before = self.keys.insert((task.queue, name.clone()), key);
            debug_assert!(before.is_none(), "two tasks have a key");
        }
    }
}
