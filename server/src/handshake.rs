//! How a connection begins: TLS where there is to be any, then the preface of
//! HTTP/2; and a word for those who speak the wrong one, so that they can tell
//! their people what to set right.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::auth;
use crate::limits::PARTING_BYTES;

/// What every HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What every TLS client sends first: the type of a handshake record.
const TLS_HANDSHAKE: [u8; 1] = [0x16];
/// To who speaks in clear where TLS is wanted: a fatal alert of TLS,
/// "unexpected message". No HTTP/2 frame begins like that.
const TLS_ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 10];
/// To who speaks TLS where there is none. No TLS record begins like that.
const NO_TLS: &[u8] = b"This port does not speak TLS.\n";

/// Something to speak HTTP/2 on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Who is at the other end, where that can be said.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }
}

impl Transport for TcpStream {
    fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }
}

impl Transport for tokio::io::DuplexStream {}

impl Transport for Box<dyn Transport> {
    fn peer(&self) -> Option<SocketAddr> {
        self.as_ref().peer()
    }
}

impl<T: Transport> Transport for tokio_rustls::server::TlsStream<T> {
    fn peer(&self) -> Option<SocketAddr> {
        self.get_ref().0.peer()
    }
}

/// Why a connection does not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("it does not speak TLS, which this port wants: its broker address must be https://")]
    WantsTls,
    #[error("it speaks TLS, which this port does not: give --tls-cert and --tls-key, or its address must be http://")]
    NoTls,
    #[error("{0}")]
    Tls(String),
    #[error("it does not speak HTTP/2")]
    NotHttp2,
    #[error("it ended before its handshake: {0}")]
    Ended(#[from] io::Error),
}

impl HandshakeError {
    /// Whether this may be an honest peer that is set up wrong. Others are port
    /// scanners and probes.
    pub(crate) const fn is_telling(&self) -> bool {
        matches!(self, Self::WantsTls | Self::NoTls | Self::Tls(_))
    }
}

/// Begins a connection. May take as long as the peer does.
pub(crate) async fn begin<T: Transport>(
    mut io: T,
    tls: Option<TlsAcceptor>,
) -> Result<Replayed<Box<dyn Transport>>, HandshakeError> {
    // Nothing is made for a peer that is silent.
    let mut preface = [0; PREFACE.len()];
    io.read_exact(&mut preface[..1]).await?;
    let speaks_tls = preface[..1] == TLS_HANDSHAKE;
    let io: Box<dyn Transport> = match tls {
        Some(tls) if speaks_tls => {
            let mut io = secure(tls, Replayed::new(&TLS_HANDSHAKE, io)).await?;
            io.read_exact(&mut preface).await?;
            Box::new(io)
        }
        Some(_) => {
            turn_away(io, TLS_ALERT).await;
            return Err(HandshakeError::WantsTls);
        }
        None if speaks_tls => {
            turn_away(io, NO_TLS).await;
            return Err(HandshakeError::NoTls);
        }
        None => {
            io.read_exact(&mut preface[1..]).await?;
            Box::new(io)
        }
    };
    match preface == *PREFACE {
        true => Ok(Replayed::new(PREFACE, io)),
        false => Err(HandshakeError::NotHttp2),
    }
}

async fn secure<T: Transport>(
    tls: TlsAcceptor,
    io: Replayed<T>,
) -> Result<tokio_rustls::server::TlsStream<Replayed<T>>, HandshakeError> {
    let (error, io) = match tls.accept(io).into_fallible().await {
        Ok(stream) => return Ok(stream),
        Err(failed) => failed,
    };
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref());
    let reason = reason.map(|reason| HandshakeError::Tls(auth::explain(reason)));
    if reason.is_some() {
        // TLS has said why, and the peer has to read it.
        turn_away(io, &[]).await;
    }
    Err(reason.unwrap_or(HandshakeError::Ended(error)))
}

/// Says a last word and waits for the peer to hang up: a connection that is
/// closed with bytes unread is reset, and the word with it.
async fn turn_away<T: Transport>(mut io: T, word: &[u8]) {
    let parting = async {
        io.write_all(word).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut (&mut io).take(PARTING_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever becomes of it, the connection is over.
    drop(parting.await);
}

/// A connection whose first bytes have been read already.
pub(crate) struct Replayed<T> {
    first: &'static [u8],
    io: T,
}

impl<T> Replayed<T> {
    const fn new(first: &'static [u8], io: T) -> Self {
        Self { first, io }
    }
}

impl<T: Transport> Transport for Replayed<T> {
    fn peer(&self) -> Option<SocketAddr> {
        self.io.peer()
    }
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
