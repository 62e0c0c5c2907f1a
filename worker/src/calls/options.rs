//! How a task is to be run that a run makes.

use std::time::Duration;

/// Milliseconds, rounded up so that a short time is never "none".
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The builder methods of calls and of what is spawned.
macro_rules! call_options {
    () => {
        /// The queue to put it in. Default: `default`.
        pub fn queue(mut self, queue: impl Into<String>) -> Self {
            self.options.queue = queue.into();
            self
        }

        /// Its fair-share key inside the queue. Default: `""`.
        pub fn series(mut self, series: impl Into<String>) -> Self {
            self.options.series = series.into();
            self
        }

        /// −20 to 20, smaller sooner. Default: 0.
        pub fn niceness(mut self, niceness: i32) -> Self {
            self.options.niceness = niceness;
            self
        }

        /// Runs before all tasks that take fair turns.
        pub fn next(mut self) -> Self {
            self.options.placement = asynq_proto::v1::Placement::Next.into();
            self
        }

        /// Runs only when nothing else can.
        pub fn last(mut self) -> Self {
            self.options.placement = asynq_proto::v1::Placement::Last.into();
            self
        }

        /// Starts no sooner than this after the broker has accepted it.
        pub fn delay(mut self, delay: std::time::Duration) -> Self {
            self.options.delay_ms = crate::calls::options::ms(delay);
            self
        }

        /// How long one attempt may take. Default: for ever, or what the worker that
        /// runs it has declared.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout_ms = crate::calls::options::ms(timeout);
            self
        }

        /// Expires unless it has ended within this time from now on. Default: never.
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            if let Some(shared) = &self.context.calls().shared {
                self.options.deadline_ms = shared.unix_ms(deadline);
            }
            self
        }

        /// How often it is tried again, after failures and after timeouts: 0 to 999.
        /// Default: 0, or what the worker that runs it has declared.
        pub fn retries(mut self, retries: u32) -> Self {
            let attempts = retries.saturating_add(1);
            self.options.max_attempts = Some(attempts);
            self.options.max_timeouts = Some(attempts);
            self
        }

        /// Never begins twice, whatever happens; so it may not be run to its end.
        /// Excludes [`retries`](Self::retries); the broker needs a durable store.
        pub fn at_most_once(mut self) -> Self {
            self.options.at_most_once = true;
            self
        }

        /// How long the broker keeps its result. Default: an hour.
        pub fn result_ttl(mut self, ttl: std::time::Duration) -> Self {
            self.options.result_ttl_ms = Some(crate::calls::options::ms(ttl));
            self
        }
    };
}
pub(crate) use call_options;
