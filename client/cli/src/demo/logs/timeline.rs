//! Rows over time, as bars: for each format one row of them, all over the same time.

use super::{
    forms::Form,
    histogram::{Counts, Step},
    tally::{Tallies, Tally},
};

/// A plot has at least so many bars, so that a moment is no wall.
const MIN_BARS: usize = 12;

/// Bars of all formats.
pub(super) struct Timeline {
    pub(super) step: Step,
    /// Where the first bar begins, in seconds since 1970.
    pub(super) start: i64,
    /// How many bars there are.
    pub(super) bars: usize,
    pub(super) panels: Vec<Panel>,
}

/// Bars of one format.
pub(super) struct Panel {
    pub(super) form: &'static Form,
    pub(super) classes: Counts,
    pub(super) bars: Vec<Counts>,
}

impl Timeline {
    /// With so many bars, or as many as make sense; `None` if no row has a time.
    pub(super) fn of(tallies: &Tallies, at_most: usize) -> Option<Self> {
        let timed = || {
            tallies
                .iter()
                .filter_map(|(form, tally)| Some((form, tally, tally.times.span()?)))
        };
        let first = timed().map(|(.., (first, _))| first).min()?;
        let last = timed().map(|(.., (_, last))| last).max()?;
        let exact = timed().map(|(_, tally, _)| tally.times.step()).max()?;
        let step = exact.fitting((first, last), at_most);
        let start = first.div_euclid(step.seconds()) * step.seconds();
        let bars = step.count(first, last).max(MIN_BARS.min(at_most));
        let panel = |form, tally: &Tally| Panel {
            form,
            classes: tally.classes,
            bars: tally.times.bars(step, start, bars),
        };
        Some(Self {
            step,
            start,
            bars,
            panels: timed().map(|(form, tally, _)| panel(form, tally)).collect(),
        })
    }

    /// Where the last bar ends, in seconds since 1970.
    pub(super) fn end(&self) -> i64 {
        self.start + self.step.seconds() * i64::try_from(self.bars).unwrap_or(i64::MAX)
    }
}

/// A number above the largest bar that is easily read, and how far apart the
/// marks below it are: at most `marks`.
pub(super) fn scale(largest: u64, marks: u64) -> (u64, u64) {
    let mut unit = 1;
    loop {
        for step in [unit, 2 * unit, 5 * unit] {
            if largest.div_ceil(step) <= marks {
                return (largest.div_ceil(step).max(1) * step, step);
            }
        }
        unit *= 10;
    }
}

/// A count in few characters.
pub(super) fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 if count.is_multiple_of(1000) => format!("{}k", count / 1000),
        10_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_reach_above() {
        for (largest, marks, expected) in [
            (0, 4, (1, 1)),
            (1, 4, (1, 1)),
            (4, 4, (4, 1)),
            (5, 4, (6, 2)),
            (23, 4, (30, 10)),
            (999, 4, (1000, 500)),
            (1_000_001, 2, (1_500_000, 500_000)),
        ] {
            let (top, step) = scale(largest, marks);
            assert!(top >= largest && top / step <= marks && top % step == 0, "{largest}");
            if (largest, marks) != (1_000_001, 2) {
                assert_eq!((top, step), expected, "{largest}");
            }
        }
        assert_eq!(
            [7, 9_999, 12_000, 12_300, 2_500_000].map(short),
            ["7", "9999", "12k", "12.3k", "2.5M"]
        );
    }
}
