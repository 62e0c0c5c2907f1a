//! From a body to its record. Whatever a record cannot hold is an error.

use std::time::Duration;

use asynq_core::{
    CalledBy, Cause, Checkpoint, Counters, DeadReason, Epoch, Failure, Finish, Grant, Key, LeaseToken, Name, Niceness,
    Note, Notes, OnLoss, Options, Outcome, Placement, ResultInfo, Run, SessionId, State, StateName, Step, StopIntent,
    TaskId, TaskRecord, Timestamp,
};

use super::{CallerBody, CheckpointBody, FailureBody, NoteBody, ResultBody, Task};
use crate::codec::{CodecError, Names};
use crate::state;

impl Task {
    /// The record this is the body of.
    pub(in crate::codec) fn read(
        &mut self,
        id: TaskId,
        enqueued_at: Timestamp,
        names: &mut Names,
    ) -> Result<TaskRecord, CodecError> {
        Ok(TaskRecord {
            id,
            name: names.get(&self.name, "name")?,
            queue: names.get(&self.queue, "queue")?,
            series: names.get(&self.series, "series")?,
            options: self.read_options()?,
            enqueued_at,
            start_at: self.start_at.map(Timestamp::from_micros),
            payload_bytes: self.payload_bytes,
            content_type: self.content_type.as_str().into(),
            digest: self.digest,
            state: self.read_state(names)?,
            grant: Grant {
                epoch: Epoch(self.epoch),
                attempt: self.attempt,
            },
            counters: Counters {
                failures: self.failures,
                timeouts: self.timeouts,
                crashes: self.crashes,
                losses: self.losses,
                releases: self.releases,
            },
            failure: self.failure.take().map(
                |FailureBody {
                     kind,
                     message,
                     trace,
                     retryable,
                 }| {
                    Box::new(Failure {
                        kind,
                        message,
                        trace,
                        retryable,
                    })
                },
            ),
            notes: self.read_notes(names)?,
            called_by: self.called_by.take().map(CallerBody::read).transpose()?,
            checkpoint: self
                .checkpoint
                .take()
                .map(|CheckpointBody { index, token }| Box::new(Checkpoint { index, token })),
        })
    }

    fn read_notes(&mut self, names: &mut Names) -> Result<Option<Box<Notes>>, CodecError> {
        if self.notes.is_empty() {
            return Ok(None);
        }
        let notes = self.notes.drain(..).map(|note| note.read(names));
        Ok(Some(Box::new(Notes::new(notes.collect::<Result<_, _>>()?))))
    }

    fn read_options(&self) -> Result<Options, CodecError> {
        Ok(Options {
            niceness: Niceness::new(self.niceness).ok_or(CodecError::Field("niceness"))?,
            placement: match self.placement {
                0 => Placement::Fair,
                1 => Placement::Next,
                2 => Placement::Last,
                _ => return Err(CodecError::Field("placement")),
            },
            start_before: self.start_before.map(Timestamp::from_micros),
            timeout: self.timeout.map(Duration::from_nanos),
            deadline: self.deadline.map(Timestamp::from_micros),
            max_attempts: self.max_attempts,
            max_timeouts: self.max_timeouts,
            result_ttl: self.result_ttl.map(Duration::from_nanos),
            stream: self.stream,
            at_most_once: self.at_most_once,
            key: match self.key.as_str() {
                "" => None,
                key => Some(Key::new(key).map_err(|_| CodecError::Field("key"))?),
            },
        })
    }

