//! From a record to its body.

use std::time::Duration;

use asynq_core::{
    Counters, DeadReason, Failure, Finish, Options, Outcome, Placement, ResultInfo, Run, State, StopIntent, TaskRecord,
    Timestamp,
};

use super::{FailureBody, ResultBody, Task};
use crate::state;

impl Task {
    /// Takes a record over, field by field into the memory already there.
    pub(in crate::codec) fn fill(&mut self, task: &TaskRecord) {
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
        } = task;
        set(&mut self.name, name.as_str());
        set(&mut self.queue, queue.as_str());
        set(&mut self.series, series.as_str());
        set(&mut self.content_type, content_type);
        self.payload_bytes = *payload_bytes;
        self.digest = *digest;
        self.start_at = start_at.map(Timestamp::as_micros);
        self.fill_options(options);
        self.fill_state(state);
        self.epoch = grant.epoch.0;
        self.attempt = grant.attempt;
        let Counters {
            failures,
            timeouts,
            crashes,
            losses,
            releases,
        } = *counters;
        (self.failures, self.timeouts, self.crashes) = (failures, timeouts, crashes);
        (self.losses, self.releases) = (losses, releases);
        self.failure = failure.as_deref().map(
            |Failure {
                 kind,
                 message,
                 trace,
                 retryable,
             }| FailureBody {
                kind: kind.clone(),
                message: message.clone(),
                trace: trace.clone(),
                retryable: *retryable,
            },
        );
    }

    fn fill_options(&mut self, options: &Options) {
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
        } = options;
        self.niceness = i32::from(niceness.get());
        self.placement = match placement {
            Placement::Fair => 0,
            Placement::Next => 1,
            Placement::Last => 2,
        };
        self.start_before = start_before.map(Timestamp::as_micros);
        self.timeout = timeout.map(nanos);
        self.deadline = deadline.map(Timestamp::as_micros);
        self.max_attempts = *max_attempts;
        self.max_timeouts = *max_timeouts;
        self.result_ttl = result_ttl.map(nanos);
        self.stream = *stream;
    }

    fn fill_state(&mut self, state: &State) {
        self.state = state::code(state.name()).into();
        self.at = 0;
        self.session.clear();
        self.started_at = None;
        self.intent = 0;
        self.reason = 0;
        self.result = None;
        match state {
            State::Scheduled { at } => self.at = at.as_micros(),
            State::Ready => {}
            State::Running(run) => self.fill_run(run),
            State::Stopping(run, intent) => {
                self.fill_run(run);
                self.intent = match intent {
                    StopIntent::Timeout => 1,
                    StopIntent::Deadline => 2,
                    StopIntent::Cancel => 3,
                };
            }
            State::Finished(Finish {
                outcome,
                at,
                started_at,
                result,
            }) => {
                self.at = at.as_micros();
                self.started_at = started_at.map(Timestamp::as_micros);
                self.reason = match outcome {
                    Outcome::Dead(DeadReason::Error) => 1,
                    Outcome::Dead(DeadReason::Rejected) => 2,
                    Outcome::Dead(DeadReason::Timeout) => 3,
                    Outcome::Dead(DeadReason::Poison) => 4,
                    Outcome::Dead(DeadReason::WorkerLost) => 5,
                    Outcome::Succeeded | Outcome::Cancelled | Outcome::Expired => 0,
                };
                self.result = result.as_ref().map(
                    |ResultInfo {
                         bytes,
                         content_type,
                         until,
                     }| ResultBody {
                        bytes: *bytes,
                        content_type: content_type.to_string(),
                        until: until.as_micros(),
                    },
                );
            }
        }
    }

    fn fill_run(&mut self, run: &Run) {
        self.session.extend_from_slice(&run.session.0);
        self.started_at = Some(run.started_at.as_micros());
    }
}

fn set(to: &mut String, text: &str) {
    to.clear();
    to.push_str(text);
}

/// Saturates at 584 years; the core allows ten.
fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
