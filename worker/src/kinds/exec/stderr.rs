//! The end of what a program says on stderr. All of it is read, so that no
//! program waits for somebody to listen; the last of it is kept.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::kinds::limits::{SETTLE, STDERR_TAIL_BYTES};

/// Listens in the background, until it is dropped.
pub(super) struct Stderr {
    tail: Arc<Mutex<Tail>>,
    reading: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(STDERR_TAIL_BYTES);
        self.0.drain(..excess);
        self.0.extend_from_slice(bytes);
    }
}

impl Stderr {
    pub(super) fn listen(mut pipe: pipe::Receiver) -> Self {
        let tail = Arc::<Mutex<Tail>>::default();
        let kept = tail.clone();
        let reading = tokio::spawn(async move {
            let mut buffer = vec![0; STDERR_TAIL_BYTES];
            // A pipe that cannot be read has nothing more to say.
            while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
                let mut tail = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.push(&buffer[..read]);
            }
        });
        Self {
            tail,
            reading: AbortOnDropHandle::new(reading),
        }
    }

    /// What it said last. The program is gone; but something that has left its
    /// process group may hold the pipe open, and is not waited for.
    pub(super) async fn last(self) -> String {
        let _ = timeout(SETTLE, self.reading).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut tail = Tail::default();
        tail.push(b"begin");
        assert_eq!(tail.0, b"begin");
        tail.push(&[b'x'; STDERR_TAIL_BYTES - 2]);
        assert_eq!((tail.0.len(), &tail.0[..3]), (STDERR_TAIL_BYTES, &b"inx"[..]));
        tail.push(&[b'y'; 3 * STDERR_TAIL_BYTES]);
        tail.push(b"end");
        assert_eq!((tail.0.len(), tail.0.ends_with(b"yend")), (STDERR_TAIL_BYTES, true));
    }
}
