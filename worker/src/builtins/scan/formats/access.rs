//! The access log of nginx and Apache, common or combined.
//!
//! `192.0.2.7 - anna [22/Nov/2026:21:12:01 +0000] "GET /a HTTP/1.1" 200 612 "-" "curl/8"`

use super::rest::{Rest, number, or_none};
use super::time;
use crate::builtins::scan::row::{Fields, Parsed, Value};

pub(super) fn parse(line: &str) -> Option<Parsed> {
    let mut rest = Rest(line);
    let (client, _ident) = (rest.word()?, rest.word()?);
    // A user's name may hold spaces.
    let user = rest.until(" [")?;
    let time = time::access(rest.until("] ")?)?;
    let request = rest.quoted()?;
    rest.skip(" ")?;
    let status = rest.word().filter(|status| status.len() == 3).and_then(number)?;
    let bytes = rest.word()?;
    let mut fields = vec![("client", client.into()), ("user", or_none(user))];
    fields.extend(asked(&unescaped(request)));
    fields.push(("status", status.into()));
    fields.push((
        "bytes",
        if bytes == "-" {
            Value::None
        } else {
            number(bytes)?.into()
        },
    ));
    // The combined format has two more. What others append is theirs.
    if let Some(referer) = rest.quoted() {
        rest.skip(" ")?;
        fields.push(("referer", or_none(&unescaped(referer))));
        fields.push(("agent", or_none(&unescaped(rest.quoted()?))));
    }
    Some(Parsed {
        time,
        level: None,
        fields: Fields(fields),
    })
}

/// The first line of a request, in parts; as it is, if it is none.
pub(super) fn asked(request: &str) -> Vec<(&'static str, Value)> {
    let parts = request.split_once(' ').filter(|(method, path)| {
        let word = method
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte));
        word && !method.is_empty() && !path.is_empty()
    });
    let Some((method, rest)) = parts else {
        return vec![("request", or_none(request))];
    };
    let (path, protocol) = match rest.rsplit_once(' ') {
        Some((path, protocol)) if protocol.starts_with("HTTP/") => (path, protocol.into()),
        // As before HTTP/1.0.
        _ => (rest, Value::None),
    };
    vec![("method", method.into()), ("path", path.into()), ("protocol", protocol)]
}

/// Undoes what nginx and Apache do to what they do not print. A byte that is no
/// UTF-8 then becomes U+FFFD.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, taken) = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (b'\\', 1),
            },
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [kept @ (b'"' | b'\\'), ..]) => (*kept, 2),
            (byte, _) => (*byte, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
