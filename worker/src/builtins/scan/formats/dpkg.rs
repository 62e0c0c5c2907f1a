//! The log of dpkg, in whose times there is no zone: taken for UTC.
//!
//! `2026-11-22 21:12:01 upgrade libc6:amd64 2.36-9 2.36-9+deb12u1`

use super::rest::{Rest, or_none};
use super::time;
use crate::builtins::scan::row::{Fields, Parsed, Value};

pub(super) fn parse(line: &str) -> Option<Parsed> {
    let mut rest = Rest(line);
    let (date, clock) = (time::date(rest.word()?, '-')?, time::clock(rest.word()?)?);
    // What stands at each place of a line.
    let (action, names): (_, &[&'static str]) = match rest.word()? {
        "startup" => ("startup", &["type", "command"]),
        "status" => ("status", &["state", "package", "version"]),
        "conffile" => ("conffile", &["file", "decision"]),
        "install" => ("install", &["package", "from", "to"]),
        "upgrade" => ("upgrade", &["package", "from", "to"]),
        "remove" => ("remove", &["package", "from", "to"]),
        "purge" => ("purge", &["package", "from", "to"]),
        "configure" => ("configure", &["package", "from", "to"]),
        "trigproc" => ("trigproc", &["package", "from", "to"]),
        "disappear" => ("disappear", &["package", "from", "to"]),
        _ => return None,
    };
    let mut fields = vec![("action", action.into())];
    for name in names {
        let value = match rest.word()? {
            "<none>" => Value::None,
            value => or_none(value),
        };
        fields.push((name, value));
    }
    rest.0.is_empty().then_some(())?;
    Some(Parsed {
        time: time::utc(date, clock)?,
        level: None,
        fields: Fields(fields),
    })
}
