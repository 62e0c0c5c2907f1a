//! Every maximum of the client, with its unit.

use std::time::Duration;

/// How long [`crate::Client::connect`] tries to reach a broker.
pub const FIRST_CONNECT: Duration = Duration::from_secs(5);

/// How long an operation goes without a broker before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a broker may take to welcome a session.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(2);

/// Pause before an operation goes again to a broker that said "not now".
pub(crate) const RESEND_PAUSE: Duration = Duration::from_millis(500);

/// Operations handed over by callers and not yet taken up by the session.
pub(crate) const REQUEST_QUEUE: usize = 1024;
