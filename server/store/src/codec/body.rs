//! The bodies of records, as protocol buffers. Numbers are never used again.
//! Times are µs since the Unix epoch, lengths of time are ns (up to 584 years).

mod fields;
mod read;
mod write;

pub(super) use fields::{Fields, ROOM_FIELD_BYTES};
pub(super) use write::write_task;

/// A task, but for its id and the time of its acceptance.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Task {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    queue: String,
    #[prost(string, tag = "3")]
    series: String,
    #[prost(string, tag = "4")]
    content_type: String,
    #[prost(uint64, tag = "5")]
    payload_bytes: u64,
    #[prost(fixed64, tag = "6")]
    digest: u64,
    #[prost(uint64, optional, tag = "7")]
    start_at: Option<u64>,

    #[prost(sint32, tag = "10")]
    niceness: i32,
    /// 0 fair, 1 next, 2 last.
    #[prost(uint32, tag = "11")]
    placement: u32,
    #[prost(uint64, optional, tag = "12")]
    start_before: Option<u64>,
    #[prost(uint64, optional, tag = "13")]
    timeout: Option<u64>,
    #[prost(uint64, optional, tag = "14")]
    deadline: Option<u64>,
    #[prost(uint32, optional, tag = "15")]
    max_attempts: Option<u32>,
    #[prost(uint32, optional, tag = "16")]
    max_timeouts: Option<u32>,
    #[prost(uint64, optional, tag = "17")]
    result_ttl: Option<u64>,
    #[prost(bool, tag = "18")]
    stream: bool,
    #[prost(bool, tag = "19")]
    at_most_once: bool,

    /// As the column `state` of the schema.
    #[prost(uint32, tag = "20")]
    state: u32,
    /// Scheduled: due. Ended: when.
    #[prost(uint64, tag = "21")]
    at: u64,
    /// Running, stopping: whose.
    #[prost(bytes = "vec", tag = "22")]
    session: Vec<u8>,
    /// Running, stopping, ended: since when; absent if never.
    #[prost(uint64, optional, tag = "23")]
    started_at: Option<u64>,
    /// Stopping: 1 timeout, 2 deadline, 3 cancel.
    #[prost(uint32, tag = "24")]
    intent: u32,
    /// Dead: 1 error, 2 rejected, 3 timeout, 4 poison, 5 worker lost,
    /// 6 non-deterministic.
    #[prost(uint32, tag = "25")]
    reason: u32,
    #[prost(message, optional, tag = "26")]
    result: Option<ResultBody>,
    /// Ended: who had it then.
    #[prost(string, tag = "27")]
    worker: String,

    #[prost(uint64, tag = "30")]
    epoch: u64,
    #[prost(uint32, tag = "31")]
    attempt: u32,
    #[prost(uint32, tag = "32")]
    failures: u32,
    #[prost(uint32, tag = "33")]
    timeouts: u32,
    #[prost(uint32, tag = "34")]
    crashes: u32,
    #[prost(uint32, tag = "35")]
    losses: u32,
    #[prost(uint32, tag = "36")]
    releases: u32,
    #[prost(message, optional, tag = "37")]
    failure: Option<FailureBody>,
    #[prost(message, repeated, tag = "38")]
    notes: Vec<NoteBody>,
    /// Empty for none.
    #[prost(string, tag = "39")]
    key: String,
    /// Ended: which task took its key; empty for none.
    #[prost(bytes = "vec", tag = "40")]
    replaced_by: Vec<u8>,
    /// Ended: this is what a purge has left.
    #[prost(bool, tag = "41")]
    purged: bool,
    #[prost(message, optional, tag = "45")]
    called_by: Option<CallerBody>,
    /// Running, stopping: longest time of this attempt, if its handler asked for more.
    #[prost(uint64, optional, tag = "50")]
    extended: Option<u64>,
    /// Running, stopping: what becomes of its stream if it is lost: 0 it is dead, 1
    /// it is replayed, 2 it goes on from its checkpoint.
    #[prost(uint32, tag = "51")]
    on_loss: u32,
    #[prost(message, optional, tag = "55")]
    checkpoint: Option<CheckpointBody>,
}

/// The run that called a task.
#[derive(Clone, PartialEq, prost::Message)]
struct CallerBody {
    #[prost(bytes = "vec", tag = "1")]
    task: Vec<u8>,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(uint32, tag = "4")]
    n: u32,
    #[prost(uint32, tag = "5")]
    depth: u32,
}

/// Where the generator of a stream can begin again.
#[derive(Clone, PartialEq, prost::Message)]
struct CheckpointBody {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(bytes = "bytes", tag = "2")]
    token: bytes::Bytes,
}

/// What is known of a result.
#[derive(Clone, PartialEq, prost::Message)]
struct ResultBody {
    #[prost(uint64, tag = "1")]
    bytes: u64,
    #[prost(string, tag = "2")]
    content_type: String,
    #[prost(uint64, tag = "3")]
    until: u64,
}

/// The last failure.
#[derive(Clone, PartialEq, prost::Message)]
struct FailureBody {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(string, tag = "3")]
    trace: String,
    #[prost(bool, tag = "4")]
    retryable: bool,
}

/// A step of a task's life.
#[derive(Clone, PartialEq, prost::Message)]
struct NoteBody {
    #[prost(uint64, tag = "1")]
    at: u64,
    /// As the column `state` of the schema.
    #[prost(uint32, tag = "2")]
    from: u32,
    #[prost(uint32, tag = "3")]
    to: u32,
    #[prost(uint64, optional, tag = "4")]
    until: Option<u64>,
    /// 1 enqueued, and so on in the order of `Cause::ALL`.
    #[prost(uint32, tag = "5")]
    cause: u32,
    #[prost(uint32, tag = "6")]
    attempt: u32,
    #[prost(string, tag = "7")]
    worker: String,
    #[prost(uint64, optional, tag = "8")]
    started_at: Option<u64>,
    #[prost(string, tag = "9")]
    message: String,
    #[prost(uint32, tag = "10")]
    left_out: u32,
}

/// A session, but for its id and the time of its opening.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Session {
    #[prost(string, tag = "1")]
    pub(super) worker: String,
}

/// What a queue was told to be; unset is the default.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct QueueSettings {
    #[prost(bool, tag = "1")]
    pub(super) fast_requeue: bool,
}

/// What to read a payload's media type from, without the rest of its task.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MediaTypes {
    #[prost(string, tag = "4")]
    pub(super) payload: String,
    #[prost(message, optional, tag = "26")]
    result: Option<ResultBody>,
}

/// What to tell tasks apart by without the rest of them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Labels {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) series: String,
}

impl MediaTypes {
    pub(super) fn result(self) -> String {
        self.result.map(|result| result.content_type).unwrap_or_default()
    }
}
