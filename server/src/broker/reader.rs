//! The thread that reads: arguments that are not in memory, and tasks that
//! have ended.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use asynq_core::{Assignment, Finished, LeaseToken, Payload, Seq, TaskId, TaskRecord};
use asynq_store::{Reader as StoreReader, StoreError};
use tokio::sync::{mpsc, oneshot};

use super::caller::{Answer, Caller};
use super::error::Error;

/// Something to read.
#[derive(Debug)]
pub(super) enum Job {
    /// The arguments of a run about to be handed out.
    Arguments(Box<Assignment>),
    /// A task the core does not know.
    Task(TaskId),
    /// The result of a task that has succeeded, for a caller who waits.
    Result {
        seq: Seq,
        finished: Box<Finished>,
        caller: Arc<Caller>,
        call: u64,
    },
    /// Arguments too large to ride with their run.
    Fetch {
        token: LeaseToken,
        reply: oneshot::Sender<Result<Payload, Error>>,
    },
}

/// What the loop wants to know of what was read.
#[derive(Debug)]
pub(super) enum Found {
    /// See [`Job::Arguments`]; `None` if the store does not have them any more.
    Arguments(Box<Assignment>, Option<Payload>),
    /// See [`Job::Task`].
    Task(TaskId, Option<(Seq, Box<TaskRecord>)>),
}

/// The loop's end of the reading thread. Jobs gather while the thread reads;
/// they are bounded by the operations and slots they serve.
#[derive(Debug)]
pub(super) struct Reader {
    waiting: Vec<Job>,
    busy: bool,
    jobs: SyncSender<Vec<Job>>,
    found: mpsc::Receiver<Result<Vec<Found>, StoreError>>,
}

impl Reader {
    pub(super) fn start(reader: Box<dyn StoreReader>) -> std::io::Result<Self> {
        // One set of jobs at a time is under way, so this never blocks the loop.
        let (jobs, from_loop) = sync_channel(1);
        let (to_loop, found) = mpsc::channel(1);
        thread::Builder::new()
            .name("asynq-reader".into())
            .spawn(move || run(reader, &from_loop, &to_loop))?;
        Ok(Self {
            waiting: Vec::new(),
            busy: false,
            jobs,
            found,
        })
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push(job);
    }

    /// Hands over what has gathered, if the thread is idle.
    pub(super) fn kick(&mut self) {
        if !self.busy && !self.waiting.is_empty() {
            // If the thread has ended, `next` says so.
            let _ = self.jobs.try_send(std::mem::take(&mut self.waiting));
            self.busy = true;
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }

    /// What was found. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Vec<Found>, StoreError> {
        let found = self.found.recv().await;
        self.busy = false;
        found.unwrap_or_else(|| Err(StoreError::Failed("the reading thread died".into())))
    }
}

fn run(
    mut reader: Box<dyn StoreReader>,
    jobs: &Receiver<Vec<Job>>,
    found: &mpsc::Sender<Result<Vec<Found>, StoreError>>,
) {
    while let Ok(jobs) = jobs.recv() {
        let result = read(&mut *reader, jobs);
        let failed = result.is_err();
        if found.blocking_send(result).is_err() || failed {
            return;
        }
    }
}

fn read(reader: &mut dyn StoreReader, jobs: Vec<Job>) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::with_capacity(jobs.len());
    let mut runs = Vec::new();
    for job in jobs {
        match job {
            Job::Arguments(assignment) => runs.push(assignment),
            Job::Task(id) => {
                let task = reader.task(id)?.map(|(seq, record)| (seq, Box::new(record)));
                found.push(Found::Task(id, task));
            }
            Job::Result {
                seq,
                mut finished,
                caller,
                call,
            } => {
                let answer = match reader.result(seq)? {
                    None => Answer::Failed(Error::ResultExpired(finished.task)),
                    result => {
                        finished.result = result;
                        Answer::finished(Arc::from(finished))
                    }
                };
                caller.answer(call, answer, true);
            }
            Job::Fetch { token, reply } => {
                let payload = match reader.task(token.task)? {
                    Some((seq, _)) => reader.payloads(&[seq])?.pop().flatten(),
                    None => None,
                };
                // A worker that has gone needs no answer.
                let _ = reply.send(payload.ok_or(Error::StaleLease(token)));
            }
        }
    }
    let seqs: Vec<Seq> = runs.iter().map(|run| run.seq).collect();
    let payloads = if seqs.is_empty() {
        Vec::new()
    } else {
        reader.payloads(&seqs)?
    };
    found.extend(
        runs.into_iter()
            .zip(payloads)
            .map(|(run, payload)| Found::Arguments(run, payload)),
    );
    Ok(found)
}
