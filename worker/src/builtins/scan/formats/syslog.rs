//! Syslog: RFC 3164, which has neither year nor zone (UTC, and the last such
//! day before the file was written), what rsyslog writes with ISO 8601 times,
//! and RFC 5424.
//!
//! `Nov 22 21:12:01 host sshd[7]: Accepted publickey for anna`

use super::Now;
use super::rest::{Rest, number, or_none};
use super::time;
use crate::builtins::scan::row::{Fields, Parsed, Value};

const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"];
/// The highest priority there is: 24 facilities of 8 levels.
const MAX_PRIORITY: u64 = 191;

pub(super) fn parse(line: &str, now: Now) -> Option<Parsed> {
    let mut rest = Rest(line);
    let level = match rest.skip("<") {
        Some(()) => Some(level(rest.until(">")?)?),
        None => None,
    };
    if level.is_some() && rest.skip("1 ").is_some() {
        return rfc5424(rest, level);
    }
    let word = rest.word()?;
    let (time, host, tag) = match time::iso(word) {
        // Such a time begins other logs, too: without a program it is none of ours.
        Some(time) => (time, rest.word()?, Some(tag(&mut rest)?)),
        None => {
            // A day of one digit has a space before it.
            rest.0 = rest.0.strip_prefix(' ').unwrap_or(rest.0);
            let time = time::yearless(word, rest.word()?, rest.word()?, now)?;
            (time, rest.word()?, tag(&mut rest))
        }
    };
    let (program, pid) = tag.map_or((Value::None, Value::None), |(program, pid)| (program.into(), pid));
    Some(row(time, level, host.into(), program, pid, rest.0))
}

/// `host program pid message-id [structured data] message`, after priority and version.
fn rfc5424(mut rest: Rest<'_>, level: Option<&'static str>) -> Option<Parsed> {
    let time = time::iso(rest.word()?)?;
    let (host, program) = (or_none(rest.word()?), or_none(rest.word()?));
    let pid = match rest.word()? {
        "-" => Value::None,
        text => number(text).map_or_else(|| text.into(), Value::from),
    };
    rest.word()?;
    if rest.skip("-").is_none() {
        // One after another, in brackets, where a backslash keeps one from ending it.
        while rest.0.starts_with('[') {
            let mut escaped = false;
            let end = rest.0.bytes().position(|byte| {
                let ends = byte == b']' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            })?;
            rest.0 = &rest.0[end + 1..];
        }
    }
    let message = match rest.0 {
        "" => "",
        text => text.strip_prefix(' ')?,
    };
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    Some(row(time, level, host, program, pid, message))
}

/// `program[pid]: ` or `program: `.
fn tag<'a>(rest: &mut Rest<'a>) -> Option<(&'a str, Value)> {
    let mut after = *rest;
    let tag = after.word()?.strip_suffix(':').filter(|tag| !tag.is_empty())?;
    *rest = after;
    let numbered = tag.strip_suffix(']').and_then(|tag| tag.rsplit_once('['));
    Some(
        match numbered.and_then(|(program, pid)| Some((program, number(pid)?))) {
            Some((program, pid)) => (program, pid.into()),
            None => (tag, Value::None),
        },
    )
}

fn row(
    time: jiff::Timestamp,
    level: Option<&'static str>,
    host: Value,
    program: Value,
    pid: Value,
    message: &str,
) -> Parsed {
    let fields = vec![
        ("host", host),
        ("program", program),
        ("pid", pid),
        ("message", message.into()),
    ];
    Parsed {
        time,
        level,
        fields: Fields(fields),
    }
}

/// What a priority says of how bad it is.
fn level(priority: &str) -> Option<&'static str> {
    let priority = number(priority).filter(|priority| *priority <= MAX_PRIORITY)?;
    LEVELS.get(usize::try_from(priority % 8).ok()?).copied()
}
