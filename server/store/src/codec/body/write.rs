//! From a record to its body: straight into the bytes, field by field in the
//! order of their numbers, as prost would write a `Task`.

use std::time::Duration;

use asynq_core::{
    CalledBy, Cause, Counters, DeadReason, Failure, Finish, Note, OnLoss, Options, Outcome, Placement, ResultInfo, Run,
    State, Step, StopIntent, TaskRecord, Timestamp,
};

use super::fields::Fields;
use crate::state;

/// Appends the body of a task. Returns how many bytes of it say what the caller
/// asked for; the others say what has become of it.
pub(in crate::codec) fn write_task(task: &TaskRecord, to: &mut Vec<u8>) -> usize {
    let TaskRecord {
        id: _,
        enqueued_at: _,
        name,
        queue,
        series,
        options,
        start_at,
        payload_bytes,
        content_type,
        digest,
        state,
        grant,
        counters,
        failure,
        notes,
        called_by,
        checkpoint,
    } = task;
    let begin = to.len();
    let mut fields = Fields(to);
    fields.text(1, name.as_str());
    fields.text(2, queue.as_str());
    fields.text(3, series.as_str());
    fields.text(4, content_type);
    fields.number(5, *payload_bytes);
    fields.fixed(6, *digest);
    fields.optional(7, start_at.map(Timestamp::as_micros));
    write_options(options, &mut fields);
    let mut asked = fields.0.len() - begin;
    write_state(state, &mut fields);
    fields.number(30, grant.epoch.0);
    fields.number(31, grant.attempt.into());
    let Counters {
        failures,
        timeouts,
        crashes,
        losses,
        releases,
    } = *counters;
    fields.number(32, failures.into());
    fields.number(33, timeouts.into());
    fields.number(34, crashes.into());
    fields.number(35, losses.into());
    fields.number(36, releases.into());
    if let Some(failure) = failure {
        let Failure {
            kind,
            message,
            trace,
            retryable,
        } = failure.as_ref();
        fields.message(37, |fields| {
            fields.text(1, kind);
            fields.text(2, message);
            fields.text(3, trace);
            fields.number(4, u64::from(*retryable));
        });
    }
    if let Some(notes) = notes {
        notes.as_slice().iter().for_each(|note| write_note(note, &mut fields));
    }
    if let Some(key) = &options.key {
        let before = fields.0.len();
        fields.text(39, key.as_str());
        asked += fields.0.len() - before;
    }
    if let State::Finished(finish) = state {
        if let Some(by) = &finish.replaced_by {
            fields.bytes(40, &by.0);
        }
        fields.number(41, u64::from(finish.purged));
    }
    if let Some(called_by) = called_by {
        write_caller(called_by, &mut fields);
    }
    if let State::Running(run) | State::Stopping(run, _) = state {
        fields.optional(50, run.extended.map(nanos));
        fields.number(
            51,
            match run.on_loss {
                OnLoss::Fail => 0,
                OnLoss::Replay => 1,
                OnLoss::Checkpoint => 2,
            },
        );
    }
    if let Some(checkpoint) = checkpoint {
        fields.message(55, |fields| {
            fields.number(1, checkpoint.index);
            fields.bytes(2, &checkpoint.token);
        });
    }
    asked
}

fn write_caller(CalledBy { run, n, depth }: &CalledBy, fields: &mut Fields<'_>) {
    fields.message(45, |fields| {
        fields.bytes(1, &run.task.0);
        fields.number(2, run.grant.epoch.0);
        fields.number(3, run.grant.attempt.into());
        fields.number(4, (*n).into());
        fields.number(5, (*depth).into());
    });
}

fn write_note(note: &Note, fields: &mut Fields<'_>) {
    let Note {
        step,
        attempt,
        worker,
        started_at,
        message,
        left_out,
    } = note;
    let Step {
        at,
        from,
        to,
        until,
        cause,
    } = step;
    fields.message(38, |fields| {
        fields.number(1, at.as_micros());
        fields.number(2, state::code(*from).into());
        fields.number(3, state::code(*to).into());
        fields.optional(4, until.map(Timestamp::as_micros));
        // As they are numbered, from 1.
        let number = Cause::ALL.iter().position(|of_all| of_all == cause);
        fields.number(5, number.map_or(0, |number| number as u64 + 1));
        fields.number(6, (*attempt).into());
        if let Some(worker) = worker {
            fields.text(7, worker.as_str());
        }
        fields.optional(8, started_at.map(Timestamp::as_micros));
        fields.text(9, message);
        fields.number(10, (*left_out).into());
    });
}

fn write_options(options: &Options, fields: &mut Fields<'_>) {
    let Options {
        niceness,
        placement,
        start_before,
        timeout,
        deadline,
        max_attempts,
        max_timeouts,
        result_ttl,
        stream,
        at_most_once,
        // After all else: see `write_task`.
        key: _,
    } = options;
    fields.signed(10, niceness.get().into());
    fields.number(
        11,
        match placement {
            Placement::Fair => 0,
            Placement::Next => 1,
            Placement::Last => 2,
        },
    );
    fields.optional(12, start_before.map(Timestamp::as_micros));
    fields.optional(13, timeout.map(nanos));
    fields.optional(14, deadline.map(Timestamp::as_micros));
    fields.optional(15, max_attempts.map(u64::from));
    fields.optional(16, max_timeouts.map(u64::from));
    fields.optional(17, result_ttl.map(nanos));
    fields.number(18, u64::from(*stream));
    fields.number(19, u64::from(*at_most_once));
}

fn write_state(state: &State, fields: &mut Fields<'_>) {
    fields.number(20, state::code(state.name()).into());
    match state {
        State::Scheduled { at } => fields.number(21, at.as_micros()),
        State::Ready => {}
        State::Running(run) => write_run(run, fields),
        State::Stopping(run, intent) => {
            write_run(run, fields);
            fields.number(
                24,
                match intent {
                    StopIntent::Timeout => 1,
                    StopIntent::Deadline => 2,
                    StopIntent::Cancel => 3,
                },
            );
        }
        State::Finished(finish) => write_finish(finish, fields),
    }
}

fn write_run(run: &Run, fields: &mut Fields<'_>) {
    fields.bytes(22, &run.session.0);
    fields.optional(23, Some(run.started_at.as_micros()));
}

fn write_finish(finish: &Finish, fields: &mut Fields<'_>) {
    let Finish {
        outcome,
        at,
        started_at,
        worker,
        result,
        replaced_by: _,
        purged: _,
    } = finish;
    fields.number(21, at.as_micros());
    fields.optional(23, started_at.map(Timestamp::as_micros));
    fields.number(
        25,
        match outcome {
            Outcome::Dead(DeadReason::Error) => 1,
            Outcome::Dead(DeadReason::Rejected) => 2,
            Outcome::Dead(DeadReason::Timeout) => 3,
            Outcome::Dead(DeadReason::Poison) => 4,
            Outcome::Dead(DeadReason::WorkerLost) => 5,
            Outcome::Dead(DeadReason::NonDeterministic) => 6,
            Outcome::Succeeded | Outcome::Cancelled | Outcome::Expired => 0,
        },
    );
    if let Some(ResultInfo {
        bytes,
        content_type,
        until,
    }) = result
    {
        fields.message(26, |fields| {
            fields.number(1, *bytes);
            fields.text(2, content_type);
            fields.number(3, until.as_micros());
        });
    }
    if let Some(worker) = worker {
        fields.text(27, worker.as_str());
    }
}

/// Saturates at 584 years; the core allows ten.
fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
