//! What operators ask of tasks that have ended, on the wire: many to a call, with
//! an outcome for each; and of queues.

use asynq_core::{Name, QueueUpdate, StateName, StateSet, TaskId};
use asynq_proto::limits::MAX_TASKS_PER_CALL;
use asynq_proto::v1;
use bytes::Bytes;

use super::status::operation_error;
use super::{convert, listing, render};
use crate::broker::{Answer, Error, Op};

/// The tasks to retry.
pub(super) fn retries(request: &v1::RetryTasksRequest) -> Result<Vec<TaskId>, Error> {
    ids(&request.ids)
}

/// The tasks to purge, and the states they may be in.
pub(super) fn purges(request: &v1::PurgeTasksRequest) -> Result<(Vec<TaskId>, StateSet), Error> {
    let states = match &request.states[..] {
        [] => StateSet::default(),
        states => listing::states(states)?,
    };
    if states == StateSet::default() || !states.is_within(StateSet::ENDED) {
        let ended = StateName::ALL.into_iter().filter(|state| state.is_terminal());
        let ended: Vec<_> = ended
            .map(|state| format!("{} ({})", render::state(state) as i32, state.as_str()))
            .collect();
        let problem = format!("must hold at least one, and only of {}", ended.join(", "));
        return Err(convert::invalid("states", problem));
    }
    Ok((ids(&request.ids)?, states))
}

/// The queue to set, and how.
pub(super) fn queue_update(request: v1::SetQueueRequest) -> Result<(Name, QueueUpdate), Error> {
    let v1::SetQueueRequest { queue, fast_requeue } = request;
    let queue = Name::new(&queue).map_err(|error| convert::invalid("queue", error.to_string()))?;
    let update = QueueUpdate { fast_requeue };
    if update == QueueUpdate::default() {
        return Err(convert::invalid(
            "fast_requeue",
            "is not set, and nothing else is: what is to change?",
        ));
    }
    Ok((queue, update))
}

fn ids(ids: &[Bytes]) -> Result<Vec<TaskId>, Error> {
    if ids.is_empty() || ids.len() > MAX_TASKS_PER_CALL {
        let problem = format!("holds {}, allowed are 1 to {MAX_TASKS_PER_CALL}", ids.len());
        return Err(convert::invalid("ids", problem));
    }
    ids.iter().map(|id| convert::task_id("ids", id)).collect()
}

/// What became of a retry; `None` for the answer to another question.
pub(super) fn retried(task: TaskId, answer: Answer) -> Option<v1::Retried> {
    let of = v1::Retried {
        id: render::id(task),
        ..v1::Retried::default()
    };
    match answer {
        Answer::Retried { revived, state } => Some(v1::Retried {
            revived,
            state: render::state(state) as i32,
            ..of
        }),
        Answer::Failed(error) => Some(v1::Retried {
            error: Some(operation_error(&error)),
            ..of
        }),
        _ => None,
    }
}

/// What became of a purge; `None` for the answer to another question.
pub(super) fn purged(task: TaskId, answer: Answer) -> Option<v1::Purged> {
    let of = v1::Purged {
        id: render::id(task),
        ..v1::Purged::default()
    };
    match answer {
        Answer::Purged(state) => Some(v1::Purged {
            state: render::state(state) as i32,
            ..of
        }),
        Answer::Failed(error) => Some(v1::Purged {
            error: Some(operation_error(&error)),
            ..of
        }),
        _ => None,
    }
}

/// An operation on each of the tasks.
pub(super) fn each(tasks: &[TaskId], op: impl Fn(TaskId) -> Op) -> Vec<Op> {
    tasks.iter().copied().map(op).collect()
}
