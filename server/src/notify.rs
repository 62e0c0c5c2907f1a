//! What the service manager is told (`sd_notify`): nothing, where none asked by
//! `NOTIFY_SOCKET`. The broker starts no processes that could inherit that.

use std::sync::OnceLock;

use sd_notify::NotifyState::{self, Ready, Reloading, Status, Stopping, Watchdog};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::health::Health;

/// How often the watchdog is fed in the time after which it bites.
const FEEDS: u32 = 3;

/// The broker reads its store.
pub fn opening() {
    tell(&[Status("opening the store")]);
}

/// Where the broker serves, for as long as it does.
static SERVING: OnceLock<String> = OnceLock::new();

/// The broker serves; `status` says where.
pub fn ready(status: &str) {
    tell(&[Ready, Status(SERVING.get_or_init(|| status.to_owned()))]);
}

/// The broker reads certificates and tokens again; [`reloaded`] comes next.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[Reloading, now, Status("reading certificates and tokens again")]),
        Err(_) => tell(&[Reloading]),
    }
}

/// The broker serves as before, after what `status` says.
pub fn reloaded(status: &str) {
    let status = match SERVING.get() {
        Some(serving) => format!("{serving}; {status}"),
        None => status.to_owned(),
    };
    tell(&[Ready, Status(&status)]);
}

/// The broker drains.
pub fn stopping() {
    tell(&[
        Stopping,
        Status("draining: what was taken in is made durable and answered"),
    ]);
}

/// Feeds the watchdog, if the service manager has one, for as long as the loop
/// goes round.
pub async fn feed_watchdog(health: Health) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut feeding = tokio::time::interval(limit / FEEDS);
    // After a sleep one is enough.
    feeding.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        feeding.tick().await;
        if health.is_alive().await {
            tell(&[Watchdog]);
        } else {
            warn!("the loop stands still: the service manager's watchdog is not fed");
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager does not listen");
    }
}
