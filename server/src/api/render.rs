//! From the core's words to the wire.

use std::time::Duration;

use asynq_core::{
    CancelOutcome, DeadReason, Explanation, Failure, Finished, LeaseToken, Outcome, Payload, QueueView, Reason, State,
    StateName, StopCause, StopIntent, TaskId, TaskView, Timestamp, Transition, Verdict, WorkerState, WorkerView,
};
use asynq_proto::v1;
use bytes::Bytes;

use super::items;
use super::status::operation_error;
use crate::broker::{Answer, Answered};
use crate::server::Durability;

pub(super) fn answered(Answered { call, answer, .. }: Answered) -> v1::Answer {
    use v1::answer::Of;
    let of = match answer {
        Answer::Enqueued {
            task,
            existed,
            worker_known,
        } => Of::Enqueued(enqueued(task, existed, worker_known)),
        Answer::Finished { end, deferred } => Of::Finished(finished(&end, deferred)),
        Answer::Cancelled { task, outcome, state } => Of::Cancelled(cancelled(task, outcome, state)),
        // Nothing in a session asks for these.
        Answer::Retried { .. } | Answer::Purged(_) | Answer::QueueSet(_) | Answer::Attached { .. } => {
            return v1::Answer { call, of: None };
        }
        Answer::Shown(view) => Of::Shown(task_info(*view)),
        Answer::Explained(why) => Of::Explained(explanation(*why)),
        Answer::History(task, steps) => Of::History(history(task, steps)),
        Answer::Failed(error) => Of::Error(operation_error(&error)),
    };
    v1::Answer { call, of: Some(of) }
}

pub(super) fn enqueued(task: TaskId, existed: bool, worker_known: bool) -> v1::Enqueued {
    v1::Enqueued {
        id: id(task),
        existed,
        worker_known,
    }
}

/// Its result is left out where `deferred`.
pub(super) fn finished(end: &Finished, deferred: bool) -> v1::Finished {
    let dead_reason = match &end.outcome {
        Outcome::Dead(reason) => dead(*reason),
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Expired => v1::DeadReason::Unspecified,
    };
    let stats = v1::CallStats {
        queued_us: micros(end.started_at.unwrap_or(end.at).since(end.enqueued_at)),
        run_us: end.started_at.map_or(0, |started| micros(end.at.since(started))),
        attempts: end.attempts,
    };
    v1::Finished {
        id: id(end.task),
        state: state(end.outcome.state_name()) as i32,
        dead_reason: dead_reason as i32,
        error: end.failure.as_deref().cloned().map(failure),
        result: end.result.clone().map(payload),
        result_deferred: deferred,
        stats: Some(stats),
    }
}

pub(super) fn cancelled(task: TaskId, outcome: CancelOutcome, now: StateName) -> v1::Cancelled {
    use v1::cancelled::Outcome as Wire;
    let outcome = match outcome {
        CancelOutcome::Cancelled => Wire::Cancelled,
        CancelOutcome::Stopping => Wire::Stopping,
        CancelOutcome::Finished => Wire::Finished,
    };
    v1::Cancelled {
        id: id(task),
        outcome: outcome as i32,
        state: state(now) as i32,
    }
}

pub(super) fn task_info(view: TaskView) -> v1::TaskInfo {
    let TaskView { record, worker, reason } = view;
    let mut info = v1::TaskInfo {
        id: id(record.id),
        name: record.name.to_string(),
        queue: record.queue.to_string(),
        series: record.series.to_string(),
        niceness: record.options.niceness.get().into(),
        state: state(record.state.name()) as i32,
        reason: reason.as_str().into(),
        attempt: record.grant.attempt,
        failures: record.counters.failures,
        timeouts: record.counters.timeouts,
        crashes: record.counters.crashes,
        losses: record.counters.losses,
        releases: record.counters.releases,
        enqueued_at_ms: record.enqueued_at.as_millis(),
        start_at_ms: record.start_at.map_or(0, Timestamp::as_millis),
        worker: worker.map_or_else(String::new, |worker| worker.to_string()),
        error: record.failure.map(|f| failure(*f)),
        payload_bytes: record.payload_bytes,
        content_type: record.content_type.into(),
        checkpoint: record.checkpoint.map_or(0, |checkpoint| checkpoint.index),
        key: record.options.key.map_or_else(String::new, |key| key.to_string()),
        ..v1::TaskInfo::default()
    };
    match record.state {
        State::Scheduled { at } => info.start_at_ms = at.as_millis(),
        State::Ready => {}
        State::Running(run) => info.started_at_ms = run.started_at.as_millis(),
        State::Stopping(run, intent) => {
            info.started_at_ms = run.started_at.as_millis();
            info.cancel_requested = intent == StopIntent::Cancel;
        }
        State::Finished(finish) => {
            info.started_at_ms = finish.started_at.map_or(0, Timestamp::as_millis);
            info.finished_at_ms = finish.at.as_millis();
            // What is left of a stream is no result.
            let result = finish.result.filter(|_| !record.options.stream);
            info.result_bytes = result.map_or(0, |result| result.bytes);
            info.cancel_requested = finish.outcome == Outcome::Cancelled;
            info.reason = match finish.outcome {
                Outcome::Dead(reason) => reason.as_str().into(),
                Outcome::Succeeded | Outcome::Cancelled | Outcome::Expired => Reason::Finished.as_str().into(),
            };
        }
    }
    info
}

pub(super) fn explanation(why: Explanation) -> v1::Explanation {
    v1::Explanation {
        id: id(why.task),
        state: state(why.state) as i32,
        reason: why.reason.as_str().into(),
        message: why.message,
        details: why
            .details
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    }
}

