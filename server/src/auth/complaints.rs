//! Complaints about peers: every reason reaches the log, no flood does.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::limits::{COMPLAINT_WINDOW, COMPLAINTS_PER_WINDOW};

/// Counts what is logged.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    logged: u32,
    passed_over: u64,
}

impl Complaints {
    /// Whether one more may be logged now; if so, how many have not been since
    /// the last time.
    pub(crate) fn one_more(&self) -> Option<u64> {
        let now = Instant::now();
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_over = match &mut *window {
            Some(window) if now.duration_since(window.begun) < COMPLAINT_WINDOW => {
                if window.logged >= COMPLAINTS_PER_WINDOW {
                    window.passed_over += 1;
                    return None;
                }
                window.logged += 1;
                return Some(0);
            }
            Some(over) => over.passed_over,
            None => 0,
        };
        *window = Some(Window {
            begun: now,
            logged: 1,
            passed_over: 0,
        });
        Some(passed_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_and_told_later() {
        let complaints = Complaints::default();
        let told = (0..1000).filter_map(|_| complaints.one_more()).collect::<Vec<_>>();
        assert_eq!(told, vec![0; COMPLAINTS_PER_WINDOW as usize]);
        tokio::time::advance(COMPLAINT_WINDOW).await;
        assert_eq!(complaints.one_more(), Some(1000 - u64::from(COMPLAINTS_PER_WINDOW)));
        assert_eq!(complaints.one_more(), Some(0));
    }
}
