//! The name of a task.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use uuid::Uuid;

use crate::Error;

/// Names one task for ever: a UUIDv7, made by the client on the broker's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The id as 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(crate) const fn new(id: Uuid) -> Self {
        Self(id)
    }

    pub(crate) fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_bytes())
    }

    pub(crate) fn from_wire(bytes: &[u8]) -> Result<Self, Error> {
        let id = Uuid::from_slice(bytes).map_err(|_| Error::unexpected("a task id that is not 16 bytes long"))?;
        Ok(Self(id))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl From<Uuid> for TaskId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl From<TaskId> for Uuid {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

/// A text is no task id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a task id; they look like 019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1")]
pub struct ParseIdError(String);

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| ParseIdError(text.to_owned()))
    }
}
