//! The terminal on stderr, as a bar is drawn on it.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use indicatif::TermLike;
use rustix::{stdio::stderr, termios::tcgetwinsize};

/// What a terminal is taken to be that does not say.
const USUAL: (u16, u16) = (80, 24);

/// Columns and rows, now: windows are resized.
pub(crate) fn size() -> (u16, u16) {
    match tcgetwinsize(stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => USUAL,
    }
}

/// Leaves the cursor at the beginning of its line, where indicatif's own leaves
/// it at the end: there the `^C` that a terminal echoes would begin a new line,
/// and what is cleared then would be that one, not the bar.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    /// One drawing.
    drawn: Mutex<String>,
}

impl Terminal {
    fn add(&self, text: &str) {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }

    fn go(&self, steps: usize, direction: char) {
        if steps > 0 {
            self.add(&format!("\x1b[{steps}{direction}"));
        }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        size().0
    }

    fn height(&self) -> u16 {
        size().1
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.go(lines, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.go(lines, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.go(columns, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.go(columns, 'D');
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text);
        self.add("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.push('\r');
        let written = io::stderr().write_all(drawn.as_bytes());
        drawn.clear();
        written
    }
}
