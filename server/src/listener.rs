//! The broker's own listener: accepts connections, bounds their number and the
//! time of their handshake, which each does on its own, speaks HTTP/2 on them, and drains them within a
//! deadline even when the other end is silent.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use asynq_proto::limits::{
    CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CONCURRENT_STREAMS, STREAM_WINDOW,
};
use futures_util::stream::{Stream, StreamExt, unfold};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::{Api, Conventions};
use crate::auth::{Access, Guard};
use crate::handshake::{self, Transport};
use crate::limits::{ACCEPT_PAUSE, DRAIN_SHARE, HANDSHAKE_TIMEOUT, MAX_CONNECTIONS, TCP_KEEPALIVE};
use crate::line::Watched;
use crate::trace::Traced;

/// A bound TCP address.
#[derive(Debug)]
pub struct TcpIncoming {
    listener: TcpListener,
}

impl TcpIncoming {
    /// Binds an address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
        })
    }

    /// The address, with the port that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The connections, for [`crate::Server::serve`].
    pub fn connections(self) -> impl Stream<Item = TcpStream> + Send {
        unfold(self.listener, |listener| async {
            Some((accept(&listener).await, listener))
        })
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match prepare(&stream) {
                Ok(()) => return stream,
                Err(error) => debug!(%peer, %error, "a connection was gone before it began"),
            },
            Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection was gone before it began"),
            // Out of descriptors or memory: those there are get time to end.
            Err(error) => {
                warn!(%error, "cannot accept connections; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
}

/// Serves connections until `stop`, then lets them end until nearly `deadline`
/// has passed since, then cuts them.
pub(crate) async fn serve<T: Transport>(
    incoming: impl Stream<Item = T>,
    api: Api,
    access: Access,
    stop: CancellationToken,
    deadline: impl Fn() -> Duration,
) {
    let mut connections = JoinSet::new();
    accept_until(&stop, incoming, (&api, &access), &mut connections).await;
    info!(connections = connections.len(), "shutting down");
    let until = Instant::now() + deadline().mul_f32(DRAIN_SHARE);
    while let Ok(Some(_)) = timeout_at(until, connections.join_next()).await {}
    if !connections.is_empty() {
        warn!(
            connections = connections.len(),
            "cutting connections that did not end in time"
        );
        connections.shutdown().await;
    }
}

/// The address is given up on return: who comes later is refused at once.
async fn accept_until<T: Transport>(
    stop: &CancellationToken,
    incoming: impl Stream<Item = T>,
    (api, access): (&Api, &Access),
    connections: &mut JoinSet<()>,
) {
    let mut incoming = pin!(incoming.fuse());
    let mut more = true;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = connections.join_next(), if !connections.is_empty() => {}
            next = incoming.next(), if more && connections.len() < MAX_CONNECTIONS => match next {
                Some(io) => {
                    connections.spawn(connection(io, api.clone(), access.clone(), stop.clone()));
                }
                None => more = false,
            }
        }
    }
}

async fn connection<T: Transport>(io: T, api: Api, access: Access, stop: CancellationToken) {
    let peer = io.peer();
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        io = timeout(HANDSHAKE_TIMEOUT, handshake::begin(io, access.tls())) => io,
    };
    match handshake {
        // On the heap: what waits for its handshake should be small.
        Ok(Ok(io)) => {
            let calls = access.calls().clone();
            let (io, line) = Watched::new(io);
            let service = Conventions::new(Guard::new(api, access, peer, line));
            Box::pin(converse(io, Traced::new(service, calls, peer), stop)).await;
        }
        Ok(Err(error)) if error.is_telling() => access.complain(peer, &error),
        Ok(Err(error)) => debug!(?peer, %error, "no connection came about"),
        Err(_) => debug!(?peer, "a connection without a handshake"),
    }
}

/// Speaks HTTP/2 until the connection ends.
async fn converse(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Traced<Conventions<Guard>>,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service)));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}
