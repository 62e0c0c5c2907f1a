//! Every maximum of the client, with its unit.

use std::time::Duration;

/// How long [`crate::Client::connect`] tries to reach a broker.
pub const FIRST_CONNECT: Duration = Duration::from_secs(5);

/// How long an operation goes without a broker before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a broker may take to welcome a session.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(2);

/// How long a stream must stay open for its broker to count as one that is there,
/// if nothing comes meanwhile.
pub(crate) const STREAM_HELD: Duration = Duration::from_secs(5);

/// The longest a task may wait for a reader whose connection is lost.
pub(crate) const MAX_DETACH_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Pause before an operation goes again to a broker that said "not now" and not
/// for how long.
pub(crate) const RESEND_PAUSE: Duration = Duration::from_millis(500);

/// Operations handed over by callers and not yet taken up by the session.
pub(crate) const REQUEST_QUEUE: usize = 1024;

/// Cancels of one listing that are under way at a time.
pub(crate) const CANCELS_UNDER_WAY: usize = 512;

/// Items a worker may run ahead of a reader who says nothing of it, to begin with …
pub(crate) const AUTO_WINDOW: u32 = 256;
/// … and at most, once the reader has shown that it is faster.
pub(crate) const AUTO_WINDOW_GROWN: u32 = 4096;
/// The most items a reader may let a worker run ahead.
pub(crate) const MAX_WINDOW: u32 = 65_536;

/// Tasks a map has under way, or done and not read, if it says nothing of it …
pub(crate) const LOOK_AHEAD: usize = 256;
/// … and at most.
pub(crate) const MAX_LOOK_AHEAD: usize = 65_536;
