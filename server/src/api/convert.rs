//! From the wire to the core's words: every field is checked here, and every
//! refusal names the field and its range.

use std::num::NonZeroU64;
use std::time::Duration;

use asynq_core::limits::{MAX_BUDGET, MAX_DECLARATIONS, MAX_DURATION, MAX_NAME_BYTES, MAX_SLOTS};
use asynq_core::{
    Declaration, Epoch, Failure, Grant, Key, LeaseToken, Name, NameError, Niceness, OnKey, OnLoss, Options, Payload,
    Placement, Refusal, SessionId, TaskId, TaskSpec, Timestamp,
};
use asynq_proto::limits::MAX_PAYLOAD_BYTES;
use asynq_proto::v1;
use uuid::{Builder, Uuid};

use super::{calls, items};
use crate::broker::{Ask, Enqueue, Error, Op, Report, WorkerHello, WorkerInput};
use crate::limits::{MAX_CONTENT_TYPE_BYTES, MAX_HELD_RUNS, MAX_ID_LEAD};

pub(super) fn invalid(field: &'static str, problem: impl Into<String>) -> Error {
    Refusal::Invalid {
        field,
        problem: problem.into(),
    }
    .into()
}

/// An operation of a session.
pub(super) fn ask(operation: v1::Operation, now: Timestamp) -> Ask {
    use v1::operation::Op as Wire;
    let on_task = |id: &[u8], op: fn(TaskId) -> Op| task_id("id", id).map(op);
    let op = match operation.op {
        Some(Wire::Enqueue(request)) => enqueue(request, now).map(Op::Enqueue),
        Some(Wire::Wait(request)) => on_task(&request.id, Op::Wait),
        Some(Wire::Cancel(request)) => on_task(&request.id, Op::Cancel),
        Some(Wire::Show(request)) => on_task(&request.id, Op::Show),
        Some(Wire::Explain(request)) => on_task(&request.id, Op::Explain),
        Some(Wire::History(request)) => on_task(&request.id, Op::History),
        Some(Wire::Forget(forget)) => Ok(Op::Forget(forget.call)),
        Some(Wire::Flow(request)) => {
            items::flow(request).map(|(task, consumer, open_seq, credit)| Op::Flow(task, consumer, open_seq, credit))
        }
        Some(Wire::Stop(request)) => items::stop(&request).map(|(task, consumer)| Op::Stop(task, consumer)),
        None => Err(invalid("op", "is missing, or of a kind this broker does not know")),
    };
    Ask {
        call: operation.call,
        op: op.unwrap_or_else(Op::Invalid),
    }
}

pub(super) fn enqueue(request: v1::EnqueueRequest, now: Timestamp) -> Result<Enqueue, Error> {
    let made_here = request.id.is_empty();
    let id = if made_here {
        new_id(now)
    } else {
        task_id("id", &request.id)?
    };
    if id.made_at() > now + MAX_ID_LEAD {
        return Err(Error::IdInFuture(id));
    }
    let asked = request.options.unwrap_or_default();
    let start_at = match (asked.delay_ms, asked.start_at_ms) {
        (0, 0) => None,
        (0, at) => Some(Timestamp::from_millis(at)),
        (_, 0) => duration("options.delay_ms", asked.delay_ms)?.map(|delay| now + delay),
        _ => {
            return Err(invalid(
                "options.delay_ms",
                "excludes options.start_at_ms: give one of them",
            ));
        }
    };
    let (key, on_key) = key(&asked)?;
    let spec = TaskSpec {
        id,
        name: name("name", &request.name)?,
        queue: name(
            "options.queue",
            if asked.queue.is_empty() {
                "default"
            } else {
                &asked.queue
            },
        )?,
        series: Name::or_empty(&asked.series).map_err(|error| bad_name("options.series", error))?,
        options: Options {
            key,
            ..options(&asked)?
        },
        start_at,
        on_key,
        payload: payload("payload", request.payload)?,
    };
    Ok(Enqueue {
        spec: Box::new(spec),
        first_send: request.first_send || made_here,
        wait: request.wait,
        by: None,
    })
}

