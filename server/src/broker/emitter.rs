//! One Emit stream of a worker: what it says of its run's items, and what it is
//! told: how far it may go, and what became of its end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use asynq_core::{Checkpoint, Credit, EmitResume, Failure, ItemBatch, LeaseToken, SessionId, Verdict};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::error::{End, Error};

/// Which run an Emit stream is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmitRun {
    pub(crate) session: SessionId,
    pub(crate) token: LeaseToken,
}

/// One frame of an Emit stream, checked.
#[derive(Debug)]
pub(crate) enum Emission {
    /// The stream is there: the run's first, or another one after that broke.
    Opened(Option<EmitResume>),
    /// Items within the credit.
    Items(ItemBatch),
    /// The generator can begin again there.
    Checkpoint(Checkpoint),
    /// Nothing more may be sent with this credit.
    Blocked(Credit),
    /// That many items were all, with that digest.
    End(u64, Option<u64>),
    /// The generator failed after the items sent.
    Failed(Failure),
    /// The process of the generator died after the items sent.
    Crashed(Failure),
}

impl Emission {
    /// Bytes of the items, or of the failure, it carries.
    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Items(batch) => batch.data.len(),
            Self::Checkpoint(checkpoint) => checkpoint.token.len(),
            Self::Failed(failure) | Self::Crashed(failure) => failure.message.len() + failure.trace.len(),
            Self::Opened(_) | Self::Blocked(_) | Self::End(..) => 0,
        }
    }

    /// Nothing follows it.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::End(..) | Self::Failed(_) | Self::Crashed(_))
    }
}

/// What an Emit stream is told next: only the latest counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) credit: Option<Credit>,
    pub(crate) verdict: Option<Verdict>,
    /// The first item to be sent, after an Emit broke.
    pub(crate) from: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Emitter {
    inner: Mutex<Inner>,
    ready: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    next: Control,
    end: Option<Error>,
}

impl Emitter {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            ready: Notify::new(),
            closed: CancellationToken::new(),
        }
    }

    /// The run may go this far. Replaces what has not been taken yet.
    pub(super) fn credit(&self, credit: Credit) {
        self.lock().next.credit = Some(credit);
        self.ready.notify_one();
    }

    /// The run is to go on from this item.
    pub(super) fn send_from(&self, from: u64) {
        self.lock().next.from = Some(from);
        self.ready.notify_one();
    }

    /// What became of the end, or of the whole run: the last word.
    pub(super) fn acknowledge(&self, verdict: Verdict) {
        self.lock().next.verdict = Some(verdict);
        self.end(End::Done);
    }

    /// Nothing more is told or heard. The first end counts.
    pub(crate) fn end(&self, end: impl Into<Error>) {
        self.lock().end.get_or_insert_with(|| end.into());
        self.closed.cancel();
        self.ready.notify_one();
    }

    /// Until it has ended.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Waits for something to tell; or says why there is nothing more. For one
    /// taker.
    pub(crate) async fn take(&self) -> Result<Control, Error> {
        loop {
            if let Some(next) = self.try_take() {
                return next;
            }
            self.ready.notified().await;
        }
    }

    fn try_take(&self) -> Option<Result<Control, Error>> {
        let mut inner = self.lock();
        let next = std::mem::take(&mut inner.next);
        if next == Control::default() {
            return inner.end.clone().map(Err);
        }
        Some(Ok(next))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held, so the contents are sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use asynq_core::StateName;
    use futures_util::FutureExt;

    use super::*;

    fn credit(limit_index: u64) -> Credit {
        Credit {
            limit_index,
            ..Credit::default()
        }
    }

    #[test]
    fn only_the_latest_credit_is_told() {
        let emitter = Emitter::new();
        assert_eq!(emitter.take().now_or_never(), None);
        (1..=3).for_each(|n| emitter.credit(credit(n)));
        let told = emitter.take().now_or_never().unwrap().unwrap();
        assert_eq!((told.credit, told.verdict), (Some(credit(3)), None));
        assert_eq!(emitter.take().now_or_never(), None);
    }

    #[test]
    fn the_verdict_comes_before_the_end() {
        let emitter = Emitter::new();
        let verdict = Verdict::Accepted(StateName::Succeeded);
        emitter.acknowledge(verdict);
        emitter.end(End::ShuttingDown);
        let told = emitter.take().now_or_never().unwrap().unwrap();
        assert_eq!(told.verdict, Some(verdict));
        assert_eq!(emitter.take().now_or_never(), Some(Err(End::Done.into())));
        assert!(emitter.closed().now_or_never().is_some());
    }
}
