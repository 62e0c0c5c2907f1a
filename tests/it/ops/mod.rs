//! What operators need: the HTTP port, figures, the service manager, units, logs.

mod guide;
mod http;
mod logs;
mod metrics;
mod notify;
mod units;
