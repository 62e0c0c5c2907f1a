//! Whether the broker lives, and whether it does its work: what `/healthz`,
//! `/readyz` and the service manager are told.

use std::sync::{Arc, OnceLock};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, End};
use crate::limits::READY_TIMEOUT;
use crate::server::Server;

/// Why the broker does not do its work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Tasks are being read.
    #[error("the store is being opened")]
    Opening,
    /// It was asked to stop.
    #[error("the broker is shutting down")]
    Draining,
    /// Nothing is acknowledged any more.
    #[error("the store failed; the log says why, and the broker ends")]
    StoreFailed,
    /// The loop hangs, or has more to do than it can.
    #[error(
        "the broker has not answered within {READY_TIMEOUT:?}: its disk or its processors have more to do than they can \
         (asynq_commit_seconds and asynq_loop_turn_seconds in /metrics)"
    )]
    Busy,
}

/// Tells how a broker is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    broker: OnceLock<Broker>,
    stopping: CancellationToken,
}

impl Health {
    /// Of a broker that is being opened, and will stop at `stopping`.
    #[must_use]
    pub fn new(stopping: CancellationToken) -> Self {
        let broker = OnceLock::new();
        Self(Arc::new(Shared { broker, stopping }))
    }

    /// It is open.
    pub fn opened(&self, server: &Server) {
        self.0.broker.get_or_init(|| server.broker().clone());
    }

    pub(crate) fn broker(&self) -> Option<&Broker> {
        self.0.broker.get()
    }

    /// Whether the loop goes round; yes while it has yet to begin.
    pub async fn is_alive(&self) -> bool {
        match self.broker() {
            Some(broker) => broker.goes_round().await,
            None => true,
        }
    }

    /// Whether tasks are taken in and handed out.
    ///
    /// # Errors
    /// Why not.
    pub async fn is_ready(&self) -> Result<(), NotReady> {
        let broker = self.broker().ok_or(NotReady::Opening)?;
        match broker.is_over() {
            Some(End::StoreFailed) => return Err(NotReady::StoreFailed),
            Some(_) => return Err(NotReady::Draining),
            None if self.0.stopping.is_cancelled() => return Err(NotReady::Draining),
            None => {}
        }
        match timeout(READY_TIMEOUT, broker.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(NotReady::Draining),
            Err(_) => Err(NotReady::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use asynq_core::Timestamp;

    use super::*;
    use crate::clock::ManualClock;
    use crate::limits::MAX_SILENCE;
    use crate::server::Backing;

    async fn opened(stop: &CancellationToken) -> (Health, Server) {
        let health = Health::new(stop.clone());
        assert_eq!(health.is_ready().await, Err(NotReady::Opening));
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
        let server = Server::open(Backing::memory(), clock).await.unwrap();
        health.opened(&server);
        (health, server)
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_told() {
        let (health, _server) = opened(&CancellationToken::new()).await;
        assert!(health.is_alive().await, "it may not have begun yet");
        tokio::time::advance(MAX_SILENCE + Duration::from_millis(1)).await;
        assert!(!health.is_alive().await);
        assert_eq!(health.is_ready().await, Err(NotReady::Busy));
    }

    // On real time: the store's thread does not wait for a paused one.
    #[tokio::test]
    async fn a_loop_that_goes_round_is_ready_until_it_is_to_stop() {
        let stop = CancellationToken::new();
        let (health, server) = opened(&stop).await;
        let nobody = futures_util::stream::pending::<tokio::io::DuplexStream>();
        let serving = tokio::spawn(server.serve(nobody, stop.clone()));
        assert_eq!(health.is_ready().await, Ok(()));
        assert!(health.is_alive().await);
        stop.cancel();
        assert_eq!(health.is_ready().await, Err(NotReady::Draining));
        serving.await.unwrap().unwrap();
        assert_eq!(health.is_ready().await, Err(NotReady::Draining));
        assert!(health.is_alive().await, "an end in good order is no fault");
    }

    #[tokio::test]
    async fn a_failed_store_is_told() {
        let (health, server) = opened(&CancellationToken::new()).await;
        server.broker().end(End::StoreFailed);
        assert_eq!(health.is_ready().await, Err(NotReady::StoreFailed));
    }
}
