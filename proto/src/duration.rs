//! Durations as people write them in flags and files: one form for every program.

use std::time::Duration;

use crate::limits::MAX_DURATION;

/// Why a text is no duration, so that it reads on after the text or its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It does not have the form.
    #[error("write it like 250ms, 30s, 5m, 1h or 1h30m")]
    Malformed,
    /// It is over [`MAX_DURATION`].
    #[error("ten years are the longest there is")]
    TooLong,
    /// It is zero where that would mean nothing.
    #[error("it must be longer than 0")]
    Zero,
}

/// Reads `250ms`, `30s`, `5m`, `1h`, `1h30m`, or a plain `0`.
///
/// # Errors
/// If it is written in another way, or longer than [`MAX_DURATION`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    use DurationError::{Malformed, TooLong};
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(Malformed);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let letters = rest.find(|c: char| !c.is_ascii_digit()).ok_or(Malformed)?;
        let (number, tail) = rest.split_at(letters);
        let digits = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(Malformed),
        };
        if number.is_empty() {
            return Err(Malformed);
        }
        // Only digits: what does not parse is too large.
        let number: u64 = number.parse().map_err(|_| TooLong)?;
        let part = number.checked_mul(unit_ms).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX_DURATION)
            .ok_or(TooLong)?;
        rest = tail;
    }
    Ok(total)
}

/// [`parse`], where zero would silently mean something else, such as "none".
///
/// # Errors
/// As [`parse`], and for zero.
pub fn parse_nonzero(text: &str) -> Result<Duration, DurationError> {
    match parse(text)? {
        Duration::ZERO => Err(DurationError::Zero),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_add_up() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1s500ms", 1_500),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("87840h"), Ok(MAX_DURATION));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "5", "1h30", "00", "-5s", "+5s", "1.5s", "s", "5 s", " 5s", "5x", "5sm", "1d", "5S", "٣s", "soon",
        ] {
            assert_eq!(parse(text), Err(DurationError::Malformed), "{text:?}");
        }
        for text in [
            "87840h1ms",
            "99999999h",
            "18446744073709551615h",
            "99999999999999999999s",
        ] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text:?}");
        }
    }

    #[test]
    fn zero_is_refused_where_it_would_mean_nothing() {
        assert_eq!(parse_nonzero("1ms"), Ok(Duration::from_millis(1)));
        for text in ["0", "0s", "0h0ms"] {
            assert_eq!(parse_nonzero(text), Err(DurationError::Zero), "{text}");
        }
        assert_eq!(parse_nonzero("soon"), Err(DurationError::Malformed));
    }
}