fn options(asked: &v1::TaskOptions) -> Result<Options, Error> {
    let placement = match asked.placement() {
        v1::Placement::Next => Placement::Next,
        v1::Placement::Last => Placement::Last,
        v1::Placement::Fair if asked.placement == v1::Placement::Fair as i32 => Placement::Fair,
        v1::Placement::Fair => {
            return Err(invalid(
                "options.placement",
                format!("is {}, not 0, 1 or 2", asked.placement),
            ));
        }
    };
    let niceness = Niceness::new(asked.niceness).ok_or_else(|| {
        invalid(
            "options.niceness",
            format!("is {}, allowed are -20 to 20", asked.niceness),
        )
    })?;
    if asked.at_most_once {
        for (field, budget) in [
            ("options.max_attempts", asked.max_attempts),
            ("options.max_timeouts", asked.max_timeouts),
        ] {
            if budget.is_some_and(|budget| budget > 1) {
                return Err(invalid(
                    field,
                    "must be 1 with options.at_most_once: it is not tried again",
                ));
            }
        }
    }
    Ok(Options {
        niceness,
        placement,
        start_before: time(asked.start_before_ms),
        timeout: duration("options.timeout_ms", asked.timeout_ms)?,
        deadline: time(asked.deadline_ms),
        max_attempts: budget("options.max_attempts", asked.max_attempts)?,
        max_timeouts: budget("options.max_timeouts", asked.max_timeouts)?,
        result_ttl: match asked.result_ttl_ms {
            Some(0) => Some(Duration::ZERO),
            Some(ms) => duration("options.result_ttl_ms", ms)?,
            None => None,
        },
        // The core says so of tasks that are opened with Iterate.
        stream: false,
        at_most_once: asked.at_most_once,
        key: None,
    })
}

/// The key, and what is to become of the task if another one has it.
fn key(asked: &v1::TaskOptions) -> Result<(Option<Key>, OnKey), Error> {
    let on_key = match asked.on_key() {
        v1::OnKey::Return => OnKey::Return,
        v1::OnKey::Replace => OnKey::Replace,
        v1::OnKey::Error => OnKey::Refuse,
        v1::OnKey::Same if asked.on_key == v1::OnKey::Same as i32 => OnKey::Same,
        v1::OnKey::Same => {
            let problem = format!("is {}, not 0, 1, 2 or 3", asked.on_key);
            return Err(invalid("options.on_key", problem));
        }
    };
    let key = asked.key.as_deref().map(Key::new).transpose();
    let key = key.map_err(|error| invalid("options.key", error.to_string()))?;
    if key.is_none() && on_key != OnKey::Same {
        return Err(invalid("options.on_key", "needs options.key"));
    }
    Ok((key, on_key))
}

/// Milliseconds since the Unix epoch; 0 is none.
fn time(ms: u64) -> Option<Timestamp> {
    (ms != 0).then(|| Timestamp::from_millis(ms))
}

/// Milliseconds; 0 is none.
fn duration(field: &'static str, ms: u64) -> Result<Option<Duration>, Error> {
    let duration = Duration::from_millis(ms);
    if duration > MAX_DURATION {
        let max = MAX_DURATION.as_millis();
        return Err(invalid(
            field,
            format!("is {ms} ms, at most {max} ms (ten years) are allowed"),
        ));
    }
    Ok((ms != 0).then_some(duration))
}

fn budget(field: &'static str, n: Option<u32>) -> Result<Option<u32>, Error> {
    match n {
        Some(n) if !(1..=MAX_BUDGET).contains(&n) => {
            Err(invalid(field, format!("is {n}, allowed are 1 to {MAX_BUDGET}")))
        }
        n => Ok(n),
    }
}

pub(super) fn name(field: &'static str, text: &str) -> Result<Name, Error> {
    Name::new(text).map_err(|error| bad_name(field, error))
}

