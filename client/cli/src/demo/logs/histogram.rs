//! How many rows there were when, in bounded memory: the more time there is,
//! the wider the steps it is counted in.

use std::collections::BTreeMap;

use super::forms::MAX_CLASSES;
use crate::limits::MAX_BUCKETS;

/// Rows of each class.
pub(super) type Counts = [u64; MAX_CLASSES];

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Widths of a step in seconds, and their names. Each is so many of the one
/// before, so that no row has to be counted again.
const STEPS: [(i64, &str); 18] = [
    (1, "second"),
    (5, "5 seconds"),
    (15, "15 seconds"),
    (30, "30 seconds"),
    (MINUTE, "minute"),
    (5 * MINUTE, "5 minutes"),
    (15 * MINUTE, "15 minutes"),
    (30 * MINUTE, "30 minutes"),
    (HOUR, "hour"),
    (3 * HOUR, "3 hours"),
    (6 * HOUR, "6 hours"),
    (12 * HOUR, "12 hours"),
    (DAY, "day"),
    (7 * DAY, "week"),
    (28 * DAY, "4 weeks"),
    (84 * DAY, "12 weeks"),
    (336 * DAY, "48 weeks"),
    (3360 * DAY, "480 weeks"),
];

/// A width, by its place among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step(usize);

impl Step {
    pub(super) fn seconds(self) -> i64 {
        STEPS[self.0].0
    }

    pub(super) fn name(self) -> &'static str {
        STEPS[self.0].1
    }

    fn next(self) -> Self {
        Self((self.0 + 1).min(STEPS.len() - 1))
    }

    /// The narrowest from `self` on by which a span has at most so many.
    pub(super) fn fitting(self, (first, last): (i64, i64), at_most: usize) -> Self {
        let mut step = self;
        while step.count(first, last) > at_most && step != step.next() {
            step = step.next();
        }
        step
    }

    /// How many steps a span touches.
    pub(super) fn count(self, first: i64, last: i64) -> usize {
        let count = last.div_euclid(self.seconds()) - first.div_euclid(self.seconds()) + 1;
        usize::try_from(count).unwrap_or(0)
    }
}

/// The rows of one format over time.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    step: Step,
    /// By the step's number, counted from 1970.
    buckets: BTreeMap<i64, Counts>,
}

impl Histogram {
    /// Counts a row at a time, in seconds since 1970.
    pub(super) fn add(&mut self, second: i64, class: usize) {
        self.buckets.entry(second.div_euclid(self.step.seconds())).or_default()[class] += 1;
        while self.buckets.len() > MAX_BUCKETS && self.step != self.step.next() {
            self.widen();
        }
    }

    fn widen(&mut self) {
        let wider = self.step.next();
        let ratio = wider.seconds() / self.step.seconds();
        let narrow = std::mem::take(&mut self.buckets);
        for (at, counts) in narrow {
            add(self.buckets.entry(at.div_euclid(ratio)).or_default(), &counts);
        }
        self.step = wider;
    }

    /// How exact it is.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// The first and the last second it knows of.
    pub(super) fn span(&self) -> Option<(i64, i64)> {
        let (first, last) = (self.buckets.first_key_value()?, self.buckets.last_key_value()?);
        let width = self.step.seconds();
        Some((first.0 * width, last.0 * width + width - 1))
    }

    /// Rows of each of `n` steps from a second on, which begins one. The steps
    /// are at least as wide as its own.
    pub(super) fn bars(&self, step: Step, start: i64, n: usize) -> Vec<Counts> {
        let mut bars = vec![Counts::default(); n];
        for (at, counts) in &self.buckets {
            let bar = (at * self.step.seconds() - start).div_euclid(step.seconds());
            if let Some(bar) = usize::try_from(bar).ok().and_then(|bar| bars.get_mut(bar)) {
                add(bar, counts);
            }
        }
        bars
    }
}

pub(super) fn add(sum: &mut Counts, counts: &Counts) {
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_so_many_of_the_one_before() {
        for pair in STEPS.windows(2) {
            assert_eq!(pair[1].0 % pair[0].0, 0, "{pair:?}");
        }
    }

    #[test]
    fn no_row_is_lost_when_time_grows() {
        let mut histogram = Histogram::default();
        let mut second = -100_000_000;
        let mut sent = 0;
        while second < 3_000_000_000 {
            histogram.add(second, sent % 3);
            sent += 1;
            second += 86_000;
        }
        assert!(histogram.buckets.len() <= MAX_BUCKETS);
        let span = histogram.span().unwrap();
        assert!(span.0 <= -100_000_000 && span.1 >= second - 86_000);
        let step = histogram.step().fitting(span, 120);
        let n = step.count(span.0, span.1);
        assert!((10..=120).contains(&n), "{n} of {step:?}");
        let start = span.0.div_euclid(step.seconds()) * step.seconds();
        let bars = histogram.bars(step, start, n);
        assert_eq!(bars.iter().flatten().sum::<u64>(), sent as u64);
        assert!(bars.iter().all(|bar| bar.iter().sum::<u64>() > 0));
    }

    #[test]
    fn the_whole_calendar_fits() {
        let mut histogram = Histogram::default();
        let mut second = -62_135_596_800;
        while second < 253_402_300_799 {
            histogram.add(second, 0);
            second += 20_000_000;
        }
        assert!(histogram.buckets.len() <= MAX_BUCKETS);
        let (first, last) = histogram.span().unwrap();
        let step = histogram.step().fitting((first, last), 2000);
        assert!(step.count(first, last) <= 2000);
    }
}
