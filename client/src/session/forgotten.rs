//! Callers who stop waiting: how the driver learns of them without their waiting for it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Calls whose callers have gone. Bounded by the number of calls there are.
#[derive(Default)]
pub(super) struct Forgotten {
    calls: Mutex<Vec<u64>>,
    some: Notify,
}

impl Forgotten {
    fn push(&self, call: u64) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.some.notify_one();
    }

    /// Waits until there are some.
    pub(super) async fn take(&self) -> Vec<u64> {
        self.some.notified().await;
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An operation somebody awaits; dropped unanswered, it is withdrawn.
pub(super) struct Asked<'a> {
    call: u64,
    forgotten: &'a Forgotten,
    unanswered: bool,
}

impl<'a> Asked<'a> {
    pub(super) const fn new(call: u64, forgotten: &'a Forgotten) -> Self {
        Self {
            call,
            forgotten,
            unanswered: true,
        }
    }

    pub(super) fn answered(mut self) {
        self.unanswered = false;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.unanswered {
            self.forgotten.push(self.call);
        }
    }
}
