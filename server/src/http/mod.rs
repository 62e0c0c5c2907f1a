//! The HTTP port, for probes and for Prometheus: three pages, read only, one
//! request per connection, bounded in number and in time. It knows neither TLS
//! nor tokens.

mod pages;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::health::Health;
use crate::limits::{ACCEPT_PAUSE, HTTP_SILENCE, HTTP_TIMEOUT, MAX_HTTP_CONNECTIONS};
use crate::metrics::Metrics;

/// A bound TCP address.
#[derive(Debug)]
pub struct HttpPort(TcpListener);

impl HttpPort {
    /// Binds an address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// The address, with the port that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until `stop`, which should be the end of the broker and not the
    /// wish to stop: probes want to hear of the drain.
    pub async fn serve(self, health: Health, metrics: Metrics, stop: CancellationToken) {
        let pages = Arc::new(pages::Pages { health, metrics });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.0.accept(), if connections.len() < MAX_HTTP_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(timeout(HTTP_TIMEOUT, answer(stream, pages.clone())));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept HTTP connections; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

async fn answer(stream: TcpStream, pages: Arc<pages::Pages>) {
    // Who says nothing must not keep others from being heard. Peeked, because
    // a socket may be called readable when there is nothing to read.
    if !matches!(timeout(HTTP_SILENCE, stream.peek(&mut [0])).await, Ok(Ok(1))) {
        return;
    }
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    // Whoever is slow is cut off with its connection.
    builder.http1().keep_alive(false);
    let service = tower::service_fn(move |request: Request<_>| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(request.method(), request.uri().path()).await) }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = serving.await {
        debug!(%error, "an HTTP connection ended");
    }
}
