//! What the service manager is told (`sd_notify`): nothing, where none asked by
//! `NOTIFY_SOCKET`. Programs of exec tasks do not inherit that: their
//! environment is made anew.

use sd_notify::NotifyState::{self, Ready, Status, Stopping};

/// The worker is registered, and takes tasks.
pub(crate) fn ready(status: &str) {
    tell(&[Ready, Status(status)]);
}

/// The worker drains.
pub(crate) fn stopping() {
    tell(&[Stopping, Status("draining: takes nothing new, lets finish what runs")]);
}

/// What goes on, in a line.
pub(crate) fn status(status: &str) {
    tell(&[Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
