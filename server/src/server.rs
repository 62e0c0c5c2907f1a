//! A whole broker: a store, the loop over it, and connections to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use asynq_store::{MemoryStore, SqliteStore, Store, StoreError};
use futures_util::Stream;
use tokio::task::JoinError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::auth::Access;
use crate::broker::{self, Broker, End, Loop};
use crate::clock::Clock;
use crate::handshake::Transport;
use crate::limits::{DRAIN_TIMEOUT, FAILED_DRAIN_TIMEOUT};
use crate::listener;

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    Sync,
    /// It does not survive the process.
    Memory,
}

impl Durability {
    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Memory => "memory",
        }
    }
}

/// A store, and what it is worth.
pub struct Backing {
    /// The store.
    pub store: Box<dyn Store>,
    /// What it promises.
    pub durability: Durability,
}

impl std::fmt::Debug for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backing")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl Backing {
    /// Everything is lost with the process.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            store: Box::new(MemoryStore::new()),
            durability: Durability::Memory,
        }
    }

    /// A database in a directory that this process has locked.
    ///
    /// # Errors
    /// If it cannot be created or read.
    pub fn sqlite(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            store: Box::new(SqliteStore::create_or_open(dir)?),
            durability: Durability::Sync,
        })
    }
}

/// Why a broker ended against its will.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its store failed, is full, or belongs to another broker by now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its store has not done in time what was under way at the wish to stop.
    #[error(
        "the store did not end its work within {0:?}, so the broker stopped without it; \
         check the disk of the data directory. Whatever was not acknowledged is unknown: send it again with the same id"
    )]
    StoreHangs(Duration),
    /// A bug.
    #[error("the broker died: {0}")]
    Died(#[from] JoinError),
}

/// A broker whose shard is open, ready to serve.
#[derive(Debug)]
pub struct Server {
    broker: Broker,
    broker_loop: Loop,
    drain_timeout: Duration,
    access: Access,
}

impl Server {
    /// Opens the shard: from here on other brokers on the same store fail.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(backing: Backing, clock: Arc<dyn Clock>) -> Result<Self, ServerError> {
        let opening = tokio::task::spawn_blocking(move || broker::open(backing, clock));
        let (broker, broker_loop) = opening.await??;
        Ok(Self {
            broker,
            broker_loop,
            drain_timeout: DRAIN_TIMEOUT,
            access: Access::anyone(),
        })
    }

    /// How long connections may take to end after the wish to stop; ten seconds
    /// unless said otherwise.
    #[must_use]
    pub fn drain_timeout(self, drain_timeout: Duration) -> Self {
        Self { drain_timeout, ..self }
    }

    /// Who gets in; anyone unless said otherwise.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    pub(crate) const fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Serves connections until `shutdown`; then finishes what was taken in,
    /// ends all streams and returns, within the drain timeout whatever the
    /// other ends and the disk do.
    ///
    /// # Errors
    /// If the store fails, or hangs beyond the drain timeout: what was not
    /// acknowledged by then is indefinite, and the process should end.
    pub async fn serve<T: Transport>(
        self,
        incoming: impl Stream<Item = T>,
        shutdown: CancellationToken,
    ) -> Result<(), ServerError> {
        let Self {
            broker,
            broker_loop,
            drain_timeout,
            access,
        } = self;
        let stop = shutdown.child_token();
        // However this ends, the loop ends too.
        let _guard = stop.clone().drop_guard();
        let mut running = tokio::spawn(broker_loop.run(stop.clone()));
        // The threads of a store that hangs are left behind: they end with the
        // process.
        let overdue = async {
            stop.cancelled().await;
            sleep(drain_timeout).await;
        };
        let failed = AtomicBool::new(false);
        let watch = async {
            let result = tokio::select! {
                biased;
                ended = &mut running => ended.map_err(ServerError::from).and_then(|result| Ok(result?)),
                () = overdue => {
                    running.abort();
                    Err(ServerError::StoreHangs(drain_timeout))
                }
            };
            failed.store(result.is_err(), Ordering::Relaxed);
            // Where the loop has panicked, it could not say so itself.
            broker.end(End::StoreFailed);
            stop.cancel();
            result
        };
        let drain = || {
            if failed.load(Ordering::Relaxed) {
                FAILED_DRAIN_TIMEOUT
            } else {
                drain_timeout
            }
        };
        let serving = listener::serve(incoming, Api::new(&broker, &stop), access, stop.clone(), drain);
        let (result, ()) = tokio::join!(watch, serving);
        result
    }
}

/// Opens the shard and serves connections until `shutdown`.
///
/// # Errors
/// If the store fails.
pub async fn run<T: Transport>(
    incoming: impl Stream<Item = T>,
    backing: Backing,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    Server::open(backing, clock).await?.serve(incoming, shutdown).await
}
