//! Threads that read: one for arguments that are not in memory and for tasks
//! that have ended, another one for listings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use asynq_core::{
    Assignment, Finished, Key, LeaseToken, Name, Payload, ResultInfo, Seq, SessionId, State, StateName, Tail, TaskId,
    TaskRecord, TaskView, Verdict,
};
use asynq_store::{Listed, Reader as StoreReader, StoreError};
use tokio::sync::{mpsc, oneshot};

use super::caller::{Answer, Caller};
use super::consumer::Iterate;
use super::error::Error;
use super::listing::{Listing, Page};
use super::worker::WorkerConn;
use crate::limits::READ_BYTES;

/// Something to read.
#[derive(Debug)]
pub(super) enum Job {
    /// The arguments of a run about to be handed out.
    Arguments(Box<Assignment>),
    /// A task the core does not know.
    Task(TaskId),
    /// The task that had a key of a queue last.
    Key(Name, Key),
    /// The result of a task that has succeeded, for a caller who waits.
    Result {
        seq: Seq,
        finished: Box<Finished>,
        caller: Arc<Caller>,
        call: u64,
    },
    /// What is left of a stream that has ended, for a caller who reads it.
    Tail {
        seq: Seq,
        end: Box<Finished>,
        caller: Arc<Caller>,
        call: u64,
        iterate: Box<Iterate>,
    },
    /// Arguments too large to ride with their run.
    Fetch {
        token: LeaseToken,
        reply: oneshot::Sender<Result<Payload, Error>>,
    },
    /// A result came for a task that has ended: whether it is the one that was taken.
    SentAgain {
        token: LeaseToken,
        result: Sent,
        reply: oneshot::Sender<Verdict>,
    },
    /// The state of a task the core does not know, of which a worker has said something.
    State { session: SessionId, token: LeaseToken },
    /// What a worker is told after such answers.
    Acked(Arc<WorkerConn>, u64),
    /// A part of a listing.
    List(Box<Listing>),
    /// Tasks of a page that have ended since they were read.
    Ended {
        listing: Box<Listing>,
        page: Page,
        ended: Vec<TaskId>,
    },
}

/// What a result is told by. The token says whose it is already, and a run has one.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) content_type: Box<str>,
}

impl Sent {
    /// What is to be said of it, if that is the task it was sent for.
    fn verdict(&self, token: LeaseToken, record: &TaskRecord) -> Verdict {
        let state = record.state.name();
        let taken = match &record.state {
            State::Finished(finish) if state == StateName::Succeeded => finish.result.as_ref(),
            _ => None,
        };
        let is_this = |taken: &ResultInfo| (taken.bytes, &taken.content_type) == (self.bytes, &self.content_type);
        if record.grant == token.grant && taken.is_some_and(is_this) {
            Verdict::Accepted(state)
        } else {
            Verdict::Stale(Some(state))
        }
    }
}

impl Job {
    /// Bytes the loop is handed for it.
    fn bytes(&self) -> u64 {
        match self {
            Self::Arguments(run) => run.payload_bytes,
            // One at a time, so that each is answered as soon as it is read.
            Self::List(_) | Self::Tail { .. } => READ_BYTES,
            // The others go straight to who asked, or are small.
            Self::Task(_)
            | Self::Key(..)
            | Self::Result { .. }
            | Self::Fetch { .. }
            | Self::SentAgain { .. }
            | Self::State { .. }
            | Self::Acked(..)
            | Self::Ended { .. } => 0,
        }
    }
}

/// What the loop wants to know of what was read.
#[derive(Debug)]
pub(super) enum Found {
    /// See [`Job::Arguments`]; `None` if the store does not have them any more.
    Arguments(Box<Assignment>, Option<Payload>),
    /// See [`Job::Task`].
    Task(TaskId, Option<(Seq, Box<TaskRecord>)>),
    /// See [`Job::Key`].
    Key(Name, Key, Option<(Seq, Box<TaskRecord>)>),
    /// See [`Job::Tail`]; without a tail if it has been dropped.
    Tail {
        end: Box<Finished>,
        tail: Option<Tail>,
        caller: Arc<Caller>,
        call: u64,
        iterate: Box<Iterate>,
    },
    /// See [`Job::State`].
    State(SessionId, LeaseToken, Option<StateName>),
    /// See [`Job::Acked`].
    Acked(Arc<WorkerConn>, u64),
    /// See [`Job::List`].
    Listed(Box<Listing>, Listed),
}

/// The loop's end of a reading thread. Jobs gather while the thread reads; they
/// are bounded by the operations, slots and listings they serve.
#[derive(Debug)]
pub(super) struct Reader {
    waiting: VecDeque<Job>,
    busy: bool,
    jobs: SyncSender<Vec<Job>>,
    found: mpsc::Receiver<Result<Vec<Found>, StoreError>>,
}