pub(super) fn bad_name(field: &'static str, error: NameError) -> Error {
    invalid(field, error.to_string())
}

/// The identity of a task.
pub(super) fn task_id(field: &'static str, bytes: &[u8]) -> Result<TaskId, Error> {
    let id = <[u8; 16]>::try_from(bytes)
        .map_err(|_| invalid(field, format!("is {} bytes long, an id has 16 (a UUIDv7)", bytes.len())))?;
    let uuid = Uuid::from_bytes_ref(&id);
    if uuid.get_version_num() != 7 || uuid.get_variant() != uuid::Variant::RFC4122 {
        return Err(invalid(field, format!("{uuid} is no UUIDv7")));
    }
    Ok(TaskId(id))
}

/// An id for a caller that makes none.
fn new_id(now: Timestamp) -> TaskId {
    let [random @ .., _, _, _, _, _, _] = fastrand::u128(..).to_be_bytes();
    TaskId(
        *Builder::from_unix_timestamp_millis(now.as_millis(), &random)
            .as_uuid()
            .as_bytes(),
    )
}

fn payload(field: &'static str, payload: Option<v1::Payload>) -> Result<Payload, Error> {
    let payload = payload.unwrap_or_default();
    if payload.data.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::PayloadTooLarge {
            field,
            bytes: payload.data.len(),
        });
    }
    if payload.content_type.len() > MAX_CONTENT_TYPE_BYTES {
        let problem = format!("has a content type of more than {MAX_CONTENT_TYPE_BYTES} bytes");
        return Err(invalid(field, problem));
    }
    Ok(Payload {
        content_type: payload.content_type.into(),
        data: payload.data,
    })
}

pub(super) fn token(token: Option<v1::LeaseToken>) -> Result<LeaseToken, Error> {
    let token = token.ok_or_else(|| invalid("token", "is missing"))?;
    let task = task_id("token.task_id", &token.task_id)?;
    Ok(LeaseToken {
        task,
        grant: Grant {
            epoch: Epoch(token.epoch),
            attempt: token.attempt,
        },
    })
}

pub(super) fn completion(completion: v1::Completion, now: Timestamp) -> Result<Report, Error> {
    let (token, result) = (token(completion.token)?, payload("result", completion.result)?);
    if completion.spawned.is_empty() {
        return Ok(Report::Completed(token, result));
    }
    // What is wrong with them is the handler's fault, not its worker's.
    let children = calls::children(token, completion.spawned, now);
    Ok(children.map_or_else(
        |error| Report::Failed {
            token,
            failure: calls::no_children(&error),
            min_attempts: 0,
        },
        |children| Report::CompletedWith(token, result, children),
    ))
}

fn failed(failed: v1::Failure) -> Result<Report, Error> {
    let v1::Failure {
        token: of,
        failure,
        timed_out,
        min_attempts,
    } = failed;
    let token = token(of)?;
    if min_attempts > MAX_BUDGET {
        let problem = format!("is {min_attempts}, at most {MAX_BUDGET} are allowed");
        return Err(invalid("failure.min_attempts", problem));
    }
    let failure = failure.unwrap_or_default();
    let crashed = failure.crashed;
    let failure = task_failure(failure);
    Ok(match (crashed, timed_out) {
        (true, _) => Report::Crashed(token, failure),
        (false, true) => Report::TimedOut(token, failure),
        (false, false) => Report::Failed {
            token,
            failure,
            min_attempts,
        },
    })
}

pub(super) fn task_failure(failure: v1::TaskFailure) -> Failure {
    let v1::TaskFailure {
        mut kind,
        message,
        trace,
        retryable,
        crashed: _,
    } = failure;
    if kind.is_empty() {
        "error".clone_into(&mut kind);
    }
    // Cut, not refused: the run has failed whatever it says of it. The core
    // cuts the message and the trace, of which it keeps the end.
    kind.truncate(kind.floor_char_boundary(MAX_NAME_BYTES));
    Failure {
        kind,
        message,
        trace,
        retryable,
    }
}

