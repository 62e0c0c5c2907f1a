//! What a handler says of a failed run, and what its caller reads.

use std::error::Error;
use std::fmt::Write;

use crate::limits::MAX_FAILURE_BYTES;
use crate::v1;

/// Kind of a failure a handler returned.
pub const KIND_ERROR: &str = "error";
/// Kind of a failure that lies with the arguments.
pub const KIND_REJECTED: &str = "rejected";
/// Kind of a failure that was a panic.
pub const KIND_PANIC: &str = "panic";
/// Kind of a failure that took too long.
pub const KIND_TIMEOUT: &str = "timeout";
/// Kind of a failure that was the end of the process that ran the task.
pub const KIND_CRASH: &str = "crash";
/// A generator that was run again yielded other items than before.
pub const KIND_NON_DETERMINISTIC: &str = "non_deterministic";

/// How a run failed, and whether another attempt may help.
///
/// Handlers return it; `?` turns every standard error into a retryable one. It
/// is no [`std::error::Error`] itself, which is what makes that `?` possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// A word for programs: `"error"`, `"rejected"`, `"panic"`, `"crash"`, `"timeout"` or the handler's own.
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// Where it came from: causes, a stack, the tail of stderr. May be empty.
    pub trace: String,
    /// Whether another attempt may help. The task's `max_attempts` decides
    /// whether there is one.
    pub retryable: bool,
    /// Whether the process that ran the task died under it. Such ends are
    /// counted apart from failures: after the third the task is dead, for reason
    /// `poison`, whatever its `max_attempts`.
    pub crashed: bool,
    /// Whether the run took longer than it may. Such ends are counted apart from
    /// failures: `max_timeouts` of the task decides whether it is tried again.
    pub timed_out: bool,
    /// The task has at least this many attempts, whatever its `max_attempts` says;
    /// 0: as many as that.
    pub min_attempts: u32,
}

impl TaskError {
    /// A failure that may pass: the task is tried again while attempts are left.
    #[must_use]
    pub fn retryable(message: impl Into<String>) -> Self {
        Self {
            kind: KIND_ERROR.into(),
            message: message.into(),
            trace: String::new(),
            retryable: true,
            crashed: false,
            timed_out: false,
            min_attempts: 0,
        }
    }

    /// The run took longer than it may, by a limit of the handler's own: counted as
    /// the broker's timeouts are.
    ///
    /// ```
    /// let error = asynq_proto::TaskError::timed_out("resize ran longer than 5s and was ended");
    /// assert_eq!((error.kind.as_str(), error.timed_out), ("timeout", true));
    /// ```
    #[must_use]
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self {
            kind: KIND_TIMEOUT.into(),
            timed_out: true,
            ..Self::retryable(message)
        }
    }

    /// The process that ran the task died: the task is tried again at once, and
    /// dead for reason `poison` after the third time. For handlers that run
    /// their tasks in processes of their own.
    ///
    /// ```
    /// let error = asynq_proto::TaskError::crashed("resize was killed by signal 11");
    /// assert_eq!((error.kind.as_str(), error.crashed), ("crash", true));
    /// ```
    #[must_use]
    pub fn crashed(message: impl Into<String>) -> Self {
        Self {
            kind: KIND_CRASH.into(),
            crashed: true,
            ..Self::retryable(message)
        }
    }

    /// A failure that will not pass: the task is dead at once.
    #[must_use]
    pub fn terminal(message: impl Into<String>) -> Self {
        Self {
            retryable: false,
            ..Self::retryable(message)
        }
    }

    /// Arguments no attempt could work with: the task is dead at once, for
    /// reason `rejected`.
    #[must_use]
    pub fn rejected(message: impl Into<String>) -> Self {
        Self {
            kind: KIND_REJECTED.into(),
            ..Self::terminal(message)
        }
    }

    /// The same, and the task has at least so many attempts, up to
    /// [`MAX_BUDGET`](crate::limits::MAX_BUDGET): for what is known to pass soon.
    #[must_use]
    pub fn with_min_attempts(mut self, attempts: u32) -> Self {
        self.min_attempts = attempts.min(crate::limits::MAX_BUDGET);
        self
    }

    /// The same with a kind of the handler's own.
    #[must_use]
    pub fn with_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// The same with a trace.
    #[must_use]
    pub fn with_trace(mut self, trace: impl Into<String>) -> Self {
        self.trace = trace.into();
        self
    }
}

/// A retryable failure of kind `error`. The causes, if any, become the trace.
impl<E: Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut trace = String::new();
        let mut cause = error.source();
        while let Some(source) = cause.filter(|_| trace.len() < MAX_FAILURE_BYTES) {
            // Writing to a string cannot fail.
            let _ = writeln!(trace, "caused by: {source}");
            cause = source.source();
        }
        Self::retryable(error.to_string()).with_trace(trace)
    }
}

// Not `From`: that would collide with the blanket one above.
impl TaskError {
    /// The failure as the wire carries it, message and trace cut to
    /// [`MAX_FAILURE_BYTES`] each: the message keeps its beginning, the trace
    /// its end.
    #[must_use]
    pub fn into_wire(mut self) -> v1::TaskFailure {
        self.kind
            .truncate(self.kind.floor_char_boundary(crate::limits::MAX_NAME_BYTES));
        self.message
            .truncate(self.message.floor_char_boundary(MAX_FAILURE_BYTES));
        if let Some(excess) = self.trace.len().checked_sub(MAX_FAILURE_BYTES) {
            self.trace.drain(..self.trace.ceil_char_boundary(excess));
        }
        v1::TaskFailure {
            kind: self.kind,
            message: self.message,
            trace: self.trace,
            retryable: self.retryable,
            crashed: self.crashed,
        }
    }

    /// A failure read from the wire.
    #[must_use]
    pub fn from_wire(wire: v1::TaskFailure) -> Self {
        Self {
            kind: wire.kind,
            message: wire.message,
            trace: wire.trace,
            retryable: wire.retryable,
            crashed: wire.crashed,
            timed_out: false,
            min_attempts: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn a_question_mark_makes_a_retryable_failure() {
        fn handler() -> Result<u8, TaskError> {
            Ok("x".parse::<u8>().map_err(Outer)?)
        }
        let error = handler().unwrap_err();
        assert_eq!(
            (error.kind.as_str(), error.message.as_str(), error.retryable),
            ("error", "outer", true)
        );
        assert_eq!(error.trace, "caused by: invalid digit found in string\n");
    }

    #[test]
    fn constructors_say_whether_to_try_again() {
        assert!(TaskError::retryable("m").retryable);
        assert!(!TaskError::terminal("m").retryable);
        let rejected = TaskError::rejected("m");
        assert_eq!((rejected.kind.as_str(), rejected.retryable), ("rejected", false));
        assert_eq!(TaskError::terminal("m").with_kind("mine").kind, "mine");
    }

    #[test]
    fn the_wire_carries_bounded_text() {
        let long = "ä".repeat(MAX_FAILURE_BYTES);
        let wire = TaskError::terminal(format!("x{long}"))
            .with_trace(format!("{long}end"))
            .into_wire();
        assert_eq!(wire.message.len(), MAX_FAILURE_BYTES - 1);
        assert!(wire.trace.len() <= MAX_FAILURE_BYTES && wire.trace.ends_with("end"));
        let short = TaskError::rejected("m").with_trace("t");
        assert_eq!(TaskError::from_wire(short.clone().into_wire()), short);
    }
}
