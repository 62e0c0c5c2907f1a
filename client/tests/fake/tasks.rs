//! The fake broker's tasks: each ends as its name says.

use std::collections::HashMap;

use asynq_proto::{limits::INLINE_BYTES, v1};
use tonic::codegen::Bytes;
use v1::{DeadReason, TaskState};

#[derive(Default)]
pub(crate) struct Tasks {
    known: HashMap<Bytes, Task>,
    /// As they came.
    order: Vec<Bytes>,
}

struct Task {
    request: v1::EnqueueRequest,
    cancelled: bool,
}

impl Tasks {
    /// Whether the id is new.
    pub(crate) fn is_new(&self, id: &[u8]) -> bool {
        !self.known.contains_key(id)
    }

    pub(crate) fn enqueue(&mut self, request: v1::EnqueueRequest) -> v1::Enqueued {
        let id = request.id.clone();
        let worker_known = request.name != "nobody";
        let existed = self
            .known
            .insert(
                id.clone(),
                Task {
                    request,
                    cancelled: false,
                },
            )
            .is_some();
        if !existed {
            self.order.push(id.clone());
        }
        v1::Enqueued {
            id,
            existed,
            worker_known,
        }
    }

    /// What was asked for under an id.
    pub(crate) fn request(&self, id: &[u8]) -> Option<v1::EnqueueRequest> {
        Some(self.known.get(id)?.request.clone())
    }

    /// How the task has ended, if it has.
    pub(crate) fn finished(&self, id: &[u8]) -> Option<v1::Finished> {
        let task = self.known.get(id)?;
        let ended = v1::Finished {
            id: Bytes::copy_from_slice(id),
            stats: Some(v1::CallStats {
                queued_us: 5,
                run_us: 7,
                attempts: 1,
            }),
            ..v1::Finished::default()
        };
        let dead = |reason: DeadReason, kind: &str| v1::Finished {
            state: TaskState::Dead.into(),
            dead_reason: reason.into(),
            error: Some(v1::TaskFailure {
                kind: kind.to_owned(),
                message: "it broke".to_owned(),
                ..v1::TaskFailure::default()
            }),
            ..ended.clone()
        };
        let succeeded = |result| v1::Finished {
            state: TaskState::Succeeded.into(),
            result,
            ..ended.clone()
        };
        let argument = task.request.payload.as_ref().map_or(&b""[..], |payload| &payload.data);
        match task.request.name.as_str() {
            _ if task.cancelled => Some(v1::Finished {
                state: TaskState::Cancelled.into(),
                ..ended
            }),
            "slow" | "nobody" => None,
            "late" if self.known.len() < 8 && argument == b"0" => None,
            "fussy" if argument == b"3" => Some(dead(DeadReason::Error, "error")),
            "fussy" if argument.len() > 2 => None,
            "bytes" => Some(succeeded(Some(v1::Payload {
                content_type: "application/octet-stream".to_owned(),
                data: vec![0, 159, 10].into(),
            }))),
            "dead.error" | "dead.lost" => Some(dead(DeadReason::Error, "error")),
            "dead.panic" => Some(dead(DeadReason::Error, "panic")),
            "dead.timeout" => Some(dead(DeadReason::Timeout, "timeout")),
            "cancelled" => Some(v1::Finished {
                state: TaskState::Cancelled.into(),
                ..ended
            }),
            "expired" => Some(v1::Finished {
                state: TaskState::Expired.into(),
                ..ended
            }),
            _ => Some(succeeded(task.request.payload.clone())),
        }
    }

    /// The same as it rides on a session.
    pub(crate) fn finished_inline(&self, id: &[u8]) -> Option<v1::Finished> {
        let mut finished = self.finished(id)?;
        if finished
            .result
            .as_ref()
            .is_some_and(|result| result.data.len() > INLINE_BYTES)
        {
            finished.result = None;
            finished.result_deferred = true;
        }
        Some(finished)
    }

    pub(crate) fn cancel(&mut self, id: &[u8]) -> Option<v1::Cancelled> {
        let had_ended = self.finished(id).is_some();
        let task = self.known.get_mut(id)?;
        task.cancelled = !had_ended;
        let outcome = match had_ended {
            true => v1::cancelled::Outcome::Finished,
            false => v1::cancelled::Outcome::Cancelled,
        };
        let state = TaskState::try_from(self.finished(id)?.state).unwrap();
        Some(v1::Cancelled {
            id: Bytes::copy_from_slice(id),
            outcome: outcome.into(),
            state: state.into(),
        })
    }

    pub(crate) fn show(&self, id: &[u8]) -> Option<v1::TaskInfo> {
        let task = self.known.get(id)?;
        let finished = self.finished(id);
        Some(v1::TaskInfo {
            id: Bytes::copy_from_slice(id),
            name: task.request.name.clone(),
            queue: "default".to_owned(),
            state: finished
                .as_ref()
                .map_or(TaskState::Ready.into(), |finished| finished.state),
            enqueued_at_ms: 1_700_000_000_123,
            payload_bytes: task
                .request
                .payload
                .as_ref()
                .map_or(0, |payload| payload.data.len() as u64),
            error: finished.and_then(|finished| finished.error),
            ..v1::TaskInfo::default()
        })
    }

