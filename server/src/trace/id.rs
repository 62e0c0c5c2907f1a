//! Trace ids, as the W3C's `traceparent` carries them.

use std::fmt;

use http::HeaderMap;

/// Names one call, or what it is a part of, wherever it goes. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

impl TraceId {
    /// The caller's, if it sent one that can be read; else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let theirs = headers.get("traceparent").and_then(|value| value.to_str().ok());
        theirs.and_then(parse).unwrap_or_else(|| Self(fastrand::u128(1..)))
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a later version may go on after a dash.
fn parse(traceparent: &str) -> Option<TraceId> {
    let mut parts = traceparent.split('-');
    let mut part = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let hex = part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(part, 16).ok().filter(|_| hex)
    };
    let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let ends = version > 0 || parts.next().is_none();
    (version != 0xff && trace != 0 && parent != 0 && ends).then_some(TraceId(trace))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_w3c_says() {
        const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let said = |text: &str| parse(text).map(|id| id.to_string());
        for good in [
            format!("00-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-00"),
            format!("cc-{ID}-00f067aa0ba902b7-01-what-comes"),
        ] {
            assert_eq!(said(&good).as_deref(), Some(ID), "{good}");
        }
        for bad in [
            String::new(),
            ID.to_owned(),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("00-{ID}-00f067aa0ba902b7-01-x"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-+{}-00f067aa0ba902b7-01", &ID[1..]),
        ] {
            assert_eq!(said(&bad), None, "{bad}");
        }
    }

    #[test]
    fn without_one_there_is_a_fresh_one() {
        let fresh = || TraceId::of(&HeaderMap::new());
        assert_ne!(fresh(), fresh());
        assert_eq!(fresh().to_string().len(), 32);
    }
}
