//! How often a value fell into which range.

/// Ranges a histogram may have, besides the last, which has no end.
const MAX_BUCKETS: usize = 15;

/// Counts of values, by range. Costs a handful of comparisons for each.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    /// The largest value of each range, rising.
    bounds: &'static [u64],
    counts: [u64; MAX_BUCKETS + 1],
    sum: u64,
}

impl Histogram {
    pub(crate) const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= MAX_BUCKETS, "too many ranges");
        Self {
            bounds,
            counts: [0; MAX_BUCKETS + 1],
            sum: 0,
        }
    }

    pub(crate) fn observe(&mut self, value: u64) {
        let range = self.bounds.partition_point(|&bound| bound < value);
        self.counts[range] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Each bound with the values up to it, as Prometheus counts them; the last
    /// has no bound.
    pub(crate) fn cumulated(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_its_bound_and_beyond() {
        let mut histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, u64::MAX] {
            histogram.observe(value);
        }
        let counted: Vec<_> = histogram.cumulated().collect();
        assert_eq!(counted, [(Some(10), 2), (Some(100), 4), (None, 6)]);
        assert_eq!(histogram.sum(), u64::MAX, "it saturates");
    }
}
