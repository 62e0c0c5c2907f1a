//! Every maximum and every default of the broker, with its unit.

use std::time::Duration;

/// Bytes of a task, queue or series name.
pub const MAX_NAME_BYTES: usize = 200;
/// Bytes of an idempotency key.
pub const MAX_KEY_BYTES: usize = 200;
/// Tasks with a key that a broker holds and that have not ended: at most 600 MB of keys.
pub const MAX_LIVE_KEYS: usize = 2_000_000;
/// Tasks a broker holds that have not ended. At about 130 bytes each this is
/// the memory bound of goals.md for a deep queue, twice over; those that have run
/// before take more, up to 30 KiB with their notes and a long failure.
pub const MAX_LIVE_TASKS: usize = 20_000_000;
/// A run that succeeded, and that fails because what it spawns has no place, is tried
/// so often at least: room may come.
pub const MIN_ATTEMPTS_AT_LIMIT: u32 = 3;
/// Queues of one broker.
pub const MAX_QUEUES: usize = 10_000;
/// Worker sessions of one broker, lost ones included while their lease runs.
pub const MAX_SESSIONS: usize = 100_000;
/// Runs one session may hold at a time.
pub const MAX_SLOTS: u32 = 65_536;
/// Task names one worker may register.
pub const MAX_DECLARATIONS: usize = 10_000;
/// Bytes of a failure's message and of its trace, each.
pub const MAX_FAILURE_BYTES: usize = 8 * 1024;
/// What is noted of one task's history: so many entries …
pub const MAX_NOTES: usize = 64;
/// … the first ones of which stay; of the others the latest do.
pub const FIRST_NOTES: usize = 8;
/// Bytes of the message of one of them.
pub const MAX_NOTE_BYTES: usize = 200;
/// Largest attempt, timeout and loss budget.
pub const MAX_BUDGET: u32 = 1_000;
/// Longest delay, timeout or time to live.
pub const MAX_DURATION: Duration = Duration::from_hours(10 * 366 * 24);

/// Runs that may wait for each other in a row: one calls, what it has called calls
/// again, and so on.
pub const MAX_CALL_DEPTH: u32 = 100;
/// Tasks one run may have called and wait for at a time.
pub const MAX_CALLS: usize = 1_000;
/// Tasks all runs of one session may have called and wait for at a time.
pub const MAX_SESSION_CALLS: u32 = 65_536;
/// Where so many runs of a session wait, beyond its slots, their slots go only to
/// tasks that runs wait for: else every task of a deep queue might begin, and wait.
pub const WAITING_RUNS: u32 = 1_024;
/// Tasks one run may spawn with its completion.
pub const MAX_SPAWNED: usize = 1_000;

/// How long a session lives without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often a worker sends a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// A worker ends its runs this long before its lease would.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// After a reset or end of file, how long a session's runs wait for it to resume.
pub const RESET_GRACE: Duration = Duration::from_secs(5);
/// After a restart, how long recovered tasks wait for known sessions to resume.
pub const RESUME_GRACE: Duration = Duration::from_secs(2);
/// Grants of one task that may have gone unwritten before a restart: a token
/// further ahead is no token of ours.
pub const MAX_UNWRITTEN_GRANTS: u32 = 1_000;
/// A run this old gets a durable claim with the next commit.
pub const CLAIM_AFTER: Duration = Duration::from_millis(50);

/// Failures allowed unless the task or its worker says otherwise.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 1;
/// Timeouts allowed unless the task says otherwise.
pub const DEFAULT_MAX_TIMEOUTS: u32 = 1;
/// Processes that may die under a task before it counts as poison.
pub const MAX_CRASHES: u32 = 3;
/// Sessions that may end under a task before it counts as poison.
pub const MAX_LOSSES: u32 = 20;
/// Sessions that may end under a task before it is to run alone.
pub const LOSSES_BEFORE_ALONE: u32 = 2;
/// How long at most a worker is kept free of other tasks for one that is to run alone.
pub const SET_ASIDE: Duration = Duration::from_secs(10);
/// A retry waits a random time up to this, doubled with every failure …
pub const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// … but never more than this.
pub const BACKOFF_CAP: Duration = Duration::from_mins(5);
/// How long a result is kept.
pub const DEFAULT_RESULT_TTL: Duration = Duration::from_hours(1);
/// A result larger than this, in bytes, does not ride with the news of its
/// task's end: the wire's limit for values in messages …
pub const LARGE_RESULT_BYTES: u64 = 64 * 1024;
/// … so it is kept for at least this long, whatever its time to live.
pub const FETCH_GRACE: Duration = Duration::from_mins(1);
/// How long a dead task is kept.
pub const DEAD_TTL: Duration = Duration::from_hours(7 * 24);
/// How long at least the id of a finished task is remembered.
pub const MIN_DEDUP_TTL: Duration = Duration::from_hours(1);
/// A stream whose reader has lost its connection waits for it this long, if the
/// reader did not say otherwise.
pub const DETACH_GRACE: Duration = Duration::from_secs(30);
/// The longest a reader can ask for.
pub const MAX_DETACH_GRACE: Duration = Duration::from_hours(24);
/// Bytes of the token of a checkpoint.
pub const MAX_CHECKPOINT_BYTES: usize = 64 * 1024;
/// Checkpoints of one stream that are kept beside the one that is written …
pub const KEPT_CHECKPOINTS: usize = 8;
/// … and the bytes of their tokens.
pub const KEPT_CHECKPOINT_BYTES: usize = 256 * 1024;
/// How long a checkpoint whose items have been acknowledged waits to be written; the
/// last there is by then is.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Items of one stream that are kept, whatever credit there is: the largest window
/// an SDK asks for.
pub const MAX_STREAM_ITEMS: u64 = 65_536;
/// The same in bytes: two of the largest items, so that any one fits beside another.
pub const MAX_STREAM_BYTES: u64 = 8 * 1024 * 1024;
