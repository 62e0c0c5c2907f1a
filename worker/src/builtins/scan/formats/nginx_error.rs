//! The error log of nginx, in whose times there is no zone: taken for UTC.
//!
//! `2026/11/22 21:12:01 [error] 7#7: *1 open() "/srv/a" failed (2: No such file or directory), client: …`

use super::rest::{Rest, number};
use super::{access, time};
use crate::builtins::scan::row::{Fields, Parsed};

/// What nginx appends to a message, in this order, each after `, name: `.
const CONTEXT: [(&str, &str); 7] = [
    ("client", ", client: "),
    ("server", ", server: "),
    ("request", ", request: "),
    ("subrequest", ", subrequest: "),
    ("upstream", ", upstream: "),
    ("host", ", host: "),
    ("referrer", ", referrer: "),
];

pub(super) fn parse(line: &str) -> Option<Parsed> {
    let mut rest = Rest(line);
    let (date, clock) = (time::date(rest.word()?, '/')?, time::clock(rest.word()?)?);
    rest.skip("[")?;
    let level = level(rest.until("] ")?)?;
    let pid = number(rest.until("#")?)?;
    number(rest.until(": ")?)?;
    // The number of the connection, if it is about one.
    let mut about = rest;
    if about.skip("*").is_some() && about.word().and_then(number).is_some() {
        rest = about;
    }
    let mut fields = vec![("pid", pid.into())];
    let (message, context) = context(rest.0);
    fields.push(("message", message.into()));
    for (name, text) in context {
        match name {
            "request" => fields.extend(access::asked(text)),
            name => fields.push((name, text.into())),
        }
    }
    Some(Parsed {
        time: time::utc(date, clock)?,
        level: Some(level),
        fields: Fields(fields),
    })
}

/// Splits a message from what nginx appends to it, from the right, since the
/// message may hold anything.
fn context(text: &str) -> (&str, Vec<(&'static str, &str)>) {
    let (mut message, mut found) = (text, Vec::new());
    for (name, mark) in CONTEXT.into_iter().rev() {
        if let Some((before, value)) = message.rsplit_once(mark) {
            let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            found.push((name, bare.unwrap_or(value)));
            message = before;
        }
    }
    found.reverse();
    (message, found)
}

fn level(word: &str) -> Option<&'static str> {
    Some(match word {
        "debug" => "debug",
        "info" => "info",
        "notice" => "notice",
        "warn" => "warning",
        "error" => "error",
        "crit" => "crit",
        "alert" => "alert",
        "emerg" => "emerg",
        _ => return None,
    })
}
