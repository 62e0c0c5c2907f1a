//! Every maximum of the command, with its unit.

use std::time::Duration;

/// Bytes of JSON read from a file or stdin, before its white space is taken
/// out. What is sent is held to the limit of the wire.
pub(crate) const MAX_JSON_TEXT: u64 = 16 * 1024 * 1024;

/// How long a call goes without a worker before the user is told.
pub(crate) const NO_WORKER_AFTER: Duration = Duration::from_secs(1);

/// How long Ctrl-C waits for the broker to take the cancel.
pub(crate) const CANCEL_WITHIN: Duration = Duration::from_secs(5);