    fn read_state(&mut self, names: &mut Names) -> Result<State, CodecError> {
        let name = u8::try_from(self.state)
            .ok()
            .and_then(state::name)
            .ok_or(CodecError::Field("state"))?;
        Ok(match name {
            StateName::Scheduled => State::Scheduled {
                at: Timestamp::from_micros(self.at),
            },
            StateName::Ready => State::Ready,
            StateName::Running => State::Running(self.read_run()?),
            StateName::Stopping => {
                let intent = match self.intent {
                    1 => StopIntent::Timeout,
                    2 => StopIntent::Deadline,
                    3 => StopIntent::Cancel,
                    _ => return Err(CodecError::Field("intent")),
                };
                State::Stopping(self.read_run()?, intent)
            }
            StateName::Succeeded => self.read_finish(Outcome::Succeeded, names)?,
            StateName::Dead => {
                let reason = match self.reason {
                    1 => DeadReason::Error,
                    2 => DeadReason::Rejected,
                    3 => DeadReason::Timeout,
                    4 => DeadReason::Poison,
                    5 => DeadReason::WorkerLost,
                    6 => DeadReason::NonDeterministic,
                    _ => return Err(CodecError::Field("reason")),
                };
                self.read_finish(Outcome::Dead(reason), names)?
            }
            StateName::Cancelled => self.read_finish(Outcome::Cancelled, names)?,
            StateName::Expired => self.read_finish(Outcome::Expired, names)?,
        })
    }

    fn read_run(&self) -> Result<Run, CodecError> {
        let session = self
            .session
            .as_slice()
            .try_into()
            .map_err(|_| CodecError::Field("session"))?;
        let started_at = self.started_at.ok_or(CodecError::Field("start"))?;
        Ok(Run {
            session: SessionId(session),
            started_at: Timestamp::from_micros(started_at),
            extended: self.extended.map(Duration::from_nanos),
            on_loss: match self.on_loss {
                0 => OnLoss::Fail,
                1 => OnLoss::Replay,
                2 => OnLoss::Checkpoint,
                _ => return Err(CodecError::Field("on_loss")),
            },
        })
    }

    fn read_finish(&mut self, outcome: Outcome, names: &mut Names) -> Result<State, CodecError> {
        let worker = read_worker(&self.worker, names)?;
        Ok(State::Finished(Finish {
            outcome,
            at: Timestamp::from_micros(self.at),
            started_at: self.started_at.map(Timestamp::from_micros),
            worker,
            result: self.result.take().map(
                |ResultBody {
                     bytes,
                     content_type,
                     until,
                 }| ResultInfo {
                    bytes,
                    content_type: content_type.into(),
                    until: Timestamp::from_micros(until),
                },
            ),
            replaced_by: match self.replaced_by.as_slice() {
                [] => None,
                id => {
                    let id = id.try_into().map_err(|_| CodecError::Field("successor"))?;
                    Some(Box::new(TaskId(id)))
                }
            },
            purged: self.purged,
        }))
    }
}

impl CallerBody {
    fn read(self) -> Result<Box<CalledBy>, CodecError> {
        let task = self.task.as_slice().try_into();
        Ok(Box::new(CalledBy {
            run: LeaseToken {
                task: TaskId(task.map_err(|_| CodecError::Field("caller"))?),
                grant: Grant {
                    epoch: Epoch(self.epoch),
                    attempt: self.attempt,
                },
            },
            n: self.n,
            depth: self.depth,
        }))
    }
}

impl NoteBody {
    fn read(self, names: &mut Names) -> Result<Note, CodecError> {
        let state = |code| u8::try_from(code).ok().and_then(state::name);
        let cause = self
            .cause
            .checked_sub(1)
            .and_then(|number| Cause::ALL.get(number as usize));
        Ok(Note {
            step: Step {
                at: Timestamp::from_micros(self.at),
                from: state(self.from).ok_or(CodecError::Field("note's state"))?,
                to: state(self.to).ok_or(CodecError::Field("note's state"))?,
                until: self.until.map(Timestamp::from_micros),
                cause: *cause.ok_or(CodecError::Field("note's cause"))?,
            },
            attempt: self.attempt,
            worker: read_worker(&self.worker, names)?,
            started_at: self.started_at.map(Timestamp::from_micros),
            message: self.message.into(),
            left_out: self.left_out,
        })
    }
}

fn read_worker(text: &str, names: &mut Names) -> Result<Option<Name>, CodecError> {
    let text = Some(text).filter(|text| !text.is_empty());
    text.map(|text| names.get(text, "worker")).transpose()
}
