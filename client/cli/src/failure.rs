//! How a command ends badly: an exit code and a line on stderr. The one map from errors to exit codes.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use asynq_client::{DeadReason, Error, Refusal, TaskId};

/// The end of a command that did not go well.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Reason and message; `None` says nothing.
    said: Option<(String, String)>,
}

impl Failure {
    pub(crate) fn new(code: u8, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            said: Some((reason.to_owned(), message.into())),
        }
    }

    /// The command line, or what it names, is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(2, "USAGE", message)
    }

    /// Nobody reads our output any more. That is their right.
    pub(crate) const fn hung_up() -> Self {
        Self { code: 0, said: None }
    }

    /// Ends with this code without another word.
    pub(crate) const fn silent(code: u8) -> Self {
        Self { code, said: None }
    }

    /// Says where, too.
    pub(crate) fn at(mut self, place: &str) -> Self {
        if let Some((_, message)) = &mut self.said {
            *message = format!("{place}: {message}");
        }
        self
    }

    pub(crate) const fn code(&self) -> u8 {
        self.code
    }

    /// Says it and gives the code to exit with.
    pub(crate) fn report(self) -> ExitCode {
        if let Some((reason, message)) = self.said {
            say(&reason, &message);
        }
        ExitCode::from(self.code)
    }
}

/// Writes `asynq: REASON: message` to stderr.
pub(crate) fn say(reason: &str, message: &str) {
    // With stderr gone there is nobody left to tell.
    let _unheard = writeln!(io::stderr(), "asynq: {reason}: {message}");
}

/// Writes a plain line to stderr, about work that goes well.
pub(crate) fn note(line: &str) {
    let _unheard = writeln!(io::stderr(), "{line}");
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Dead {
                reason: DeadReason::Timeout,
                ..
            }
            | Error::Timeout { .. } => 4,
            Error::Refused {
                kind: Refusal::InvalidArgument,
                ..
            }
            | Error::Address(_)
            | Error::Credentials { .. }
            | Error::PayloadTooLarge { .. }
            | Error::Codec { .. } => 2,
            Error::NoBroker { .. } | Error::StreamBroken { .. } | Error::Tls { .. } => 3,
            Error::Cancelled { .. } | Error::Expired { .. } => 5,
            Error::Refused { .. } => 6,
            // Dead for any other reason.
            _ => 1,
        };
        let message = match &error {
            // Its kind is the reason again.
            Error::Dead { id, failure, .. } if failure.kind.eq_ignore_ascii_case(error.reason()) => {
                format!("{} (task {id})", failure.message)
            }
            Error::StreamBroken { id, taken, .. } => format!("{error}; {}", go_on(*id, *taken)),
            _ => error.to_string(),
        };
        Self::new(code, error.reason(), message)
    }
}

/// What to type to go on with a stream.
pub(crate) fn go_on(id: TaskId, from: u64) -> String {
    format!("go on with: asynq iterate --task {id} --from {from}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_broke_says_how_to_go_on() {
        let id = "019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1".parse().unwrap();
        let failure = Failure::from(Error::StreamBroken {
            id,
            taken: 40,
            message: "no broker".to_owned(),
        });
        let (reason, message) = failure.said.unwrap();
        assert_eq!((failure.code, reason.as_str()), (3, "STREAM_BROKEN"));
        assert!(
            message.ends_with(&format!("; go on with: asynq iterate --task {id} --from 40")),
            "{message}"
        );
    }
}
