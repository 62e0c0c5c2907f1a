//! The formats of logs: which there are, which one a file has, and how their
//! lines are taken apart. Parsers are functions of a line and of the time its
//! file was last written; they never panic, and a line that does not fit is
//! no error but a raw one.

mod access;
mod dpkg;
mod nginx_error;
mod rest;
mod syslog;
#[cfg(test)]
mod tests;
mod time;

use jiff::Timestamp;

use super::row::Parsed;
use crate::limits::DETECT_LINES;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The access log of nginx or Apache, combined or common.
    Access,
    /// The error log of nginx.
    NginxError,
    /// The log of dpkg.
    Dpkg,
    /// Syslog as RFC 3164, RFC 5424 or rsyslog with ISO 8601 has it.
    Syslog,
}

/// When a file was last written: what its lines lack of a date counts from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now(pub(super) Timestamp);

impl Format {
    pub(super) const ALL: [Self; 4] = [Self::Access, Self::NginxError, Self::Dpkg, Self::Syslog];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::NginxError => "nginx-error",
            Self::Dpkg => "dpkg",
            Self::Syslog => "syslog",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Takes a line apart; `None` if it does not fit.
    pub(super) fn parse(self, line: &str, now: Now) -> Option<Parsed> {
        match self {
            Self::Access => access::parse(line),
            Self::NginxError => nginx_error::parse(line),
            Self::Dpkg => dpkg::parse(line),
            Self::Syslog => syslog::parse(line, now),
        }
    }

    /// The format that fits most of the first lines, if any fits one.
    pub(super) fn detect(head: &[u8], now: Now) -> Option<Self> {
        let head = String::from_utf8_lossy(head);
        let fits = |format: &Self| {
            let lines = head.lines().take(DETECT_LINES);
            lines.filter(|line| format.parse(line, now).is_some()).count()
        };
        let best = Self::ALL.into_iter().max_by_key(fits)?;
        (fits(&best) > 0).then_some(best)
    }
}
