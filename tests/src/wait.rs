//! Waiting for what happens in other processes: by asking again, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Nothing that is not slow by design takes this long, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to see, and gives it.
///
/// # Panics
/// When there is nothing by `deadline`, naming what was waited for.
#[track_caller]
pub fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + deadline;
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            assert!(Instant::now() < end, "{caller}: {what}: not within {deadline:?}");
            sleep(PAUSE).await;
        }
    }
}

/// Waits for one thing.
///
/// # Panics
/// When it is not done by `deadline`, naming it.
#[track_caller]
pub fn within<F: Future>(what: &str, deadline: Duration, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(deadline, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: {what}: not within {deadline:?}"),
        }
    }
}
