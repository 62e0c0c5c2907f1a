//! A worker inside the test, which sees what its handlers see: how often each
//! task was run, and when they may end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use asynq_worker::{Context, Ready, RunError, Task, TaskError, Worker};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use crate::wait::{PATIENCE, eventually, within};

/// A worker of this process; it ends with it. Dropped, it ends without a drain.
#[derive(Debug)]
pub struct WorkerHere {
    seen: Arc<Seen>,
    gate: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), RunError>>,
}

#[derive(Debug, Default)]
struct Seen {
    runs: Mutex<HashMap<Uuid, Vec<u64>>>,
    next_run: AtomicU64,
    ended: AtomicU64,
}

impl Seen {
    /// Notes that a run begins; no two have the same number.
    fn begin(&self, context: &Context) -> u64 {
        let run = self.next_run.fetch_add(1, Ordering::Relaxed);
        let mut runs = self.runs.lock().expect("no holder panics");
        runs.entry(context.task_id()).or_default().push(run);
        run
    }
}

impl WorkerHere {
    /// Takes so many ms and returns the number of its run.
    pub const QUICK: Task<u64, u64> = Task::new("quick");
    /// Ends when the gate is opened and returns the number of its run.
    pub const HELD: Task<(), u64> = Task::new("held");
    /// Panics, saying so.
    pub const PANICS: Task<(), ()> = Task::new("panics");

    /// Starts it and waits until it is registered.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn start(url: &str, slots: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let (gate, open) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let (registered, ready) = oneshot::channel();
        let (of_quick, of_held) = (seen.clone(), seen.clone());
        let worker = Worker::builder(url)
            .name("here")
            .slots(slots)
            .task(Self::QUICK, move |context, ms| quick(of_quick.clone(), context, ms))
            .task(Self::HELD, move |context, ()| {
                held(of_held.clone(), context, open.clone())
            })
            .task(Self::PANICS, async |_, ()| panic!("it panics as asked"))
            .on_ready(move |_: &Ready| registered.send(()).expect("the test waits for it"));
        // Asked to stop, or forgotten: either way it is over.
        let running = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        within("the worker to be registered", PATIENCE, ready)
            .await
            .expect("the worker goes on");
        Self {
            seen,
            gate,
            stop: Some(stop),
            running,
        }
    }

    /// Lets all `held` runs end, those to come too.
    pub fn open_the_gate(&self) {
        self.gate.send_replace(true);
    }

    /// The numbers of the runs of each task so far.
    ///
    /// # Panics
    /// Never, unless a handler has.
    #[must_use]
    pub fn runs(&self) -> HashMap<Uuid, Vec<u64>> {
        self.seen.runs.lock().expect("no holder panics").clone()
    }

    /// Those of one task.
    ///
    /// # Panics
    /// Never, unless a handler has.
    #[must_use]
    pub fn runs_of(&self, task: Uuid) -> Vec<u64> {
        let runs = self.seen.runs.lock().expect("no holder panics");
        runs.get(&task).cloned().unwrap_or_default()
    }

    /// How many runs have begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.seen.next_run.load(Ordering::Relaxed)
    }

    /// How many runs have come to their end.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.seen.ended.load(Ordering::Relaxed)
    }

    /// Waits until so many runs have come to their end.
    ///
    /// # Panics
    /// When they do not.
    pub async fn has_ended(&self, runs: u64, deadline: Duration) {
        eventually(&format!("{runs} runs to end"), deadline, || async {
            (self.ended() >= runs).then_some(())
        })
        .await;
    }

    /// Drains the worker.
    ///
    /// # Panics
    /// When that fails.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let ended = within("the worker to drain", PATIENCE, &mut self.running).await;
        ended.expect("the worker does not panic").expect("the worker drains");
    }
}

impl Drop for WorkerHere {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn quick(seen: Arc<Seen>, context: Context, ms: u64) -> Result<u64, TaskError> {
    let run = seen.begin(&context);
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
    seen.ended.fetch_add(1, Ordering::Relaxed);
    Ok(run)
}

async fn held(seen: Arc<Seen>, context: Context, mut gate: watch::Receiver<bool>) -> Result<u64, TaskError> {
    let run = seen.begin(&context);
    // A gate that is gone will not open: the run is dropped with its worker.
    let open = gate.wait_for(|open| *open).await.is_ok();
    seen.ended.fetch_add(1, Ordering::Relaxed);
    if open {
        Ok(run)
    } else {
        Err(TaskError::retryable("the gate is gone"))
    }
}
