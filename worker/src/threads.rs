//! Threads for blocking handlers. The runtime's own blocking pool would do but
//! for its end: it waits for handlers that never return, and the process with it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::limits::THREAD_IDLE;

type Work = Box<dyn FnOnce() + Send>;

/// A pool that grows with need and shrinks when idle. Whoever uses it bounds
/// it, by handing in no more work at a time than there are slots and lent ones.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    idle: usize,
}

impl Threads {
    /// Runs `work`, which must not panic, on a thread of its own.
    pub(crate) fn run(&self, work: Work) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.idle > state.waiting.len() {
            state.waiting.push_back(work);
            self.0.wake.notify_one();
            return Ok(());
        }
        drop(state);
        let shared = self.0.clone();
        thread::Builder::new()
            .name("asynq-run".into())
            .spawn(move || shared.serve(work))
            .map(drop)
    }
}

impl Shared {
    // No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, first: Work) {
        first();
        let mut state = self.lock();
        loop {
            state.idle += 1;
            let wait = self
                .wake
                .wait_timeout_while(state, THREAD_IDLE, |state| state.waiting.is_empty());
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
            let Some(work) = state.waiting.pop_front() else { return };
            drop(state);
            work();
            state = self.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn threads_are_used_again_and_busy_ones_do_not_delay_others() {
        let threads = Threads::default();
        let (done, finished) = mpsc::sync_channel(16);
        let (release, held) = mpsc::sync_channel::<()>(1);
        threads.run(Box::new(move || held.recv().unwrap_or_default())).unwrap();
        for n in 0..10 {
            let done = done.clone();
            threads
                .run(Box::new(move || done.send((n, thread::current().id())).unwrap()))
                .unwrap();
            let (m, _) = finished.recv_timeout(THREAD_IDLE).unwrap();
            assert_eq!(m, n);
        }
        release.send(()).unwrap();
    }

    #[test]
    fn an_idle_thread_takes_the_next_run() {
        let threads = Threads::default();
        let (done, finished) = mpsc::sync_channel(1);
        let mut ids = Vec::new();
        for _ in 0..2 {
            let done = done.clone();
            threads
                .run(Box::new(move || done.send(thread::current().id()).unwrap()))
                .unwrap();
            ids.push(finished.recv_timeout(THREAD_IDLE).unwrap());
            while threads.0.lock().idle == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(ids[0], ids[1]);
    }
}
