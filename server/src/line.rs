//! What becomes of a connection, for those who serve calls on it: whether its
//! peer hung up or just fell silent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits::{CALL_DECIDES, LINE_DECIDES};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    /// End of file or a reset: the peer, or its kernel, has ended it.
    HungUp,
    /// We have let go of it without a word from the peer.
    LetGo,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Line(watch::Receiver<Fate>);

impl Line {
    /// Of a connection on which a call has just broken: whether that is because
    /// nothing more was heard of the peer. A peer may also have ended the call
    /// alone, and the connection lives.
    pub(crate) async fn is_silent(&self) -> bool {
        let mut fate = self.0.clone();
        // A connection that ends breaks its calls first and is let go of next.
        let decided = timeout(LINE_DECIDES, fate.wait_for(|fate| *fate != Fate::Open)).await;
        matches!(decided, Ok(Ok(fate)) if *fate == Fate::LetGo)
    }
}

impl Line {
    /// Of a connection on which a call has just ended: whether it is over itself.
    pub(crate) async fn is_over(&self) -> bool {
        let mut fate = self.0.clone();
        let decided = timeout(CALL_DECIDES, fate.wait_for(|fate| *fate != Fate::Open)).await;
        decided.is_ok()
    }
}

/// A connection that tells its [`Line`] how it ends.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    io: T,
    fate: watch::Sender<Fate>,
}

impl<T> Watched<T> {
    pub(crate) fn new(io: T) -> (Self, Line) {
        let (fate, line) = watch::channel(Fate::Open);
        (Self { io, fate }, Line(line))
    }

    fn hung_up(&self) {
        self.fate.send_if_modified(|fate| {
            let first = *fate == Fate::Open;
            *fate = Fate::HungUp;
            first
        });
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.fate.send_if_modified(|fate| {
            let open = *fate == Fate::Open;
            if open {
                *fate = Fate::LetGo;
            }
            open
        });
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) if room > 0 && buf.filled().len() == before => self.hung_up(),
            Poll::Ready(Err(_)) => self.hung_up(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<T> Watched<T> {
    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Err(_))) {
            self.hung_up();
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_hangs_up_is_told_from_one_that_falls_silent() {
        let (near, far) = duplex(64);
        let (mut io, line) = Watched::new(near);
        drop(far);
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
        drop(io);
        assert!(!line.is_silent().await, "end of file");

        let (near, far) = duplex(64);
        let (mut io, line) = Watched::new(near);
        drop(far);
        io.write_all(b"hello").await.unwrap_err();
        assert!(!line.is_silent().await, "a write that fails");

        let (near, _far) = duplex(64);
        let (io, line) = Watched::new(near);
        drop(io);
        assert!(line.is_silent().await, "let go of");

        let (near, mut far) = duplex(64);
        let (mut io, line) = Watched::new(near);
        far.write_all(b"hello").await.unwrap();
        io.read_exact(&mut [0; 5]).await.unwrap();
        assert!(!line.is_silent().await, "only the call has ended");
    }
}
