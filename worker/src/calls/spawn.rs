//! Tasks a run leaves behind: they begin with its success.

use asynq_proto::limits::{MAX_SPAWNED, MAX_SPAWNED_BYTES};
use asynq_proto::{EncodeError, Payload, check_name, v1};

use super::{CallError, call_options, lock};
use crate::context::Context;

/// A task to be left behind. Made by [`Context::spawn`];
/// [`on_success`](Spawn::on_success) leaves it.
#[must_use = "nothing is left behind before `on_success`"]
pub struct Spawn {
    context: Context,
    name: String,
    payload: Result<Payload, CallError>,
    options: v1::TaskOptions,
}

/// What a run leaves behind so far; nothing more once it has returned.
#[derive(Debug, Default)]
pub(crate) struct Spawned {
    tasks: Vec<v1::RunCall>,
    bytes: usize,
    closed: bool,
}

impl Spawned {
    pub(super) fn close(&mut self) -> Vec<v1::RunCall> {
        self.closed = true;
        std::mem::take(&mut self.tasks)
    }
}

impl Spawn {
    call_options!();

    pub(super) fn new(context: Context, name: &str, payload: Result<Payload, EncodeError>) -> Self {
        Self {
            context,
            name: name.to_owned(),
            payload: payload.map_err(CallError::arguments),
            options: v1::TaskOptions::default(),
        }
    }

    /// Leaves it behind, to begin if this attempt succeeds, and not otherwise.
    /// What the broker finds wrong with an option fails the attempt then.
    ///
    /// # Errors
    /// If its name or arguments cannot be, if the run has left 1,000 behind or 2 MiB
    /// of arguments, if its items are read as they come (such a run has no result),
    /// or if it has returned.
    pub fn on_success(self) -> Result<(), CallError> {
        let Self {
            context,
            name,
            payload,
            options,
        } = self;
        let refused = |name: &str, reason: &str, message: String| {
            Err(CallError::Refused {
                name: name.to_owned(),
                reason: reason.to_owned(),
                message,
            })
        };
        let payload = payload?;
        if let Err(problem) = check_name(&name) {
            return refused(&name, "INVALID_FIELD", format!("the name {problem}"));
        }
        let run = context.calls();
        if run.is_streamed {
            let message = "the items of this run are read as they come, so it has no result to go with";
            return refused(&name, "INVALID_FIELD", message.into());
        }
        let mut spawned = lock(run.spawned.get_or_init(Box::default));
        let bytes = spawned.bytes + payload.len();
        let full = if spawned.closed {
            Some("the run has returned".to_owned())
        } else if spawned.tasks.len() >= MAX_SPAWNED {
            Some(format!("a run spawns at most {MAX_SPAWNED} tasks"))
        } else if bytes > MAX_SPAWNED_BYTES {
            Some(format!(
                "a run spawns tasks with at most {MAX_SPAWNED_BYTES} bytes of arguments"
            ))
        } else {
            None
        };
        if let Some(message) = full {
            return refused(&name, "LIMIT_REACHED", message);
        }
        spawned.bytes = bytes;
        spawned.tasks.push(context.makes(name, payload, options));
        Ok(())
    }
}
