//! The marks of an axis of time: at round times, in UTC, in few words.

use jiff::{
    Timestamp, Zoned,
    civil::{Date, DateTime},
    tz::TimeZone,
};

use crate::demo::logs::histogram::Step;

/// A mark.
#[derive(Debug, PartialEq)]
pub(in crate::demo::logs) struct Tick {
    /// In seconds since 1970.
    pub(in crate::demo::logs) at: i64,
    pub(in crate::demo::logs) label: String,
    /// The day or year it is in, at the first mark and where it begins.
    pub(in crate::demo::logs) below: Option<String>,
}

/// How far apart marks may be.
#[derive(Clone, Copy, Debug)]
enum Apart {
    Seconds(i64),
    Months(i16),
}

use Apart::{Months, Seconds};

const DAY: i64 = 86_400;

const APARTS: [Apart; 30] = [
    Seconds(1),
    Seconds(2),
    Seconds(5),
    Seconds(10),
    Seconds(15),
    Seconds(30),
    Seconds(60),
    Seconds(2 * 60),
    Seconds(5 * 60),
    Seconds(10 * 60),
    Seconds(15 * 60),
    Seconds(30 * 60),
    Seconds(3600),
    Seconds(2 * 3600),
    Seconds(3 * 3600),
    Seconds(6 * 3600),
    Seconds(12 * 3600),
    Seconds(DAY),
    Seconds(2 * DAY),
    Seconds(7 * DAY),
    Months(1),
    Months(2),
    Months(3),
    Months(6),
    Months(12),
    Months(24),
    Months(60),
    Months(120),
    Months(1200),
    Months(12_000),
];

/// Marks between two seconds, at most so many.
pub(in crate::demo::logs) fn ticks(start: i64, end: i64, at_most: usize) -> Vec<Tick> {
    for apart in APARTS {
        let rough = match apart {
            Seconds(seconds) => (end - start) / seconds,
            Months(months) => (end - start) / (i64::from(months) * 28 * DAY),
        };
        // Marks that are far too many need not be made.
        if rough <= 2 * at_most as i64 {
            let marks = marks(apart, start, end);
            if marks.len() <= at_most {
                return labelled(apart, &marks);
            }
        }
    }
    Vec::new()
}

fn marks(apart: Apart, start: i64, end: i64) -> Vec<i64> {
    match apart {
        Seconds(seconds) => {
            // The first Monday of 1970 was the 5th.
            let shift = if seconds == 7 * DAY { 4 * DAY } else { 0 };
            let first = (start - shift + seconds - 1).div_euclid(seconds) * seconds + shift;
            (first..=end).step_by(usize::try_from(seconds).unwrap_or(1)).collect()
        }
        Months(months) => {
            let Some(from) = civil(start) else { return Vec::new() };
            let month = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month()) - 1;
            let first = month(from.date()).div_euclid(i32::from(months)) * i32::from(months);
            let all = (0..).map(|n| first + n * i32::from(months)).map_while(|month| {
                let (year, month) = (
                    i16::try_from(month.div_euclid(12)).ok()?,
                    i8::try_from(month.rem_euclid(12)).ok()?,
                );
                let date = Date::new(year, month + 1, 1).ok()?;
                let zoned: Zoned = date.to_zoned(TimeZone::UTC).ok()?;
                Some(zoned.timestamp().as_second())
            });
            all.skip_while(|at| *at < start).take_while(|at| *at <= end).collect()
        }
    }
}

fn labelled(apart: Apart, marks: &[i64]) -> Vec<Tick> {
    let (label, below) = match apart {
        Seconds(..60) => ("%H:%M:%S", "%-d %b %Y"),
        Seconds(..DAY) => ("%H:%M", "%-d %b %Y"),
        Seconds(_) => ("%-d %b", "%Y"),
        Months(..12) => ("%b", "%Y"),
        Months(_) => ("%Y", ""),
    };
    let mut before = String::new();
    let ticks = marks.iter().filter_map(|at| {
        let time = civil(*at)?;
        let now = time.strftime(below).to_string();
        let new = now != before && !now.is_empty();
        before.clone_from(&now);
        Some(Tick {
            at: *at,
            label: time.strftime(label).to_string(),
            below: new.then_some(now),
        })
    });
    ticks.collect()
}

