//! Every maximum and every time the worker keeps, with its unit.

use std::time::Duration;

/// Transfers on the data connection at a time, each of at most
/// [`MAX_PAYLOAD_BYTES`](asynq_proto::limits::MAX_PAYLOAD_BYTES).
pub(crate) const MAX_TRANSFERS: usize = 8;
/// Outcomes the broker has not acknowledged. At this many the worker takes no
/// further outcome from its runs, so that they keep their slots and no new ones come.
pub(crate) const MAX_UNACKED: usize = 65_536;
/// Bytes of results the broker has not acknowledged; the same holds.
pub(crate) const MAX_UNACKED_BYTES: usize = 64 * 1024 * 1024;
/// Calls all runs of the worker may wait for at a time: as many as the broker takes of
/// one session.
pub(crate) const MAX_OPEN_CALLS: usize = 65_536;
/// Runs the runtime takes over from the wire in one go.
pub(crate) const STARTS: usize = 64;
/// Outcomes on their way from the runs to the wire.
pub(crate) const REPORTS: usize = 1024;
/// How long an idle thread of a blocking handler waits for the next run.
pub(crate) const THREAD_IDLE: Duration = Duration::from_secs(10);
/// How often the lease is looked at; timers of the runtime sleep through a suspend.
pub(crate) const LEASE_CHECK: Duration = Duration::from_secs(1);
/// How long a run that was told to stop may go on, unless said otherwise; then it
/// is abandoned. A program of worker.toml has 5 s before it is killed, so it ends before.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(6);
/// The shortest of these: a handler needs some time to be dropped.
pub(crate) const MIN_KILL_GRACE: Duration = Duration::from_millis(10);
/// Beyond the grace of a kill, how long a run waits for a slot that somebody holds who
/// should not; then it is given back, to be run elsewhere.
pub(crate) const SLOT_SLACK: Duration = Duration::from_secs(1);
/// A run that asks for more time is given at least this much beyond it, or an eighth of
/// what it asks for if that is more, and asks again no sooner than that is used up.
pub(crate) const EXTEND_SLACK: Duration = Duration::from_secs(1);
/// With `exit_when_idle`: how long there must be nothing to do.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// How long a drain waits for runs to finish, unless said otherwise.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The last part of a drain is for what did not finish: this long, but never
/// more than a quarter of the drain. In its first half such runs may stop by
/// themselves, then they are given back.
pub(crate) const DRAIN_FLUSH: Duration = Duration::from_secs(1);
/// A closed request stream whose broker does not close its own is given up after this.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);
/// A broker that accepted a connection must welcome the worker within this.
pub(crate) const WELCOME: Duration = Duration::from_secs(5);
/// Bytes of items gathered into one batch. An item that is larger alone, up to
/// [`MAX_PAYLOAD_BYTES`](asynq_proto::limits::MAX_PAYLOAD_BYTES), is a batch of its own.
pub(crate) const MAX_ITEM_BATCH_BYTES: usize = 64 * 1024;
/// Checkpoints of a run that are kept for a broker that is restarted …
pub(crate) const KEPT_CHECKPOINTS: usize = 8;
/// … and the bytes of their tokens.
pub(crate) const KEPT_CHECKPOINT_BYTES: usize = 256 * 1024;
/// A run that has waited this long for its reader lends its slot.
pub(crate) const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// Longest side of a picture of `mandelbrot`, in pixels: a row of it is an item
/// of 256 KiB.
pub(crate) const MAX_PICTURE_SIDE: u32 = 65_535;

/// Most iterations for a point of `mandelbrot`: some milliseconds for one that needs all.
pub(crate) const MAX_ITERATIONS: u32 = 1_000_000;

/// Bytes of a path that a builtin is to read: as many as Linux takes.
pub(crate) const MAX_PATH_BYTES: usize = 4096;

/// Bytes of a file that `sha256` reads at a time, and may take to hear of a stop.
pub(crate) const DIGEST_READ_BYTES: usize = 1024 * 1024;

/// Bytes of a file that `scan` reads at a time.
pub(crate) const SCAN_READ_BYTES: usize = 64 * 1024;

/// Bytes of a line that `scan` reads; the rest is cut off.
pub(crate) const MAX_LOG_LINE_BYTES: usize = 64 * 1024;

/// Bytes at the beginning of a file among which a NUL says that it is no text.
pub(crate) const TEXT_CHECK_BYTES: usize = 8 * 1024;

/// Bytes of text that may come from one byte of a compressed file. Logs give 5
/// to 50, gzip can give 1,032: a small file would keep a slot for hours.
pub(crate) const MAX_GZIP_RATIO: u64 = 200;

/// Bytes of text from where on that is looked at.
pub(crate) const GZIP_RATIO_FROM: u64 = 16 * 1024 * 1024;

/// Lines at the beginning of a file that say which format it has.
pub(crate) const DETECT_LINES: usize = 64;
