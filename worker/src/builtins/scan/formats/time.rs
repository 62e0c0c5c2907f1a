//! Times as logs write them. What says nothing of a zone is taken for UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::Now;
use super::rest::number;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// A year without the 29th of February is followed by one with it within so many.
const LEAP_YEARS: i16 = 8;
/// A line may be this much later than the last write to its file: clocks and
/// zones differ.
const AHEAD_SECONDS: i64 = 24 * 60 * 60;

/// `2026-11-22`, with any separator.
pub(super) fn date(text: &str, separator: char) -> Option<(i16, i8, i8)> {
    let mut parts = text.split(separator);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    Some((small(year)?, small(month)?, small(day)?))
}

/// `21:12:01`.
pub(super) fn clock(text: &str) -> Option<(i8, i8, i8)> {
    let mut parts = text.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    // A leap second is told as the one before.
    let second = if second == "60" { "59" } else { second };
    Some((small(hour)?, small(minute)?, small(second)?))
}

/// A time in UTC.
pub(super) fn utc((year, month, day): (i16, i8, i8), (hour, minute, second): (i8, i8, i8)) -> Option<Timestamp> {
    let civil = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    Offset::UTC.to_timestamp(civil).ok()
}

/// `22/Nov/2026:21:12:01 +0100`.
pub(super) fn access(text: &str) -> Option<Timestamp> {
    let (civil, offset) = text.split_once(' ')?;
    let (day, clock_text) = civil.split_once(':')?;
    let mut parts = day.split('/');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || day.len() != 2 || year.len() != 4 {
        return None;
    }
    let local = utc((small(year)?, month_named(month)?, small(day)?), clock(clock_text)?)?;
    let sign = match offset.as_bytes() {
        [b'+', _, _, _, _] => 1,
        [b'-', _, _, _, _] => -1,
        _ => return None,
    };
    let (hours, minutes) = (number(offset.get(1..3)?)?, number(offset.get(3..5)?)?);
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()? * sign;
    Timestamp::from_second(local.as_second().checked_sub(seconds)?).ok()
}

/// A month, a day and a time without a year: the last such time that is not
/// after the file was written.
pub(super) fn yearless(month: &str, day: &str, clock_text: &str, Now(now): Now) -> Option<Timestamp> {
    let (month, day, clock) = (month_named(month)?, small(day)?, clock(clock_text)?);
    let this_year = Offset::UTC.to_datetime(now).year();
    let not_after = now.as_second().saturating_add(AHEAD_SECONDS);
    // The year after it, too: the first hours of January, in a zone where it is December.
    (this_year - LEAP_YEARS..=this_year + 1)
        .rev()
        .filter_map(|year| utc((year, month, day), clock))
        .find(|time| time.as_second() <= not_after)
}

/// `2026-11-22T21:12:01.123456+01:00`, or with `Z`.
pub(super) fn iso(text: &str) -> Option<Timestamp> {
    let shaped =
        text.len() >= 20 && text.as_bytes()[10] == b'T' && text.starts_with(|first: char| first.is_ascii_digit());
    shaped.then(|| text.parse().ok()).flatten()
}

fn month_named(name: &str) -> Option<i8> {
    let index = MONTHS.iter().position(|month| *month == name)?;
    i8::try_from(index + 1).ok()
}

fn small<T: TryFrom<u64>>(digits: &str) -> Option<T> {
    T::try_from(number(digits)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_of_access_logs() {
        for (text, time) in [
            ("22/Nov/2026:21:12:01 +0000", Some("2026-11-22T21:12:01Z")),
            ("01/Jan/2027:00:30:00 +0130", Some("2026-12-31T23:00:00Z")),
            ("29/Feb/2024:23:59:60 -0800", Some("2024-03-01T07:59:59Z")),
            ("29/Feb/2026:00:00:00 +0000", None),
            ("22/Nob/2026:21:12:01 +0000", None),
            ("22/Nov/2026:21:12:01", None),
            ("22/Nov/2026:24:12:01 +0000", None),
            ("22/Nov/2026:21:12:1 +0000", None),
            ("2/Nov/2026:21:12:01 +0000", None),
            ("22/Nov/2026:21:12:01 +00é", None),
            ("22/Nov/2026:21:12:01 +-100", None),
        ] {
            assert_eq!(access(text), time.map(at), "{text}");
        }
    }

    #[test]
    fn a_year_is_the_last_that_is_not_in_the_future_of_the_file() {
        let now = Now(at("2026-11-22T12:00:00Z"));
        for (month, day, time) in [
            ("Nov", "22", "2026-11-22T10:00:00Z"),
            ("Nov", "23", "2026-11-23T10:00:00Z"),
            ("Nov", "24", "2025-11-24T10:00:00Z"),
            ("Dec", "31", "2025-12-31T10:00:00Z"),
            ("Jan", "1", "2026-01-01T10:00:00Z"),
            ("Feb", "29", "2024-02-29T10:00:00Z"),
        ] {
            assert_eq!(yearless(month, day, "10:00:00", now), Some(at(time)), "{month} {day}");
        }
        let new_year = Now(at("2026-12-31T20:00:00Z"));
        assert_eq!(
            yearless("Jan", "1", "01:00:00", new_year),
            Some(at("2027-01-01T01:00:00Z"))
        );
        assert_eq!(yearless("Feb", "30", "01:00:00", now), None);
        assert_eq!(yearless("Feb", "", "01:00:00", now), None);
    }

    #[test]
    fn dates_clocks_and_iso() {
        assert_eq!(date("2026/11/22", '/'), Some((2026, 11, 22)));
        assert_eq!(date("2026/11/22/1", '/'), None);
        assert_eq!(date("26-11-22", '-'), None);
        assert_eq!(clock("21:12:60"), Some((21, 12, 59)));
        assert_eq!(clock("21:12"), None);
        assert_eq!(iso("2026-11-22T21:12:01.5+01:00"), Some(at("2026-11-22T20:12:01.5Z")));
        assert_eq!(iso("2026-11-22T21:12:01"), None);
        assert_eq!(iso("2026-11-22 21:12:01Z"), None);
    }
}