pub(super) fn hello(hello: v1::WorkHello) -> Result<WorkerHello, Error> {
    if !(1..=MAX_SLOTS).contains(&hello.slots) {
        return Err(invalid(
            "hello.slots",
            format!("is {}, allowed are 1 to {MAX_SLOTS}", hello.slots),
        ));
    }
    if hello.tasks.len() > MAX_DECLARATIONS {
        let problem = format!("are {}, at most {MAX_DECLARATIONS} are allowed", hello.tasks.len());
        return Err(invalid("hello.tasks", problem));
    }
    if hello.held.len() > MAX_HELD_RUNS {
        return Err(invalid(
            "hello.held",
            format!("are {}, at most {MAX_HELD_RUNS} are allowed", hello.held.len()),
        ));
    }
    let resume = match &hello.resume[..] {
        [] => None,
        bytes => {
            let problem = || {
                invalid(
                    "hello.resume",
                    format!("is {} bytes long, a session has 16", bytes.len()),
                )
            };
            Some(SessionId(bytes.try_into().map_err(|_| problem())?))
        }
    };
    let declaration = |task: v1::TaskDeclaration| {
        Ok(Declaration {
            on_loss: match v1::OnLoss::try_from(task.on_loss) {
                Ok(v1::OnLoss::Fail) => OnLoss::Fail,
                Ok(v1::OnLoss::Replay) => OnLoss::Replay,
                Ok(v1::OnLoss::Checkpoint) => OnLoss::Checkpoint,
                Err(_) => {
                    return Err(invalid(
                        "hello.tasks.on_loss",
                        format!("is {}, which is no policy", task.on_loss),
                    ));
                }
            },
            name: name("hello.tasks.name", &task.name)?,
            timeout: duration("hello.tasks.timeout_ms", task.timeout_ms)?,
            max_attempts: budget("hello.tasks.max_attempts", Some(task.max_attempts).filter(|&n| n != 0))?,
        })
    };
    Ok(WorkerHello {
        worker: name("hello.worker", &hello.worker)?,
        slots: hello.slots,
        tasks: hello.tasks.into_iter().map(declaration).collect::<Result<_, Error>>()?,
        resume,
        held: hello
            .held
            .into_iter()
            .map(|held| token(Some(held)))
            .collect::<Result<_, _>>()?,
        leaked: hello.leaked,
    })
}

/// A worker's message after its hello. A malformed one is refused whole: the
/// worker is broken.
pub(super) fn work(request: v1::WorkRequest, session: SessionId, now: Timestamp) -> Result<WorkerInput, Error> {
    let mut reports = Vec::with_capacity(request.completions.len() + request.failures.len());
    for done in request.completions {
        reports.push(completion(done, now)?);
    }
    for failure in request.failures {
        reports.push(failed(failure)?);
    }
    for released in request.released {
        reports.push(Report::Released(token(Some(released))?));
    }
    for ended in request.ended {
        reports.push(Report::Ended(token(Some(ended))?));
    }
    for abandoned in request.abandoned {
        reports.push(Report::Abandoned(token(Some(abandoned))?));
    }
    let extension = |asked: v1::Extension| {
        let left = duration("extensions.left_ms", asked.left_ms)?;
        Ok((token(asked.token)?, left.unwrap_or_default()))
    };
    let extensions = request.extensions.into_iter().map(extension);
    let extensions = extensions.collect::<Result<_, Error>>()?;
    let heartbeat = Some(request.heartbeat).filter(|&count| count != 0);
    Ok(WorkerInput {
        heartbeat,
        reports,
        number: NonZeroU64::new(request.number),
        draining: request.draining,
        leaked: request.leaked,
        extensions,
        calls: (request.calls.into_iter())
            .map(|call| calls::ask(call, session, now))
            .collect::<Result<_, _>>()?,
        withdrawn: (request.withdrawn.into_iter())
            .map(|call| calls::named(call.token, call.n))
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;
