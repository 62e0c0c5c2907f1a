//! How long a run has, and how its handler asks for more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use asynq_proto::limits::MAX_DURATION;
use foldhash::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::context::LeaseToken;
use crate::limits::EXTEND_SLACK;

/// When a run's time is up.
#[derive(Debug, Default)]
pub(crate) struct RunTime {
    /// By its attempt's timeout, which can be moved.
    timeout_at: Option<Mutex<Instant>>,
    /// By its task's deadline, which cannot.
    deadline_at: Option<Instant>,
    extensions: Extensions,
}

/// What runs have asked for and the broker has not been told: at most one wish of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extensions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<HashMap<LeaseToken, Instant>>,
    news: Notify,
}

impl RunTime {
    pub(crate) fn new(timeout_at: Option<Instant>, deadline_at: Option<Instant>, extensions: Extensions) -> Self {
        Self {
            timeout_at: timeout_at.map(Mutex::new),
            deadline_at,
            extensions,
        }
    }

    /// Whichever is nearer.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let timeout_at = self.timeout_at.as_ref().map(|at| *locked(at));
        [timeout_at, self.deadline_at].into_iter().flatten().min()
    }

    /// At least as long from now on. A little more is asked for, so that who asks all
    /// the time is not a burden.
    pub(crate) fn extend(&self, token: LeaseToken, by: Duration) {
        let Some(timeout_at) = &self.timeout_at else { return };
        let now = Instant::now();
        let by = by.min(MAX_DURATION);
        let mut at = locked(timeout_at);
        if self.deadline_at.is_some_and(|deadline| *at >= deadline) || *at >= now + by {
            return;
        }
        *at = now + by + (by / 8).max(EXTEND_SLACK);
        locked(&self.extensions.0.wanted).insert(token, *at);
        self.extensions.0.news.notify_one();
    }
}

impl Extensions {
    /// Until there is something to take.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }

    pub(crate) fn take(&self) -> HashMap<LeaseToken, Instant> {
        std::mem::take(&mut locked(&self.0.wanted))
    }
}

// Nothing panics under the lock.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TOKEN: LeaseToken = LeaseToken {
        task_id: Uuid::nil(),
        epoch: 1,
        attempt: 1,
    };

    fn left(time: &RunTime) -> Option<Duration> {
        Some(time.ends_at()? - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn more_time_is_told_of_and_no_oftener_than_it_must() {
        let extensions = Extensions::default();
        let timeout_at = Instant::now() + 10 * SECOND;
        let time = RunTime::new(Some(timeout_at), None, extensions.clone());
        time.extend(TOKEN, 5 * SECOND);
        assert_eq!(
            (left(&time), extensions.take().len()),
            (Some(10 * SECOND), 0),
            "it has that"
        );
        for _ in 0..1000 {
            time.extend(TOKEN, 40 * SECOND);
        }
        assert_eq!(left(&time), Some(45 * SECOND));
        assert!(extensions.news().now_or_never().is_some());
        let told = extensions.take();
        assert_eq!(told.get(&TOKEN), Some(&(Instant::now() + 45 * SECOND)));
        assert!(extensions.news().now_or_never().is_none());

        let mut times = 0;
        for _ in 0..60 {
            tokio::time::advance(SECOND).await;
            time.extend(TOKEN, 40 * SECOND);
            assert!(left(&time) >= Some(40 * SECOND));
            times += extensions.take().len();
        }
        assert_eq!(times, 10, "told once in six seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_does_not_move_and_without_a_timeout_there_is_nothing_to_move() {
        let extensions = Extensions::default();
        let deadline_at = Some(Instant::now() + 3 * SECOND);
        let time = RunTime::new(Some(Instant::now() + SECOND), deadline_at, extensions.clone());
        time.extend(TOKEN, 60 * SECOND);
        assert_eq!(left(&time), Some(3 * SECOND));
        extensions.take();
        time.extend(TOKEN, Duration::MAX);
        assert!(extensions.take().is_empty(), "more would not help");

        for deadline in [None, deadline_at] {
            let time = RunTime::new(None, deadline, extensions.clone());
            time.extend(TOKEN, SECOND);
            assert_eq!(time.ends_at(), deadline);
            assert!(extensions.take().is_empty());
        }
    }
}
