//! Typed names of tasks and iterators: the contract between those who call them and those who run them.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::limits::MAX_NAME_BYTES;
use crate::v1;

/// The name of a task that takes `A` and returns `R`.
///
/// Write it once, in a crate that callers and workers share:
///
/// ```
/// use std::time::Duration;
/// use asynq_proto::Task;
///
/// pub const LENGTH: Task<String, usize> = Task::new("text.length");
/// pub const RESIZE: Task<Vec<u8>, Vec<u8>> = Task::new("image.resize")
///     .timeout(Duration::from_mins(5))
///     .max_attempts(3);
/// ```
pub struct Task<A, R> {
    name: &'static str,
    timeout: Option<Duration>,
    max_attempts: Option<u32>,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> Task<A, R> {
    /// Names a task: 1 to 200 bytes of `A-Z a-z 0-9 . _ : / -`, which workers
    /// check when they are built and the broker at every call.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            timeout: None,
            max_attempts: None,
            types: PhantomData,
        }
    }

    /// Longest time of one attempt, for calls that say nothing themselves.
    /// Workers declare it to the broker. Without it an attempt may take for ever.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How often the task may fail before it is dead, 1…1000, for calls that
    /// say nothing themselves. Workers declare it to the broker. The default is
    /// 1: no retry.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What [`Task::timeout`] set.
    #[must_use]
    pub const fn default_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// What [`Task::max_attempts`] set.
    #[must_use]
    pub const fn default_max_attempts(&self) -> Option<u32> {
        self.max_attempts
    }
}

// Written out, because derives would ask `A` and `R` for the same traits.
impl<A, R> Clone for Task<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> Copy for Task<A, R> {}

impl<A, R> fmt::Debug for Task<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.name).finish()
    }
}

/// What becomes of a stream whose worker is lost after the first items, or whose
/// generator fails and has attempts left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// The generator yields the same items each time: it runs again, and what the
    /// broker has is left out. The broker and the worker compare digests where the
    /// new items begin; if the generator did not yield the same again, the task is
    /// dead, with the reason `non_deterministic`.
    Replay,
    /// It cannot be run again: the task is dead, and its error says how many items
    /// there were.
    Fail,
    /// The generator names places now and then at which it can begin again, each with
    /// a token for itself, of at most 64 KiB. It is run again from the last of them.
    /// What it then yields that the broker has already is left out by its index
    /// alone: it may be something else than before, and nobody compares it. Without a
    /// checkpoint it begins at the beginning.
    ///
    /// The broker writes down, once a second at most, the last checkpoint whose items
    /// the caller has acknowledged. If it dies together with the worker, that is
    /// where the iterator begins.
    Checkpoint,
}

impl OnLoss {
    /// The wire form.
    #[must_use]
    pub const fn to_wire(self) -> v1::OnLoss {
        match self {
            Self::Replay => v1::OnLoss::Replay,
            Self::Fail => v1::OnLoss::Fail,
            Self::Checkpoint => v1::OnLoss::Checkpoint,
        }
    }
}

/// The name of an iterator: a task that takes `A` and yields items of type `T`,
/// which stream back to the caller as fast as it takes them.
///
/// Written once and shared, as a [`Task`] is:
///
/// ```
/// use asynq_proto::{Iter, OnLoss};
///
/// pub const PRIMES: Iter<u64, u64> = Iter::new("math.primes", OnLoss::Replay);
/// ```
pub struct Iter<A, T> {
    task: Task<A, T>,
    on_loss: OnLoss,
}

impl<A, T> Iter<A, T> {
    /// Names an iterator and says what becomes of it when its worker is lost. The
    /// rules for the name are those of [`Task::new`].
    #[must_use]
    pub const fn new(name: &'static str, on_loss: OnLoss) -> Self {
        Self {
            task: Task::new(name),
            on_loss,
        }
    }

    /// What becomes of it when its worker is lost.
    #[must_use]
    pub const fn on_loss(&self) -> OnLoss {
        self.on_loss
    }

    /// Longest time of one attempt, from its start to its last item; see
    /// [`Task::timeout`]. Time spent waiting for the caller counts.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.task.timeout = Some(timeout);
        self
    }

    /// How often the iterator may fail before it is dead; see
    /// [`Task::max_attempts`].
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.task.max_attempts = Some(attempts);
        self
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.task.name
    }

    /// What [`Iter::timeout`] set.
    #[must_use]
    pub const fn default_timeout(&self) -> Option<Duration> {
        self.task.timeout
    }

    /// What [`Iter::max_attempts`] set.
    #[must_use]
    pub const fn default_max_attempts(&self) -> Option<u32> {
        self.task.max_attempts
    }
}

impl<A, T> Clone for Iter<A, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, T> Copy for Iter<A, T> {}

impl<A, T> fmt::Debug for Iter<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Iter").field(&self.name()).finish()
    }
}

/// Why a string is no name of a task, queue, series or worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("is {0} bytes long, at most {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// It holds a character outside the allowed set.
    #[error("holds {0:?}; allowed are A-Z a-z 0-9 . _ : / -")]
    BadCharacter(char),
}

/// Checks a name, so that a bad one is refused before it goes on the wire.
///
/// # Errors
/// Says what is wrong with an empty, overlong or malformed name.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong(name.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    name.chars()
        .find(|&c| !allowed(c))
        .map_or(Ok(()), |c| Err(NameError::BadCharacter(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_iterators_are_copied_whatever_their_types() {
        struct NotClone;
        const ITER: Iter<NotClone, NotClone> = Iter::new("i", OnLoss::Replay)
            .timeout(Duration::from_secs(2))
            .max_attempts(4);
        const TASK: Task<NotClone, NotClone> = Task::new("t").timeout(Duration::from_secs(1)).max_attempts(3);
        let copy = TASK;
        assert_eq!((copy.name(), TASK.name()), ("t", "t"));
        assert_eq!(copy.default_timeout(), Some(Duration::from_secs(1)));
        assert_eq!(copy.default_max_attempts(), Some(3));
        assert_eq!(format!("{copy:?}"), r#"Task("t")"#);

        let copy = ITER;
        assert_eq!((copy.name(), ITER.name()), ("i", "i"));
        assert_eq!(copy.on_loss(), OnLoss::Replay);
        assert_eq!(copy.default_timeout(), Some(Duration::from_secs(2)));
        assert_eq!(copy.default_max_attempts(), Some(4));
        assert_eq!(format!("{copy:?}"), r#"Iter("i")"#);
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(check_name("a.B_9:/-"), Ok(()));
        assert_eq!(check_name(&"x".repeat(MAX_NAME_BYTES)), Ok(()));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(
            check_name(&"x".repeat(MAX_NAME_BYTES + 1)),
            Err(NameError::TooLong(201))
        );
        assert_eq!(check_name("a b"), Err(NameError::BadCharacter(' ')));
        assert_eq!(check_name("größe"), Err(NameError::BadCharacter('ö')));
    }
}
