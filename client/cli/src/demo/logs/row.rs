//! What a worker's `scan` is asked, and what it answers line by line.

use asynq_client::{Iter, OnLoss};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

pub(super) const TASK: Iter<Scan, Row> = Iter::new("scan", OnLoss::Replay);

#[derive(Serialize)]
pub(super) struct Scan {
    pub(super) path: String,
    /// The first line wanted, from 1.
    pub(super) from: u64,
}

/// A line; without a format it is one that did not parse.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) format: Option<String>,
    #[serde(default, deserialize_with = "time")]
    pub(super) time: Option<Timestamp>,
    pub(super) level: Option<String>,
    #[serde(default)]
    pub(super) fields: Fields,
    /// The line was too long, and is not all here.
    #[serde(default)]
    pub(super) cut: bool,
}

/// Those that are counted. Formats have more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    pub(super) status: Option<u64>,
    pub(super) path: Option<String>,
    pub(super) client: Option<String>,
    pub(super) action: Option<String>,
    pub(super) package: Option<String>,
    pub(super) program: Option<String>,
    pub(super) host: Option<String>,
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}