pub(super) fn history(task: TaskId, steps: Vec<Transition>) -> v1::HistoryReply {
    v1::HistoryReply {
        id: id(task),
        transitions: steps.into_iter().map(transition).collect(),
    }
}

fn transition(step: Transition) -> v1::Transition {
    v1::Transition {
        at_ms: step.at.as_millis(),
        from: step.from.map_or(v1::TaskState::Unspecified, state) as i32,
        to: state(step.to) as i32,
        attempt: step.attempt,
        worker: step.worker.map_or_else(String::new, |worker| worker.to_string()),
        cause: step.cause.as_str().into(),
        message: step.message.into(),
        left_out: step.left_out,
    }
}

pub(super) fn queue(view: QueueView, durability: Durability) -> v1::QueueInfo {
    let count = |state| view.counts.get(&state).copied().unwrap_or(0);
    v1::QueueInfo {
        policy: "fair".into(),
        durability: durability.as_str().into(),
        paused: false,
        scheduled: count(StateName::Scheduled),
        ready: count(StateName::Ready),
        running: count(StateName::Running) + count(StateName::Stopping),
        succeeded: count(StateName::Succeeded),
        dead: count(StateName::Dead),
        cancelled: count(StateName::Cancelled),
        expired: count(StateName::Expired),
        oldest_ready_ms: view.oldest_ready.map(millis),
        fast_requeue: view.settings.fast_requeue,
        name: view.name.to_string(),
    }
}

pub(super) fn worker(view: WorkerView) -> v1::WorkerInfo {
    let state = match view.state {
        WorkerState::Active => "active",
        WorkerState::Draining => "draining",
        WorkerState::Lost => "lost",
    };
    v1::WorkerInfo {
        name: view.name.to_string(),
        session: Bytes::copy_from_slice(&view.session.0),
        state: state.into(),
        slots: view.slots,
        busy: view.busy,
        leaked: view.leaked,
        tasks: view.tasks.iter().map(ToString::to_string).collect(),
        connected_at_ms: view.connected_at.as_millis(),
    }
}

pub(super) fn run_ack(of: LeaseToken, verdict: Verdict) -> v1::RunAck {
    let (stale, now) = match verdict {
        Verdict::Accepted(now) => (false, Some(now)),
        Verdict::Stale(now) => (true, now),
    };
    let state = now.map_or(v1::TaskState::Unspecified, state);
    v1::RunAck {
        token: Some(token(of)),
        stale,
        state: state as i32,
    }
}

pub(super) fn stop(of: LeaseToken, cause: StopCause) -> v1::StopRun {
    let cause = match cause {
        StopCause::Cancelled => v1::StopCause::Cancelled,
        StopCause::Timeout => v1::StopCause::Timeout,
        StopCause::Deadline => v1::StopCause::Deadline,
        StopCause::Stale => v1::StopCause::Stale,
    };
    v1::StopRun {
        token: Some(token(of)),
        cause: cause as i32,
    }
}

pub(super) fn assignment(run: asynq_core::Assignment, arguments: Option<Payload>) -> v1::Assignment {
    v1::Assignment {
        token: Some(token(run.token)),
        name: run.name.as_str().to_owned(),
        queue: run.queue.as_str().to_owned(),
        series: run.series.as_str().to_owned(),
        fetch_payload: arguments.is_none(),
        payload: arguments.map(payload),
        timeout_ms: run.timeout.map_or(0, millis),
        deadline_ms: run.deadline.map_or(0, Timestamp::as_millis),
        enqueued_at_ms: run.enqueued_at.as_millis(),
        at_most_once: run.at_most_once,
        stream: run.stream.as_ref().map(|stream| items::render_credit(stream.credit)),
        start: run.stream.as_ref().map(|stream| items::render_place(stream.start)),
        checkpoint: run
            .stream
            .and_then(|stream| stream.checkpoint)
            .map(items::render_checkpoint),
    }
}

pub(super) fn payload(payload: Payload) -> v1::Payload {
    v1::Payload {
        content_type: payload.content_type.into(),
        data: payload.data,
    }
}

fn token(token: LeaseToken) -> v1::LeaseToken {
    v1::LeaseToken {
        task_id: id(token.task),
        epoch: token.grant.epoch.0,
        attempt: token.grant.attempt,
    }
}

pub(super) fn id(task: TaskId) -> Bytes {
    Bytes::copy_from_slice(&task.0)
}

fn failure(failure: Failure) -> v1::TaskFailure {
    let Failure {
        kind,
        message,
        trace,
        retryable,
    } = failure;
    v1::TaskFailure {
        kind,
        message,
        trace,
        retryable,
        crashed: false,
    }
}

pub(super) const fn state(state: StateName) -> v1::TaskState {
    match state {
        StateName::Scheduled => v1::TaskState::Scheduled,
        StateName::Ready => v1::TaskState::Ready,
        StateName::Running => v1::TaskState::Running,
        StateName::Stopping => v1::TaskState::Stopping,
        StateName::Succeeded => v1::TaskState::Succeeded,
        StateName::Dead => v1::TaskState::Dead,
        StateName::Cancelled => v1::TaskState::Cancelled,
        StateName::Expired => v1::TaskState::Expired,
    }
}

const fn dead(reason: DeadReason) -> v1::DeadReason {
    match reason {
        DeadReason::Error => v1::DeadReason::Error,
        DeadReason::Rejected => v1::DeadReason::Rejected,
        DeadReason::Timeout => v1::DeadReason::Timeout,
        DeadReason::Poison => v1::DeadReason::Poison,
        DeadReason::WorkerLost => v1::DeadReason::WorkerLost,
        DeadReason::NonDeterministic => v1::DeadReason::NonDeterministic,
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
