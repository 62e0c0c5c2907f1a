//! The broker's own listener: accepts connections, bounds their number and the
//! time of their handshake, speaks HTTP/2 on them, and drains them within a
//! deadline even when the other end is silent.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use asynq_proto::limits::{
    CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CONCURRENT_STREAMS, STREAM_WINDOW,
};
use futures_util::stream::{Stream, StreamExt, unfold};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::Api;
use crate::limits::{ACCEPT_PAUSE, HANDSHAKE_TIMEOUT, MAX_CONNECTIONS, TCP_KEEPALIVE};

/// What every HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Something to speak HTTP/2 on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

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

/// Serves connections until `stop`, then lets them end until `deadline` has
/// passed since, then cuts them.
pub(crate) async fn serve<T: Transport>(
    incoming: impl Stream<Item = T>,
    api: Api,
    stop: CancellationToken,
    deadline: impl Fn() -> Duration,
) {
    let mut connections = JoinSet::new();
    accept_until(&stop, incoming, &api, &mut connections).await;
    info!(connections = connections.len(), "shutting down");
    let until = Instant::now() + deadline();
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
    api: &Api,
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
                    connections.spawn(connection(io, api.clone(), stop.clone()));
                }
                None => more = false,
            }
        }
    }
}

async fn connection<T: Transport>(mut io: T, api: Api, stop: CancellationToken) {
    let mut preface = [0; PREFACE.len()];
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        read = timeout(HANDSHAKE_TIMEOUT, io.read_exact(&mut preface)) => read,
    };
    match handshake {
        Ok(Ok(_)) if preface == *PREFACE => {}
        Ok(Ok(_)) => return debug!("a connection that does not speak HTTP/2"),
        Ok(Err(error)) => return debug!(%error, "a connection ended before its handshake"),
        Err(_) => return debug!("a connection without a handshake"),
    }
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let io = TokioIo::new(Replayed { first: PREFACE, io });
    let mut serving = pin!(builder.serve_connection(io, TowerToHyperService::new(api)));
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

/// A connection whose first bytes have been read already.
struct Replayed<T> {
    first: &'static [u8],
    io: T,
}

impl<T: Transport> AsyncRead for Replayed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let (now, later) = self.first.split_at(self.first.len().min(buf.remaining()));
        buf.put_slice(now);
        self.first = later;
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for Replayed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
