//! Every maximum and every time that runs of programs keep, with its unit.

use std::time::Duration;

use asynq_proto::limits::{MAX_FAILURE_BYTES, MAX_PAYLOAD_BYTES};

/// Bytes of a program's whole output, where that is one result; of one item;
/// and of the items of a called iterator together.
pub(super) const MAX_OUTPUT_BYTES: usize = MAX_PAYLOAD_BYTES;
/// Bytes of one line: the largest item and what is around it.
pub(super) const MAX_LINE_BYTES: usize = MAX_PAYLOAD_BYTES + 1024;
/// Bytes read from a pipe at a time; as many as a pipe holds.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Bytes kept of what a program says on stderr, from its end.
pub(super) const STDERR_TAIL_BYTES: usize = MAX_FAILURE_BYTES;
/// Bytes of the last line of stderr that a failure's message repeats.
pub(super) const LAST_WORDS_BYTES: usize = 300;

/// Between SIGTERM and SIGKILL.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(5);
/// The same once the worker's own time is up: less than the last part of a
/// drain, because the daemon takes all programs with it when it ends.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_millis(400);
/// A pipe whose program is gone, and that has nothing to read for this long, is
/// held open by something that has left the program's process group.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// Between two looks whether anything is left of a process group that was told to end.
pub(super) const GROUP_LOOK: Duration = Duration::from_millis(5);
/// The broker ends runs whose time is up. If nothing is heard of it for this
/// long, the worker does.
pub(super) const BROKER_SLACK: Duration = Duration::from_secs(1);
/// How long a new guard may take to say that it has begun: milliseconds, on a
/// machine that is not overrun.
pub(super) const GUARD_BEGINS: Duration = Duration::from_secs(10);
