//! How a record becomes bytes, and back. One frame for all records:
//!
//! ```text
//! 0      version, FORMAT
//! 1..5   low half of XXH3-64 over all that follows, little-endian
//! 5..21  id
//! 21..29 µs since the Unix epoch, little-endian: a task's acceptance, a session's opening
//! 29..   body, a protocol buffer: `body::Task`, `body::Session` or `body::QueueSettings`
//! ```
//!
//! Id and time stand in front, so that the scan at open reads them of finished
//! tasks without decoding the rest. A body gains fields under new numbers, which
//! older versions skip; only a change they must not skip raises the version, and
//! the version before stays readable.

mod body;

use std::collections::HashMap;

use asynq_core::{Name, QueueSettings, SessionId, SessionRecord, TaskId, TaskRecord, Timestamp};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::body::Labels;
use crate::StoreError;
use crate::limits::SHARED_NAMES;

/// The version written.
const FORMAT: u8 = 1;
const CHECKED_FROM: usize = 5;
const ID_END: usize = CHECKED_FROM + 16;
const HEAD_BYTES: usize = ID_END + 8;
/// Bytes by which a row grows when its task ends, at most for an ordinary task
/// with a result as long as its arguments: times, the grant, a worker's name of 20
/// bytes, what is known of the result. A row that outgrew its page would have it split. Three of them are
/// the field that keeps the others free.
const END_ROOM: usize = 90;
/// Bytes a body has for what has become of a task that has just come in: the
/// number of its state.
const NEW_STATE: usize = 3;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Written by a version that knows a newer format.
    #[error("record format {0} is unknown; this version reads format {FORMAT}: start the newer asynqd that wrote it")]
    Version(u8),
    /// Too short to be one.
    #[error("record is cut short: {0} bytes")]
    Short(usize),
    /// Not the bytes that were written.
    #[error("record is damaged: its checksum does not match")]
    Checksum,
    /// Right by its checksum, but no protocol buffer.
    #[error("record cannot be decoded: {0}")]
    Body(#[from] prost::DecodeError),
    /// Right by its checksum, but a field holds what it cannot.
    #[error("record has a bad {0}")]
    Field(&'static str),
}

impl From<CodecError> for StoreError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Version(_) => Self::Incompatible(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// What stands in front of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: [u8; 16],
    pub(crate) at: Timestamp,
}

/// Reads what stands in front of a record, having checked all of it.
pub(crate) fn head(record: &[u8]) -> Result<Head, CodecError> {
    split(record).map(|(head, _)| head)
}

/// The media type of a task's arguments.
pub(crate) fn payload_type(record: &[u8]) -> Result<Box<str>, CodecError> {
    let (_, body) = split(record)?;
    Ok(body::MediaTypes::decode(body)?.payload.into())
}

/// The media type of a task's result.
pub(crate) fn result_type(record: &[u8]) -> Result<Box<str>, CodecError> {
    let (_, body) = split(record)?;
    Ok(body::MediaTypes::decode(body)?.result().into())
}

/// The name and the series of a task.
pub(crate) fn labels(record: &[u8]) -> Result<Labels, CodecError> {
    let (_, body) = split(record)?;
    Ok(Labels::decode(body)?)
}

/// What a queue was told to be.
pub(crate) fn queue(record: &[u8]) -> Result<QueueSettings, CodecError> {
    let (_, body) = split(record)?;
    let body::QueueSettings { fast_requeue } = body::QueueSettings::decode(body)?;
    Ok(QueueSettings { fast_requeue })
}

fn split(record: &[u8]) -> Result<(Head, &[u8]), CodecError> {
    match record.first() {
        Some(&FORMAT) if record.len() >= HEAD_BYTES => {}
        Some(&FORMAT) | None => return Err(CodecError::Short(record.len())),
        Some(&version) => return Err(CodecError::Version(version)),
    }
    if record[1..CHECKED_FROM] != checksum(&record[CHECKED_FROM..]) {
        return Err(CodecError::Checksum);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&record[CHECKED_FROM..ID_END]);
    let mut at = [0; 8];
    at.copy_from_slice(&record[ID_END..HEAD_BYTES]);
    let at = Timestamp::from_micros(u64::from_le_bytes(at));
    Ok((Head { id, at }, &record[HEAD_BYTES..]))
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    (xxh3_64(bytes) as u32).to_le_bytes()
}

/// Writes records, one after the other into the same memory.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    record: Vec<u8>,
}

