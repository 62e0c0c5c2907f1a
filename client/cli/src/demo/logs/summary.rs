//! The table of files and what is in them, as text for people.

use std::{fmt::Write, time::Duration};

use super::{
    paths::Paths,
    tally::{File, Tallies},
};
use crate::{output::aligned, time::brief};

/// So many of the most frequent values are told …
const TOP: usize = 6;
/// … each cut to so many characters.
const VALUE_CHARS: usize = 40;

/// All there is to say of a run.
pub(super) struct Summary<'a> {
    pub(super) files: &'a [File],
    pub(super) tallies: &'a Tallies,
    pub(super) took: Duration,
}

impl Summary<'_> {
    pub(super) fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.table();
        for (form, tally) in self.tallies.iter() {
            let _ = writeln!(text, "\n{}: {}", form.name, many(tally.rows, "row"));
            for ((label, _), top) in form.tops.iter().zip(&tally.tops) {
                let (most, others) = top.most(TOP);
                if most.is_empty() {
                    continue;
                }
                let most: Vec<_> = most
                    .iter()
                    .map(|(value, n)| format!("{} {n}", printable(value)))
                    .collect();
                let _ = write!(text, "  {label:<8} {}", most.join(", "));
                if others > 0 {
                    let _ = write!(text, ", {others} more");
                }
                if top.short() > 0 {
                    let _ = write!(text, " (of very many: a count may lack {})", top.short());
                }
                text.push('\n');
            }
        }
        let _ = writeln!(text, "\n{}", self.totals());
        text
    }

    fn table(&self) -> String {
        let head = ["FORMAT", "ROWS", "UNPARSED", "FIRST", "LAST", "END", "FILE"].map(str::to_owned);
        let rows = self.files.iter().map(|file| {
            let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
            [
                file.format.clone().unwrap_or_else(|| "-".to_owned()),
                file.rows.to_string(),
                file.unparsed.to_string(),
                time(file.span.map(|span| span.0)),
                time(file.span.map(|span| span.1)),
                file.failed
                    .as_ref()
                    .map_or_else(|| "ok".to_owned(), |(kind, _)| kind.clone()),
                harmless(&file.path),
            ]
        });
        aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }

    fn totals(&self) -> String {
        let rows = self.rows();
        let sum = |of: fn(&File) -> u64| self.files.iter().map(of).sum::<u64>();
        let (unparsed, cut) = (sum(|file| file.unparsed), sum(|file| file.cut));
        let failed = sum(|file| u64::from(file.failed.is_some()));
        let rate = rows as f64 / self.took.as_secs_f64().max(1e-3);
        let mut text = format!(
            "{}, {}, {unparsed} unparsed, {}, {rate:.0} rows/s",
            many(self.files.len() as u64, "file"),
            many(rows, "row"),
            brief(self.took)
        );
        if cut > 0 {
            let _ = write!(text, "; {} cut at 64 KiB", many(cut, "line"));
        }
        if failed > 0 {
            let _ = write!(text, "; {} failed", many(failed, "file"));
        }
        text
    }
}

/// What was not even asked for, if anything.
pub(super) fn left_out(found: &Paths) -> Option<String> {
    let mut parts = Vec::new();
    if found.skipped > 0 {
        parts.push(match found.skipped {
            1 => "1 path is no regular file".to_owned(),
            n => format!("{n} paths are no regular files"),
        });
    }
    if found.closed > 0 {
        parts.push(match found.closed {
            1 => "1 folder cannot be read".to_owned(),
            n => format!("{n} folders cannot be read"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn many(n: u64, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// A value from a log, made fit for a terminal: nothing in it is obeyed.
fn printable(value: &str) -> String {
    let mut shown = harmless(value);
    if let Some((at, _)) = shown.char_indices().nth(VALUE_CHARS) {
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// The same at its full length.
pub(super) fn harmless(value: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            c if obeyed(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_says_is_not_obeyed_by_a_terminal() {
        assert_eq!(printable("\u{1b}[31mred\r\n\u{202e}"), "\\u{1b}[31mred\\r\\n\\u{202e}");
        assert_eq!(printable(&"é".repeat(50)), format!("{}…", "é".repeat(40)));
    }

    #[test]
    fn what_is_left_out_is_said() {
        let found = |skipped, closed| Paths {
            files: Vec::new(),
            skipped,
            closed,
        };
        assert_eq!(left_out(&found(0, 0)), None);
        assert_eq!(left_out(&found(1, 0)).as_deref(), Some("1 path is no regular file"));
        assert_eq!(left_out(&found(0, 2)).as_deref(), Some("2 folders cannot be read"));
    }
}
