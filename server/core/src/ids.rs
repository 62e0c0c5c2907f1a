//! Names of things: tasks, their place in the order, sessions, grants.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::limits::MAX_NAME_BYTES;
use crate::time::Timestamp;

/// A task's identity: the 16 bytes of a `UUIDv7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(pub [u8; 16]);

impl Ord for TaskId {
    /// By their bytes, which are compared as one number: that takes no call.
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TaskId {
    /// The time in it: its first 48 bits are milliseconds.
    #[must_use]
    pub fn made_at(self) -> Timestamp {
        let ms = self.0[..6].iter().fold(0, |ms, &byte| ms << 8 | u64::from(byte));
        Timestamp::from_millis(ms)
    }
}

/// The order of acceptance within a shard, from 1. The store keys tasks by it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// One incarnation of a shard: rises with every open.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A worker session, named by the shell with 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A reader of a stream, named by the caller with 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub [u8; 16]);

impl fmt::Debug for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which grant of a task: ordered, so that a later grant fences an earlier one.
/// The attempt alone may repeat across epochs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// The incarnation of the shard that made the grant.
    pub epoch: Epoch,
    /// The attempt it is for, from 1; 0 for a task never granted.
    pub attempt: u32,
}

/// Names one attempt at one task. A message about a run is accepted only while
/// its token is the task's current grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken {
    /// The task.
    pub task: TaskId,
    /// The grant.
    pub grant: Grant,
}

impl LeaseToken {
    /// The id of the `n`-th task that the run makes, called or spawned: the same
    /// however often it is asked for. Its time is that of the run's own task.
    #[must_use]
    pub fn child(&self, n: u32) -> TaskId {
        let mut from = [0; 32];
        from[..16].copy_from_slice(&self.task.0);
        from[16..24].copy_from_slice(&self.grant.epoch.0.to_be_bytes());
        from[24..28].copy_from_slice(&self.grant.attempt.to_be_bytes());
        from[28..].copy_from_slice(&n.to_be_bytes());
        let mut id = xxhash_rust::xxh3::xxh3_128(&from).to_be_bytes();
        id[..6].copy_from_slice(&self.task.0[..6]);
        // A UUID of version 7, by RFC 9562.
        id[6] = id[6] & 0x0f | 0x70;
        id[8] = id[8] & 0x3f | 0x80;
        TaskId(id)
    }
}

/// A name of a task, queue or series: at most [`MAX_NAME_BYTES`] of
/// `[A-Za-z0-9._:/-]`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a string is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty where a name is needed.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("is {0} bytes long, at most {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// It holds a character outside the allowed set.
    #[error("holds {0:?}; allowed are A-Z a-z 0-9 . _ : / -")]
    BadCharacter(char),
}

impl Name {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// Says what is wrong with an empty, overlong or malformed name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        Self::or_empty(name)
    }

    /// Like [`Name::new`], but takes the empty string too: the default series.
    ///
    /// # Errors
    /// Says what is wrong with an overlong or malformed name.
    pub fn or_empty(name: &str) -> Result<Self, NameError> {
        if name.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        match name.chars().find(|&c| !allowed(c)) {
            Some(c) => Err(NameError::BadCharacter(c)),
            None => Ok(Self(name.into())),
        }
    }

    /// What stands for the same name where a run waits for the task. No name
    /// anybody can choose is like it.
    pub(crate) fn called(&self) -> Self {
        Self(format!("{}()", self.0).into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// How eagerly a task wants to run: −20 (first) … 20 (last), as UNIX nice.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Niceness(i8);

impl Niceness {
    /// Checks and takes a niceness; `None` outside −20…20.
    #[must_use]
    pub fn new(n: i32) -> Option<Self> {
        (-20..=20).contains(&n).then_some(Self(n as i8))
    }

    /// The niceness as a number.
    #[must_use]
    pub const fn get(self) -> i8 {
        self.0
    }

    /// What one dispatch at this niceness costs its series: 100 + (n + 20)².
    /// `AsynQueue`'s weights: 100 at −20, 500 at 0, 1000 at +10, 1700 at +20.
    #[must_use]
    pub const fn cost(self) -> u64 {
        let n = (self.0 + 20) as u64;
        100 + n * n
    }

    /// The largest cost there is.
    pub const MAX_COST: u64 = Self(20).cost();
}
