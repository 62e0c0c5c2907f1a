//! How a program's end becomes a task's.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use asynq_worker::TaskError;

use crate::kinds::limits::LAST_WORDS_BYTES;

/// Kind of a failure: the program was not started.
pub(super) const KIND_SPAWN: &str = "spawn";
/// Kind of a failure: the program wrote what it should not have.
pub(super) const KIND_BAD_OUTPUT: &str = "bad_output";

/// Exit code of a program that no attempt could help (`EX_DATAERR`).
const TERMINAL: i32 = 65;
/// Exit code of a program that may do better soon (`EX_TEMPFAIL`) …
const TEMPORARY: i32 = 75;
/// … and how often it is tried at least.
const TEMPORARY_ATTEMPTS: u32 = 3;

/// A program's end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Its time was up: this much.
    pub(super) timed_out: Option<Duration>,
    /// The end of what it said on stderr.
    pub(super) stderr: String,
}

impl Ended {
    /// Gives the end of what it said on stderr.
    ///
    /// # Errors
    /// Unless the program ended well by itself.
    pub(super) fn verdict(self, program: &str) -> Result<String, TaskError> {
        let Self {
            status,
            timed_out,
            stderr,
        } = self;
        let error = if let Some(limit) = timed_out {
            TaskError::timed_out(format!("{program} ran longer than {limit:?} and was ended"))
        } else if status.success() {
            return Ok(stderr);
        } else if let Some(signal) = status.signal() {
            let said = last_words(&stderr);
            TaskError::crashed(format!("{program} was killed by signal {signal}{said}"))
        } else {
            let code = status.code().unwrap_or_default();
            let message = format!("{program} exited with code {code}{}", last_words(&stderr));
            match code {
                TERMINAL => TaskError::terminal(message),
                TEMPORARY => TaskError::retryable(message).with_min_attempts(TEMPORARY_ATTEMPTS),
                _ => TaskError::retryable(message),
            }
        };
        Err(error.with_trace(stderr))
    }
}

/// The last line of stderr says most; the trace holds the rest.
fn last_words(stderr: &str) -> String {
    let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(String::new, |line| {
        format!(": {}", &line[..line.floor_char_boundary(LAST_WORDS_BYTES)])
    })
}

/// Running again would write the same, so the failure is terminal.
pub(super) fn bad_output(message: impl Into<String>) -> TaskError {
    TaskError::terminal(message).with_kind(KIND_BAD_OUTPUT)
}

/// The system did not start a program that is there.
pub(super) fn not_started(program: &str, error: &io::Error) -> TaskError {
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => TaskError::rejected(format!(
            "the arguments are too long for a command line of {program}; have it read them with stdin = \"json\""
        )),
        // Of the file: it is there, as somebody has just looked.
        io::ErrorKind::NotFound => not_run(format!(
            "failed to start {program}: the interpreter its first line names does not exist"
        )),
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => not_run(format!(
            "failed to start {program}: it is no program of this machine, nor a script that begins with #!"
        )),
        _ => not_run(format!("failed to start {program}: {error}")),
    }
}

fn not_run(message: String) -> TaskError {
    TaskError::retryable(message).with_kind(KIND_SPAWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(wait_status: i32, timed_out: Option<Duration>, stderr: &str) -> Result<String, TaskError> {
        let ended = Ended {
            status: ExitStatus::from_raw(wait_status),
            timed_out,
            stderr: stderr.into(),
        };
        ended.verdict("etl")
    }

    #[test]
    fn exit_codes_and_signals_say_what_follows() {
        assert_eq!(ended(0, None, "a warning"), Ok("a warning".into()));
        for (wait_status, kind, retryable, message) in [
            (1 << 8, "error", true, "etl exited with code 1: no such row"),
            (65 << 8, "error", false, "etl exited with code 65: no such row"),
            (75 << 8, "error", true, "etl exited with code 75: no such row"),
            (255 << 8, "error", true, "etl exited with code 255: no such row"),
            (11, "crash", true, "etl was killed by signal 11: no such row"),
        ] {
            let error = ended(wait_status, None, "reading\n  no such row \n\n").unwrap_err();
            assert_eq!((error.kind.as_str(), error.retryable), (kind, retryable));
            assert_eq!(error.message, message);
            let least = if wait_status == 75 << 8 { 3 } else { 0 };
            assert_eq!((error.min_attempts, error.timed_out), (least, false));
            assert_eq!(error.trace, "reading\n  no such row \n\n");
        }
        // However it then ended.
        for wait_status in [0, 15] {
            let error = ended(wait_status, Some(Duration::from_secs(2)), "").unwrap_err();
            assert_eq!((error.kind.as_str(), error.retryable), ("timeout", true));
            assert!(error.timed_out);
            assert_eq!(error.message, "etl ran longer than 2s and was ended");
        }
        assert_eq!(
            ended(2 << 8, None, " \n").unwrap_err().message,
            "etl exited with code 2"
        );
        let long = ended(2 << 8, None, &"ä".repeat(1000)).unwrap_err().message;
        assert!(long.len() < LAST_WORDS_BYTES + 50, "{long}");
    }

    #[test]
    fn what_keeps_a_program_from_starting_is_told_apart() {
        let error = |errno: rustix::io::Errno| not_started("etl", &io::Error::from_raw_os_error(errno.raw_os_error()));
        let long = error(rustix::io::Errno::TOOBIG);
        assert_eq!((long.kind.as_str(), long.retryable), ("rejected", false));
        assert!(error(rustix::io::Errno::NOENT).message.contains("interpreter"));
        assert!(error(rustix::io::Errno::NOEXEC).message.contains("#!"));
        let full = error(rustix::io::Errno::MFILE);
        assert_eq!((full.kind.as_str(), full.retryable), ("spawn", true));
    }
}
