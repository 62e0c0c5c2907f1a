//! Lines of any text in bounded memory: one that is too long is cut.

use std::io::{self, ErrorKind, Read};

use crate::limits::{MAX_LOG_LINE_BYTES, SCAN_READ_BYTES};

/// A line, without its end.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    pub(super) bytes: &'a [u8],
    /// There was more of it.
    pub(super) cut: bool,
}

/// The lines of a text under way.
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// What of the buffer is read and not given out.
    start: usize,
    end: usize,
    /// What comes up to the next end of a line belongs to one that was cut.
    skipping: bool,
    /// Nothing more comes, for this reason if there is one.
    over: bool,
    failed: Option<io::Error>,
    count: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            // The longest line, its end, and room to read into.
            buffer: vec![0; MAX_LOG_LINE_BYTES + 2 + SCAN_READ_BYTES],
            start: 0,
            end: 0,
            skipping: false,
            over: false,
            failed: None,
            count: 0,
        }
    }

    /// How many have been given out.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What the text begins with, up to the length of the longest line. For
    /// before the first line is asked for.
    pub(super) fn head(&mut self, stopped: impl Fn() -> bool) -> &[u8] {
        while self.end < MAX_LOG_LINE_BYTES && !self.over && !stopped() {
            self.fill();
        }
        &self.buffer[..self.end]
    }

    /// The next line; `None` at the end, or when stopped. A text that breaks off
    /// gives its whole lines first, then the error.
    pub(super) fn next(&mut self, stopped: impl Fn() -> bool) -> io::Result<Option<Line<'_>>> {
        let mut seen = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            let found = unread[seen..].iter().position(|byte| *byte == b'\n');
            match found.map(|found| self.start + seen + found) {
                Some(end) if self.skipping => {
                    self.skipping = false;
                    self.start = end + 1;
                    seen = 0;
                    continue;
                }
                Some(end) => return Ok(Some(self.give(end, end + 1))),
                None if self.skipping => self.start = self.end,
                None => seen = unread.len(),
            }
            // Longer than the longest with a carriage return.
            if seen > MAX_LOG_LINE_BYTES + 1 {
                self.skipping = true;
                return Ok(Some(self.give(self.end, self.end)));
            }
            if self.over {
                return match self.failed.take() {
                    Some(error) => {
                        // The beginning of a line is none.
                        self.start = self.end;
                        Err(error)
                    }
                    None if seen == 0 => Ok(None),
                    None => Ok(Some(self.give(self.end, self.end))),
                };
            }
            if stopped() {
                return Ok(None);
            }
            self.fill();
        }
    }

    /// Gives out what lies before `end`; the next line begins at `next`.
    fn give(&mut self, end: usize, next: usize) -> Line<'_> {
        let bytes = &self.buffer[self.start..end];
        self.start = next;
        self.count += 1;
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Line {
            number: self.count,
            bytes: &bytes[..bytes.len().min(MAX_LOG_LINE_BYTES)],
            cut: bytes.len() > MAX_LOG_LINE_BYTES,
        }
    }

    /// Reads once, after what is there. The caller has seen to the room.
    fn fill(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self.reader.read(&mut self.buffer[self.end..]) {
            Ok(0) => self.over = true,
            Ok(read) => self.end += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => (self.over, self.failed) = (true, Some(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives a few bytes at a time, then an end or an error.
    struct Slowly<'a>(&'a [u8], usize, Option<ErrorKind>);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(self.1).min(into.len());
            if n == 0 {
                return self.2.map_or(Ok(0), |kind| Err(kind.into()));
            }
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    /// Length and cut of each line, and how it ended.
    fn lines(text: &[u8], step: usize, end: Option<ErrorKind>) -> (Vec<(Vec<u8>, bool)>, Option<ErrorKind>) {
        let mut lines = Lines::new(Slowly(text, step, end));
        let mut found = Vec::new();
        loop {
            match lines.next(|| false) {
                Ok(Some(line)) => {
                    assert_eq!(line.number, found.len() as u64 + 1);
                    found.push((line.bytes.to_vec(), line.cut));
                }
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error.kind())),
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_is_whole() {
        let long = vec![b'x'; 3 * MAX_LOG_LINE_BYTES + 5];
        let fits = vec![b'y'; MAX_LOG_LINE_BYTES];
        let text = [b"a\r\n", &long[..], b"\n", &fits, b"\r\n\n", &fits, b"z\nend"].concat();
        let cut = |byte| (vec![byte; MAX_LOG_LINE_BYTES], true);
        let expected = vec![
            (b"a".to_vec(), false),
            cut(b'x'),
            (fits, false),
            (Vec::new(), false),
            cut(b'y'),
            (b"end".to_vec(), false),
        ];
        for step in [1000, SCAN_READ_BYTES, usize::MAX] {
            assert!(lines(&text, step, None) == (expected.clone(), None), "{step}");
        }
        // A line without an end that is too long is one all the same.
        assert!(lines(&long, 4096, None) == (vec![cut(b'x')], None));
    }

    #[test]
    fn a_text_that_breaks_off_gives_its_whole_lines() {
        let broken = Some(ErrorKind::UnexpectedEof);
        assert_eq!(lines(b"a\nb", 1, broken), (vec![(b"a".to_vec(), false)], broken));
        assert_eq!(lines(b"", 1, broken), (vec![], broken));
    }

    #[test]
    fn a_stop_is_heard_within_a_line() {
        let endless = vec![b'x'; 10 * MAX_LOG_LINE_BYTES];
        let mut lines = Lines::new(&endless[..]);
        assert!(lines.next(|| false).unwrap().is_some_and(|line| line.cut));
        assert_eq!(lines.next(|| true).unwrap(), None);
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_text(text in "([ab]{0,5}\\r?\n){0,9}[ab]{0,5}", step in 1_usize..9) {
            let expected: Vec<_> = text.lines().map(|line| (line.as_bytes().to_vec(), false)).collect();
            prop_assert_eq!(lines(text.as_bytes(), step, None), (expected, None));
        }
    }
}
