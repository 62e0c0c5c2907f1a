//! What a scan yields for a line.

use asynq_proto::limits::MAX_PAYLOAD_BYTES;
use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::formats::{Format, Now};
use super::lines::Line;
use crate::limits::MAX_LOG_LINE_BYTES;

// A byte of a line takes at most six in JSON.
const _: () = assert!(7 * MAX_LOG_LINE_BYTES < MAX_PAYLOAD_BYTES, "a row is an item");

/// An item of `scan`.
#[derive(Debug, PartialEq, Serialize)]
pub(in crate::builtins) struct Row {
    /// The line's number, from 1.
    line: u64,
    #[serde(flatten)]
    read: Read,
    /// The line was too long, and this is its beginning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Read {
    Parsed {
        format: &'static str,
        #[serde(serialize_with = "rfc3339")]
        time: Timestamp,
        level: Option<&'static str>,
        fields: Fields,
    },
    /// It does not have the form of the others.
    Raw { raw: String },
}

/// A line, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed {
    pub(super) time: Timestamp,
    /// One of syslog's eight, from `emerg` to `debug`, where the line says it.
    pub(super) level: Option<&'static str>,
    pub(super) fields: Fields,
}

/// What a line says, by name, in its own order.
#[derive(Debug, PartialEq)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Value)>);

/// What a field says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    /// The line has a place for it, and `-` there.
    None,
}

impl Row {
    /// Takes a line apart. What is no UTF-8 in it becomes U+FFFD.
    pub(super) fn of(line: &Line<'_>, format: Option<Format>, now: Now) -> Self {
        let text = String::from_utf8_lossy(line.bytes);
        let parsed = format.and_then(|format| Some((format, format.parse(&text, now)?)));
        let read = match parsed {
            Some((format, Parsed { time, level, fields })) => Read::Parsed {
                format: format.name(),
                time,
                level,
                fields,
            },
            None => Read::Raw { raw: text.into_owned() },
        };
        Self {
            line: line.number,
            read,
            cut: line.cut,
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}
