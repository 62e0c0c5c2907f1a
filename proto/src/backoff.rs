//! How long to wait before trying again: full jitter, so that a thousand
//! peers that lost the same broker do not come back in step.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE, BACKOFF_CAP};

/// A growing, jittered pause. One per connection that is kept up.
///
/// The n-th pause is drawn evenly from zero to `base · 2ⁿ`, at most `cap`.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// A back-off that starts at `base` and never pauses longer than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0 }
    }

    /// The one for reconnecting to a broker.
    pub const fn reconnect() -> Self {
        Self::new(BACKOFF_BASE, BACKOFF_CAP)
    }

    /// The next pause; the one after it may be longer.
    pub fn pause(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    /// It worked: the next failure starts at `base` again.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }

    fn ceiling(&self) -> Duration {
        let factor = 1u32.checked_shl(self.tries).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_millis(500);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_a_reset_starts_over() {
        let mut backoff = Backoff::new(BASE, CAP);
        let mut ceilings = Vec::new();
        for _ in 0..100 {
            let ceiling = backoff.ceiling();
            assert!(backoff.pause() <= ceiling);
            ceilings.push(ceiling.as_millis());
        }
        assert_eq!(ceilings[..5], [50, 100, 200, 400, 500]);
        assert_eq!(ceilings[99], 500);

        backoff.reset();
        assert_eq!(backoff.ceiling(), BASE);
    }

    #[test]
    fn pauses_are_spread_over_the_whole_range() {
        let pauses: Vec<_> = (0..1000).map(|_| Backoff::new(CAP, CAP).pause()).collect();
        assert!(pauses.iter().any(|p| *p < CAP / 4));
        assert!(pauses.iter().any(|p| *p > CAP / 4 * 3));
    }
}
