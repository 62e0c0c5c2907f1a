//! Times as they are typed, durations and times as they are printed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Reads a time in RFC 3339.
pub(crate) fn instant(text: &str) -> Result<SystemTime, String> {
    let wrong = "write it like 2030-01-31T12:00:00Z";
    let time: Timestamp = text.parse().map_err(|_| wrong.to_owned())?;
    Ok(time.into())
}

/// Prints a time as RFC 3339, in UTC, with milliseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let ms = time
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok());
    match ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        Some(time) => format!("{time:.3}"),
        None => "beyond the calendar".to_owned(),
    }
}

/// Prints a duration for people: `250ms`, `1.5s`, `2m 5s`, `3h 20m`.
pub(crate) fn brief(duration: Duration) -> String {
    let (ms, s) = (duration.as_millis(), duration.as_secs());
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{}.{}s", s, ms % 1000 / 100),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        _ => format!("{}h {}m", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed() {
        for (text, printed) in [
            ("2026-11-22T15:18:06Z", "2026-11-22T15:18:06.000Z"),
            ("2026-11-22T15:18:06.1234Z", "2026-11-22T15:18:06.123Z"),
            ("2026-11-22T16:18:06+01:00", "2026-11-22T15:18:06.000Z"),
        ] {
            assert_eq!(rfc3339(instant(text).unwrap()), printed);
        }
        for text in [
            "",
            "tomorrow",
            "2026-11-22",
            "2026-13-01T00:00:00Z",
            "2026-11-22T15:18:06",
        ] {
            assert!(instant(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_printed_briefly() {
        for (ms, printed) in [(7, "7ms"), (1_540, "1.5s"), (125_000, "2m 5s"), (12_000_000, "3h 20m")] {
            assert_eq!(brief(Duration::from_millis(ms)), printed);
        }
    }
}
