//! What runs call and spawn, from the wire to the core's words and back.

use asynq_core::limits::MAX_SPAWNED;
use asynq_core::{Call, Failure, LeaseToken, SessionId, TaskSpec, Timestamp};
use asynq_proto::v1;

use super::convert::{self, invalid};
use super::render;
use super::status::operation_error;
use crate::broker::{Answer, Answered, Ask, CallingRun, Enqueue, Error, Op};

/// A call of a session. One that names no run is refused with its whole message;
/// what else is wrong is told to the run.
pub(super) fn ask(call: v1::RunCall, session: SessionId, now: Timestamp) -> Result<Ask, Error> {
    let (number, run) = (call.call, named(call.token.clone(), call.n)?);
    let op = if call.enqueued {
        Op::Wait(run.token.child(run.n))
    } else {
        let by = CallingRun {
            session: Some(session),
            call: run,
        };
        enqueue(call, by, now).map_or_else(Op::Invalid, |mut enqueue| {
            enqueue.wait = true;
            Op::Enqueue(enqueue)
        })
    };
    Ok(Ask { call: number, op })
}

/// A call on the data connection. It may come a second time, and late: so it is
/// always looked up.
pub(super) fn large(mut call: v1::RunCall, now: Timestamp) -> Result<Enqueue, Error> {
    call.again = true;
    let by = CallingRun {
        session: None,
        call: named(call.token.clone(), call.n)?,
    };
    enqueue(call, by, now)
}

/// Which of the tasks of which run.
pub(super) fn named(token: Option<v1::LeaseToken>, n: u32) -> Result<Call, Error> {
    if n == 0 {
        return Err(invalid("calls.n", "is 0; a run counts the tasks it makes from 1"));
    }
    Ok(Call {
        token: convert::token(token)?,
        n,
    })
}

fn enqueue(call: v1::RunCall, by: CallingRun, now: Timestamp) -> Result<Enqueue, Error> {
    Ok(Enqueue {
        first_send: !call.again,
        spec: Box::new(spec(call, by.call, now)?),
        wait: false,
        by: Some(by),
    })
}

fn spec(call: v1::RunCall, run: Call, now: Timestamp) -> Result<TaskSpec, Error> {
    let is_stream = call.stream;
    let request = v1::EnqueueRequest {
        name: call.name,
        payload: call.payload,
        options: call.options,
        ..v1::EnqueueRequest::default()
    };
    // Its id is the run's, not one of the broker's.
    let mut spec = *convert::enqueue(request, now)?.spec;
    if spec.options.key.is_some() {
        let problem = "is for callers; what a run calls or spawns is one task by its id, however often it is sent";
        return Err(invalid("options.key", problem));
    }
    spec.id = run.token.child(run.n);
    spec.options.stream = is_stream;
    Ok(spec)
}

/// What a run has spawned.
pub(super) fn children(token: LeaseToken, spawned: Vec<v1::RunCall>, now: Timestamp) -> Result<Vec<TaskSpec>, Error> {
    if spawned.len() > MAX_SPAWNED {
        let problem = format!("are {}, at most {MAX_SPAWNED} are allowed", spawned.len());
        return Err(invalid("spawned", problem));
    }
    let one = |child: v1::RunCall| {
        let run = named(child.token.clone(), child.n)?;
        if run.token != token {
            return Err(invalid("spawned.token", "is not that of the completion"));
        }
        if child.stream {
            return Err(invalid(
                "spawned.stream",
                "is set; nobody reads what a run leaves behind",
            ));
        }
        spec(child, run, now)
    };
    spawned.into_iter().map(one).collect()
}

/// How a run fails whose children cannot be.
pub(super) fn no_children(error: &Error) -> Failure {
    Failure {
        kind: "error".into(),
        message: format!("a task it spawns is refused: {error}"),
        trace: String::new(),
        retryable: false,
    }
}

/// What a run is told: only of the end.
pub(super) fn answer(Answered { call, answer, .. }: Answered) -> Option<v1::CallAnswer> {
    use v1::call_answer::Of;
    let of = match answer {
        Answer::Finished { end, deferred } => Of::Finished(render::finished(&end, deferred)),
        Answer::Failed(error) => Of::Error(operation_error(&error)),
        _ => return None,
    };
    Some(v1::CallAnswer { call, of: Some(of) })
}