impl Reader {
    pub(super) fn start(thread_name: &str, reader: Box<dyn StoreReader>) -> std::io::Result<Self> {
        // One set of jobs at a time is under way, so this never blocks the loop.
        let (jobs, from_loop) = sync_channel(1);
        let (to_loop, found) = mpsc::channel(1);
        thread::Builder::new()
            .name(thread_name.into())
            .spawn(move || run(reader, &from_loop, &to_loop))?;
        Ok(Self {
            waiting: VecDeque::new(),
            busy: false,
            jobs,
            found,
        })
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Hands over what has gathered, up to [`READ_BYTES`] of arguments, if the
    /// thread is idle.
    pub(super) fn kick(&mut self) {
        if !self.busy && !self.waiting.is_empty() {
            // If the thread has ended, `next` says so.
            let _ = self.jobs.try_send(next_jobs(&mut self.waiting));
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

/// From the front, at least one.
fn next_jobs(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut bytes = 0;
    let fits = |job: &&Job| {
        bytes += job.bytes();
        bytes <= READ_BYTES
    };
    let jobs = waiting.iter().take_while(fits).count().max(1);
    waiting.drain(..jobs.min(waiting.len())).collect()
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
            Job::Key(queue, key) => {
                let task = reader.keyed(&queue, &key)?;
                found.push(Found::Key(
                    queue,
                    key,
                    task.map(|(seq, record)| (seq, Box::new(record))),
                ));
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
            Job::Tail {
                seq,
                end,
                caller,
                call,
                iterate,
            } => found.push(Found::Tail {
                tail: reader.result(seq)?.as_ref().and_then(Tail::unpack),
                end,
                caller,
                call,
                iterate,
            }),
            Job::Fetch { token, reply } => {
                let payload = match reader.task(token.task)? {
                    Some((seq, _)) => reader.payloads(&[seq])?.pop().flatten(),
                    None => None,
                };
                // A worker that has gone needs no answer.
                let _ = reply.send(payload.ok_or(Error::StaleLease(token)));
            }
            Job::SentAgain { token, result, reply } => {
                let found = reader.task(token.task)?;
                let verdict = found.map_or(Verdict::Stale(None), |(_, record)| result.verdict(token, &record));
                // A worker that has gone asks again.
                let _ = reply.send(verdict);
            }
            Job::State { session, token } => {
                let task = reader.task(token.task)?.filter(|(_, record)| !record.is_purged());
                found.push(Found::State(
                    session,
                    token,
                    task.map(|(_, record)| record.state.name()),
                ));
            }
            Job::Acked(conn, number) => found.push(Found::Acked(conn, number)),
            Job::List(listing) if listing.is_over() => {}
            Job::List(listing) => {
                let part = reader.tasks(&listing.query())?;
                found.push(Found::Listed(listing, part));
            }
            Job::Ended {
                listing,
                mut page,
                ended,
            } => {
                for id in ended {
                    // One that is not there any more has been forgotten already.
                    if let Some((seq, record)) = reader.task(id)?
                        && listing.wants(record.state.name())
                        && !record.is_purged()
                    {
                        page.tasks.push((seq, TaskView::ended(record)));
                    }
                }
                listing.answer(page);
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

#[cfg(test)]
mod tests {
    use asynq_core::{Epoch, Grant, SessionId, Timestamp};

    use super::*;

    fn arguments(payload_bytes: u64) -> Job {
        let name = Name::new("echo").unwrap();
        let grant = Grant {
            epoch: Epoch(1),
            attempt: 1,
        };
        Job::Arguments(Box::new(Assignment {
            session: SessionId([1; 16]),
            token: LeaseToken {
                task: TaskId([1; 16]),
                grant,
            },
            seq: Seq(1),
            payload_bytes,
            name: name.clone(),
            queue: name.clone(),
            series: name,
            timeout: None,
            deadline: None,
            enqueued_at: Timestamp::ZERO,
            stream: None,
            at_most_once: false,
        }))
    }

    #[test]
    fn arguments_are_read_a_few_megabytes_at_a_time() {
        let third = READ_BYTES / 3;
        let mut waiting: VecDeque<Job> = (0..7).map(|_| arguments(third)).collect();
        waiting.push_back(arguments(2 * READ_BYTES));
        waiting.extend((0..10_000).map(|_| Job::Task(TaskId([1; 16]))));
        let mut handed_over = Vec::new();
        while !waiting.is_empty() {
            handed_over.push(next_jobs(&mut waiting).len());
        }
        assert_eq!(handed_over, [3, 3, 1, 1, 10_000]);
    }
}
