//! Every maximum of the wire, with its unit, and the times its two ends keep.
//!
//! The broker repeats the ones it decides by in `asynq_core::limits`, because
//! the core depends on nothing; a test of the server holds the two together.

use std::time::Duration;

/// Bytes of one payload: the arguments of a task, or its result.
pub const MAX_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;
/// Payloads of up to this many bytes ride in the session's own messages;
/// larger ones travel on the data connection.
pub const INLINE_BYTES: usize = 64 * 1024;
/// Bytes of one gRPC message either end takes: the largest payload and what is
/// around it, with room to spare.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Operations, answers or outcomes gathered into one session message.
pub const MAX_BATCH_OPS: usize = 512;
/// Bytes of the token of a checkpoint.
pub const MAX_CHECKPOINT_BYTES: usize = 64 * 1024;
/// Bytes gathered into one session message. The last thing put in may exceed
/// it, by at most [`INLINE_BYTES`] and one token of a checkpoint.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Bytes of a task, queue, series or worker name.
pub const MAX_NAME_BYTES: usize = 200;
/// Bytes of an idempotency key; the least is 1.
pub const MAX_KEY_BYTES: usize = 200;
/// Runs one worker may hold at a time; the least is 1.
pub const MAX_SLOTS: u32 = 65_536;
/// Task names one worker may register.
pub const MAX_DECLARATIONS: usize = 10_000;
/// Largest number of attempts, and of timeouts, a task may ask for.
pub const MAX_BUDGET: u32 = 1_000;
/// Tasks a caller may ask for with one listing; the least is 1 …
pub const MAX_LIST_TASKS: u32 = 10_000;
/// … and how many it gets if it says nothing of it.
pub const DEFAULT_LIST_TASKS: u32 = 50;
/// Tasks one call retries or purges; the least is 1.
pub const MAX_TASKS_PER_CALL: usize = 1_000;
/// Bytes of a failure's message, and of its trace.
pub const MAX_FAILURE_BYTES: usize = 8 * 1024;
/// Longest delay, timeout or time to live: ten years.
pub const MAX_DURATION: Duration = Duration::from_hours(10 * 366 * 24);

/// Tasks one run may have called and wait for at a time.
pub const MAX_CALLS: usize = 1_000;
/// Tasks one run may spawn with its completion.
pub const MAX_SPAWNED: usize = 1_000;
/// Bytes of the arguments of all of them. They travel with the result.
pub const MAX_SPAWNED_BYTES: usize = 2 * 1024 * 1024;

/// Bytes an HTTP/2 stream may have in flight, unread.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes an HTTP/2 connection may have in flight, unread. Small ones let a few
/// unread streams freeze all others.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams a broker lets one connection have open.
pub const MAX_CONCURRENT_STREAMS: u32 = 10_000;
/// How often either end pings an HTTP/2 connection …
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// … and how long it waits for the answer before it closes it.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one attempt to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The first reconnect waits a random time up to this; each further one up to
/// twice as long …
pub const BACKOFF_BASE: Duration = Duration::from_millis(50);
/// … but never longer than this.
pub const BACKOFF_CAP: Duration = Duration::from_millis(500);