impl Encoder {
    pub(crate) fn task(&mut self, task: &TaskRecord) -> &[u8] {
        self.frame(task.id.0, task.enqueued_at, |body| {
            body::write_task(task, body);
        })
    }

    /// A task that has just come in, with [`END_ROOM`] besides: so its end finds
    /// room where the task stands.
    pub(crate) fn new_task(&mut self, task: &TaskRecord) -> &[u8] {
        self.frame(task.id.0, task.enqueued_at, |body| {
            body::write_task(task, body);
            body::Fields(body).room(END_ROOM);
        })
    }

    /// A task that has ended, `grown` bytes shorter than it was as a new one (or
    /// longer, below zero) if that can be, for a row that has grown as much beside its record: what takes
    /// as many bytes as before is written over, and nothing moves.
    pub(crate) fn ended_task(&mut self, task: &TaskRecord, grown: isize) -> &[u8] {
        self.frame(task.id.0, task.enqueued_at, |body| {
            let begin = body.len();
            let asked = body::write_task(task, body);
            let since = body.len() - begin - asked;
            let room = (NEW_STATE + END_ROOM).checked_sub(since);
            let room = room.and_then(|room| room.checked_add_signed(-grown));
            if let Some(room) = room.filter(|room| body::ROOM_FIELD_BYTES.contains(room)) {
                body::Fields(body).room(room);
            }
        })
    }

    pub(crate) fn session(&mut self, session: &SessionRecord) -> &[u8] {
        let body = body::Session {
            worker: session.worker.as_str().to_owned(),
        };
        self.frame(session.id.0, session.opened_at, |to| body.encode_raw(to))
    }

    /// Its name is beside it: id and time are zero.
    pub(crate) fn queue(&mut self, settings: QueueSettings) -> &[u8] {
        let QueueSettings { fast_requeue } = settings;
        let body = body::QueueSettings { fast_requeue };
        self.frame([0; 16], Timestamp::ZERO, |to| body.encode_raw(to))
    }

    fn frame(&mut self, id: [u8; 16], at: Timestamp, body: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let record = &mut self.record;
        record.clear();
        record.extend_from_slice(&[FORMAT, 0, 0, 0, 0]);
        record.extend_from_slice(&id);
        record.extend_from_slice(&at.as_micros().to_le_bytes());
        body(record);
        let sum = checksum(&record[CHECKED_FROM..]);
        record[1..CHECKED_FROM].copy_from_slice(&sum);
        record
    }
}

/// Reads records. Equal names share memory.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    task: body::Task,
    names: Names,
}

impl Decoder {
    pub(crate) fn task(&mut self, record: &[u8]) -> Result<TaskRecord, CodecError> {
        let (head, body) = split(record)?;
        self.task.clear();
        self.task.merge(body)?;
        self.task.read(TaskId(head.id), head.at, &mut self.names)
    }

    pub(crate) fn session(&mut self, record: &[u8]) -> Result<SessionRecord, CodecError> {
        let (head, body) = split(record)?;
        let worker = self.names.get(&body::Session::decode(body)?.worker, "worker")?;
        Ok(SessionRecord {
            id: SessionId(head.id),
            worker,
            opened_at: head.at,
        })
    }
}

/// Names seen lately: few different ones in many records.
#[derive(Debug, Default)]
struct Names(HashMap<Box<str>, Name>);

impl Names {
    fn get(&mut self, text: &str, field: &'static str) -> Result<Name, CodecError> {
        if let Some(name) = self.0.get(text) {
            return Ok(name.clone());
        }
        let name = Name::or_empty(text).map_err(|_| CodecError::Field(field))?;
        if self.0.len() >= SHARED_NAMES {
            self.0.clear();
        }
        self.0.insert(text.into(), name.clone());
        Ok(name)
    }
}

#[cfg(test)]
mod tests;
