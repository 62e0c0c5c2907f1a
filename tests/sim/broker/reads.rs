//! What the loop has to look up in the store: jobs gather while others are read.

use std::collections::VecDeque;
use std::time::Duration;

use asynq_core::{Assignment, Finished, Key, Name, Payload, Seq, Tail, TaskId, TaskRecord};
use asynq_store::StoreError;

use super::Wake;
use super::process::Process;
use crate::disk::Disk;
use crate::env::{Env, Event};
use crate::message::{Down, Reading};
use crate::net::ConnId;

/// Something to read.
#[derive(Debug)]
pub(super) enum Job {
    /// A task the core does not know.
    Task(TaskId),
    /// The task that has a key, if one that has ended does.
    Key(Name, Key),
    /// The arguments of a run.
    Arguments(Box<Assignment>),
    /// The result of a task that has succeeded, for who waits.
    Result(Seq, Box<Finished>, ConnId, u64),
    /// What is left of a stream that has ended, for who reads it.
    Tail(Seq, Box<Finished>, ConnId, u64, Reading),
    /// Arguments a worker fetches.
    Fetch(TaskId, ConnId),
}

/// What was read.
enum Found {
    Task(TaskId, Option<(Seq, Box<TaskRecord>)>),
    Key(Name, Key, Option<(Seq, Box<TaskRecord>)>),
    Arguments(Box<Assignment>, Option<Payload>),
}

/// Jobs to do.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: VecDeque<Job>,
    under_way: Vec<Job>,
}

impl Reads {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

impl Process {
    pub(super) fn read(&mut self, job: Job) {
        self.reads.waiting.push_back(job);
    }

    /// Begins to read what has gathered, if nothing is being read.
    pub(super) fn kick(&mut self, env: &mut Env) {
        if self.reads.under_way.is_empty() && !self.reads.waiting.is_empty() {
            self.reads.under_way = self.reads.waiting.drain(..).collect();
            let time = env
                .dice
                .long_tailed(Duration::from_micros(50)..Duration::from_millis(20));
            env.schedule(time, Event::Broker(self.life, Wake::Found));
        }
    }

    /// What was read has come.
    pub(super) fn found(&mut self, disk: &mut Disk, env: &mut Env) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for job in std::mem::take(&mut self.reads.under_way) {
            match job {
                Job::Task(id) => {
                    let task = disk.task(id)?.map(|(seq, record)| (seq, Box::new(record)));
                    found.push(Found::Task(id, task));
                }
                Job::Key(queue, key) => {
                    let task = disk.keyed(&queue, &key)?.map(|(seq, record)| (seq, Box::new(record)));
                    found.push(Found::Key(queue, key, task));
                }
                Job::Arguments(run) => {
                    let payload = disk.arguments(run.seq)?;
                    found.push(Found::Arguments(run, payload));
                }
                Job::Result(seq, finished, id, call) => {
                    let result = disk.result(seq)?;
                    self.result_read(*finished, result, id, call, env);
                }
                Job::Tail(seq, end, id, call, reading) => {
                    let tail = disk.result(seq)?.as_ref().and_then(Tail::unpack);
                    self.read_tail(*end, tail, id, call, &reading, env);
                }
                Job::Fetch(task, id) => {
                    let payload = match disk.task(task)? {
                        Some((seq, _)) => disk.arguments(seq)?,
                        None => None,
                    };
                    self.send(id, Down::Arguments(payload));
                }
            }
        }
        for found in found {
            match found {
                Found::Key(queue, key, task) => self.key_resolved((queue, key), task.as_ref(), env),
                Found::Task(id, task) => self.resolved(id, task, env),
                Found::Arguments(run, payload) => self.arguments_read(run, payload)?,
            }
        }
        Ok(())
    }
}