/// A second since 1970 on the calendar.
fn civil(second: i64) -> Option<DateTime> {
    let time = Timestamp::from_second(second).ok()?;
    Some(TimeZone::UTC.to_datetime(time))
}

/// A span of time for people, as exactly as steps of this width are:
/// `2026-11-22 21:00 to 21:45 UTC`, or with both dates, or days alone.
pub(super) fn span(start: i64, end: i64, step: Step) -> String {
    let clock = match step.seconds() {
        ..60 => " %H:%M:%S",
        60..DAY => " %H:%M",
        _ => "",
    };
    // The last day is that before midnight.
    let last = if clock.is_empty() { end - 1 } else { end };
    let (Some(start), Some(last)) = (civil(start), civil(last)) else {
        return String::new();
    };
    let whole = format!("%Y-%m-%d{clock}");
    let until = match clock.is_empty() || start.date() != last.date() {
        true => &whole,
        false => clock.trim_start(),
    };
    format!("{} to {} UTC", start.strftime(&whole), last.strftime(until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn told(start: &str, end: &str) -> Vec<String> {
        ticks(at(start), at(end), 8)
            .into_iter()
            .map(|tick| match tick.below {
                Some(below) => format!("{} / {below}", tick.label),
                None => tick.label,
            })
            .collect()
    }

    #[test]
    fn marks_are_at_round_times() {
        assert_eq!(
            told("2026-11-22T21:12:01Z", "2026-11-22T21:12:31Z"),
            [
                "21:12:05 / 22 Nov 2026",
                "21:12:10",
                "21:12:15",
                "21:12:20",
                "21:12:25",
                "21:12:30"
            ]
        );
        assert_eq!(
            told("2026-11-22T21:00:00Z", "2026-11-23T04:00:00Z"),
            [
                "21:00 / 22 Nov 2026",
                "22:00",
                "23:00",
                "00:00 / 23 Nov 2026",
                "01:00",
                "02:00",
                "03:00",
                "04:00"
            ]
        );
        assert_eq!(
            told("2026-10-30T00:00:00Z", "2026-12-10T00:00:00Z"),
            ["2 Nov / 2026", "9 Nov", "16 Nov", "23 Nov", "30 Nov", "7 Dec"]
        );
        assert_eq!(
            told("2025-06-24T00:00:00Z", "2026-11-23T00:00:00Z"),
            ["Jul / 2025", "Oct", "Jan / 2026", "Apr", "Jul", "Oct"]
        );
        assert_eq!(
            told("1999-06-24T00:00:00Z", "2026-11-23T00:00:00Z"),
            ["2000", "2005", "2010", "2015", "2020", "2025"]
        );
    }

    #[test]
    fn there_are_never_too_many_and_for_no_span_none_fit() {
        for (start, end) in [(0, 0), (0, 1), (-5_000_000_000, 9), (-62_135_596_800, 253_402_300_799)] {
            for at_most in [1, 2, 8] {
                let ticks = ticks(start, end, at_most);
                assert!(ticks.len() <= at_most, "{start} {end}");
                assert!(ticks.iter().all(|tick| (start..=end).contains(&tick.at)));
            }
        }
    }

    #[test]
    fn spans() {
        for (start, end, told) in [
            (
                "2026-11-22T21:00:00Z",
                "2026-11-22T21:00:10Z",
                "2026-11-22 21:00:00 to 21:00:10 UTC",
            ),
            (
                "2026-11-22T21:00:00Z",
                "2026-11-23T04:30:00Z",
                "2026-11-22 21:00 to 2026-11-23 04:30 UTC",
            ),
            (
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
                "2026-11-01 to 2026-11-30 UTC",
            ),
        ] {
            let (start, end) = (at(start), at(end));
            let step = Step::default().fitting((start, end - 1), 40);
            assert_eq!(span(start, end, step), told);
        }
    }
}
