//! A worker to be killed and stopped: it keeps a journal of its runs.
//!
//!     asynq-torture-worker BROKER NAME SLOTS JOURNAL

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_core::{Epoch, Grant, LeaseToken, TaskId};
use asynq_tests::dice::mix;
use asynq_tests::journal::{Deed, Journal, WORK, Work};
use asynq_worker::{Context, TaskError, Worker};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [broker, name, slots, journal] = &args[..] else {
        eprintln!("usage: asynq-torture-worker BROKER NAME SLOTS JOURNAL");
        return ExitCode::from(2);
    };
    match run(broker, name, slots, Path::new(journal)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("asynq-torture-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(broker: &str, name: &str, slots: &str, journal: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (journal, runs) = (Arc::new(Journal::open(journal)?), Arc::new(AtomicU64::new(0)));
    let mut term = signal(SignalKind::terminate())?;
    let worker = Worker::builder(broker)
        .name(name)
        .slots(slots.parse()?)
        .task(WORK, move |context, work| {
            // No other run of any process has this number.
            let number = u64::from(std::process::id()) << 32 | runs.fetch_add(1, Ordering::Relaxed);
            work_on(journal.clone(), context, work, mix(number))
        })
        .on_ready(|ready| println!("registered {} tasks with {}", ready.tasks, ready.broker));
    worker
        .run_until(async {
            term.recv().await;
        })
        .await?;
    Ok(())
}

/// A run, as far as its journal is concerned.
struct Run {
    journal: Arc<Journal>,
    token: LeaseToken,
    is_over: bool,
}

impl Run {
    fn over(mut self, deed: Deed) {
        self.is_over = true;
        self.journal.add(self.token, deed);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.is_over {
            self.journal.add(self.token, Deed::Dropped);
        }
    }
}

async fn work_on(journal: Arc<Journal>, context: Context, work: Work, number: u64) -> Result<u64, TaskError> {
    let of = context.token();
    let grant = Grant {
        epoch: Epoch(of.epoch),
        attempt: of.attempt,
    };
    let token = LeaseToken {
        task: TaskId(*of.task_id.as_bytes()),
        grant,
    };
    journal.add(token, Deed::Began);
    let run = Run {
        journal,
        token,
        is_over: false,
    };
    if work.ms > 0 {
        tokio::time::sleep(Duration::from_millis(work.ms)).await;
    }
    if work.fails && grant.attempt == 1 {
        run.over(Deed::Failed);
        return Err(TaskError::retryable("it fails once, as asked"));
    }
    run.over(Deed::Returned(number));
    Ok(number)
}
