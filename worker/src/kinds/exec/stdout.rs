//! What a program writes: all of it, or line by line. Not reading on is what
//! holds a program back, so nothing here reads ahead by more than a pipe holds.

use std::io;

use asynq_worker::TaskError;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::failure::bad_output;
use crate::kinds::limits::{MAX_LINE_BYTES, MAX_OUTPUT_BYTES, READ_BYTES, SETTLE};

/// The reading end of a program's stdout.
pub(super) struct Stdout {
    pipe: pipe::Receiver,
    /// The program is gone, and its process group.
    gone: CancellationToken,
}

impl Stdout {
    pub(super) fn new(pipe: pipe::Receiver, gone: CancellationToken) -> Self {
        Self { pipe, gone }
    }

    /// Reads some more to the end of `into`; 0 bytes at the end.
    async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        into.reserve(READ_BYTES);
        tokio::select! {
            biased;
            read = self.pipe.read_buf(into) => read,
            // Whatever holds the pipe open now was not meant to.
            () = async { self.gone.cancelled().await; sleep(SETTLE).await } => Ok(0),
        }
    }

    /// All there is to the end.
    ///
    /// # Errors
    /// When it is more than [`MAX_OUTPUT_BYTES`].
    pub(super) async fn all(mut self) -> Result<Vec<u8>, TaskError> {
        let mut output = Vec::new();
        while self.read(&mut output).await? > 0 {
            if output.len() > MAX_OUTPUT_BYTES {
                return Err(bad_output(format!(
                    "stdout is over {MAX_OUTPUT_BYTES} bytes, the most a result may have; \
                     yield lines instead, with stdout = \"lines\" or \"jsonl\""
                )));
            }
        }
        Ok(output)
    }
}

/// The same, line by line.
pub(super) struct Lines {
    stdout: Stdout,
    buffer: Vec<u8>,
    /// Where the next line starts, and how far no end of it has been found.
    start: usize,
    searched: usize,
    /// How many lines there have been.
    count: u64,
    ended: bool,
}

impl Lines {
    pub(super) fn of(stdout: Stdout) -> Self {
        Self {
            stdout,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            count: 0,
            ended: false,
        }
    }

    /// The next line and its number from 1, without its end; the last one needs none.
    ///
    /// # Errors
    /// When it is longer than [`MAX_LINE_BYTES`].
    pub(super) async fn next(&mut self) -> Result<Option<(u64, &[u8])>, TaskError> {
        let end = loop {
            if let Some(found) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                break self.searched + found;
            }
            self.searched = self.buffer.len();
            if self.buffer.len() - self.start > MAX_LINE_BYTES {
                return Err(too_long(self.count + 1));
            }
            if self.ended {
                if self.start == self.buffer.len() {
                    return Ok(None);
                }
                break self.buffer.len();
            }
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
            self.ended = self.stdout.read(&mut self.buffer).await? == 0;
        };
        let line = self.start..end;
        self.start = (end + 1).min(self.buffer.len());
        self.searched = self.start;
        self.count += 1;
        Ok(Some((self.count, &self.buffer[line])))
    }
}

/// A line that makes no item.
pub(super) fn too_long(line: u64) -> TaskError {
    bad_output(format!(
        "line {line} of stdout makes an item of more than {MAX_OUTPUT_BYTES} bytes, the most one may have"
    ))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn stdout() -> (pipe::Sender, Stdout, CancellationToken) {
        let (theirs, ours) = pipe::pipe().unwrap();
        let gone = CancellationToken::new();
        (theirs, Stdout::new(ours, gone.clone()), gone)
    }

    async fn lines(output: &'static [u8], piece: usize) -> Vec<(u64, Vec<u8>)> {
        let (mut theirs, ours, _gone) = stdout();
        let writing = tokio::spawn(async move {
            for piece in output.chunks(piece) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut lines, mut all) = (Lines::of(ours), Vec::new());
        while let Some((number, line)) = lines.next().await.unwrap() {
            all.push((number, line.to_vec()));
        }
        writing.await.unwrap();
        all
    }

    #[tokio::test]
    async fn lines_are_the_same_whatever_pieces_they_come_in() {
        for piece in 1..8 {
            let all = lines(b"one\n\n\xff two\r\nthree", piece).await;
            let expected: [(u64, &[u8]); 4] = [(1, b"one"), (2, b""), (3, b"\xff two\r"), (4, b"three")];
            assert!(all.iter().map(|(n, line)| (*n, &line[..])).eq(expected), "{all:?}");
        }
        assert_eq!(lines(b"", 1).await, []);
        assert_eq!(lines(b"\n", 1).await, [(1, Vec::new())]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_and_what_was_before_is_not() {
        let (mut theirs, ours, _gone) = stdout();
        let flood = tokio::spawn(async move {
            theirs.write_all(b"good\n").await.unwrap();
            while theirs.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let mut lines = Lines::of(ours);
        assert_eq!(lines.next().await.unwrap(), Some((1, &b"good"[..])));
        let error = lines.next().await.unwrap_err();
        assert!(error.message.starts_with("line 2 of stdout"), "{}", error.message);
        assert!(lines.buffer.capacity() < 3 * MAX_LINE_BYTES);
        drop(lines);
        flood.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_something_else_holds_open_ends_with_the_program() {
        let (mut theirs, ours, gone) = stdout();
        theirs.write_all(b"all\n").await.unwrap();
        let reading = tokio::spawn(ours.all());
        gone.cancel();
        assert_eq!(reading.await.unwrap().unwrap(), b"all\n");
        drop(theirs);
    }

    #[tokio::test]
    async fn a_flood_is_refused() {
        let (mut theirs, ours, _gone) = stdout();
        let flood = tokio::spawn(async move { while theirs.write_all(&[0; 4096]).await.is_ok() {} });
        let error = ours.all().await.unwrap_err();
        assert_eq!((error.kind.as_str(), error.retryable), ("bad_output", false));
        flood.await.unwrap();
    }
}