    /// Newest first. Three tasks are looked at for an answer, of which some may
    /// not fit.
    pub(crate) fn list(&self, request: &v1::ListTasksRequest) -> v1::ListTasksReply {
        let ids: Vec<_> = self.order.iter().rev().collect();
        let mut from = request.page.parse().unwrap_or(0);
        let end = ids.len().min(from + 3);
        let mut tasks = Vec::new();
        while from < end && tasks.len() < request.limit as usize {
            let task = self.show(ids[from]).unwrap();
            let states = &request.states;
            if (states.is_empty() || states.contains(&task.state)) && ["", &task.name].contains(&request.name.as_str())
            {
                tasks.push(task);
            }
            from += 1;
        }
        let next = if from < ids.len() {
            from.to_string()
        } else {
            String::new()
        };
        v1::ListTasksReply {
            tasks,
            next,
            now_ms: 1_700_000_060_123,
        }
    }

    pub(crate) fn is_named(&self, id: &Bytes, name: &str) -> bool {
        self.show(id).is_some_and(|task| task.name == name)
    }

    /// Dead tasks live again, and are dead again when they are looked at.
    pub(crate) fn retry(&self, id: &Bytes) -> v1::Retried {
        let task = self.show(id);
        let state = task.as_ref().map(v1::TaskInfo::state);
        let ended = [TaskState::Succeeded, TaskState::Cancelled, TaskState::Expired];
        let error = match state {
            None => Some((5, "TASK_NOT_FOUND")),
            Some(state) if ended.contains(&state) => Some((9, "NOT_DEAD")),
            Some(_) if task.is_some_and(|task| task.name == "dead.timeout") => Some((9, "NOT_RETRYABLE")),
            Some(_) => None,
        };
        v1::Retried {
            id: id.clone(),
            revived: state == Some(TaskState::Dead),
            state: TaskState::Ready.into(),
            error: error.map(refusal),
        }
    }

    pub(crate) fn purge(&mut self, id: &Bytes, states: &[i32]) -> v1::Purged {
        let state = self.show(id).map(|task| task.state);
        let fits = state.is_some_and(|state| states.contains(&state));
        if fits {
            self.known.remove(id);
            self.order.retain(|known| known != id);
        }
        v1::Purged {
            id: id.clone(),
            state: state.unwrap_or_default(),
            error: match state {
                None => Some(refusal((5, "TASK_NOT_FOUND"))),
                Some(_) => (!fits).then(|| refusal((9, "OTHER_STATE"))),
            },
        }
    }

    /// The one of a task that fails at first.
    pub(crate) fn history(&self, id: &[u8]) -> Option<v1::HistoryReply> {
        self.known.get(id)?;
        let step = |at_ms: u64, from: TaskState, to: TaskState, attempt, cause: &str| v1::Transition {
            at_ms: 1_700_000_000_000 + at_ms,
            from: from.into(),
            to: to.into(),
            attempt,
            cause: cause.to_owned(),
            ..v1::Transition::default()
        };
        let of_worker = |step, message: &str| v1::Transition {
            worker: "node-1".to_owned(),
            message: message.to_owned(),
            ..step
        };
        let (ready, running) = (TaskState::Ready, TaskState::Running);
        Some(v1::HistoryReply {
            id: Bytes::copy_from_slice(id),
            transitions: vec![
                step(0, TaskState::Unspecified, ready, 0, "enqueued"),
                of_worker(step(2, ready, running, 1, "granted"), ""),
                of_worker(
                    step(40, running, TaskState::Scheduled, 1, "failed"),
                    "error: no space left on\ndevice",
                ),
                v1::Transition {
                    left_out: 12,
                    ..step(60_000, TaskState::Scheduled, ready, 7, "left_out")
                },
                of_worker(step(60_100, ready, running, 8, "granted"), ""),
                of_worker(step(3_661_000, running, TaskState::Succeeded, 8, "completed"), ""),
            ],
        })
    }

    pub(crate) fn explain(&self, id: &[u8]) -> Option<v1::Explanation> {
        let task = self.known.get(id)?;
        let reason = if task.request.name == "nobody" {
            "no_worker"
        } else {
            "no_free_slot"
        };
        Some(v1::Explanation {
            id: Bytes::copy_from_slice(id),
            state: TaskState::Ready.into(),
            reason: reason.to_owned(),
            message: "a sentence".to_owned(),
            details: HashMap::from([("workers".to_owned(), "0".to_owned())]),
        })
    }
}

fn refusal((code, reason): (i32, &str)) -> v1::OperationError {
    v1::OperationError {
        code,
        reason: reason.to_owned(),
        message: "a reason why not".to_owned(),
        retry_after_ms: 0,
    }
}
