//! Every maximum of the command, with its unit.

use std::time::Duration;

/// Bytes of JSON read from a file or stdin, before its white space is taken
/// out. What is sent is held to the limit of the wire.
pub(crate) const MAX_JSON_TEXT: u64 = 16 * 1024 * 1024;

/// How long a call goes without a worker before the user is told.
pub(crate) const NO_WORKER_AFTER: Duration = Duration::from_secs(1);

/// How long Ctrl-C waits for the broker to take the cancel.
pub(crate) const CANCEL_WITHIN: Duration = Duration::from_secs(5);

/// How long `doctor` waits for a name, a connection or a handshake …
pub(crate) const DOCTOR_CONNECT: Duration = Duration::from_secs(3);
/// … and for an answer, the welcome included, which a client tries for 5 s to get.
pub(crate) const DOCTOR_ANSWER: Duration = Duration::from_secs(10);

/// Ready tasks whose names `doctor` looks at.
pub(crate) const DOCTOR_TASKS: u32 = 1000;

/// How long a task waits for a reader unless another time is asked for, which the
/// broker sees to.
pub(crate) const DETACH_GRACE: Duration = Duration::from_secs(30);

/// How long a command that leaves a stream waits for what it has to be written.
pub(crate) const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// Characters of a name in a column of `task ls`.
pub(crate) const NAME_COLUMN: usize = 32;

/// Cancels under way at a time, where many calls are to be ended.
pub(crate) const CANCELS: usize = 256;

/// How often a verb over many tasks says how far it is.
pub(crate) const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Bytes of items gathered before they are written, while more are at hand.
pub(crate) const OUTPUT_BUFFER: usize = 64 * 1024;

/// Lines of input read before they are asked for. Each may be as large as a
/// payload, so there are few.
pub(crate) const LINES_READ_AHEAD: usize = 4;

/// Tasks enqueued and not acknowledged …
pub(crate) const ENQUEUES_IN_FLIGHT: usize = 1024;
/// … and the bytes of their arguments, the largest of which must fit.
pub(crate) const ENQUEUE_BYTES_IN_FLIGHT: usize = 16 * 1024 * 1024;

/// Log files of one `demo logs`.
pub(crate) const MAX_LOG_FILES: usize = 100_000;
/// Different values of a field whose counts are kept …
pub(crate) const MAX_TOP_VALUES: usize = 10_000;
/// … and the bytes of each.
pub(crate) const MAX_TOP_VALUE_BYTES: usize = 200;
/// Steps of time in which rows of one format are counted.
pub(crate) const MAX_BUCKETS: usize = 4096;

/// Characters of what `task history` says of a step, so that it fits into 80 columns.
pub(crate) const HISTORY_COLUMN: usize = 38;
