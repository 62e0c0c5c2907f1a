//! Starting a program, and what its run holds of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use asynq_worker::{Context, OnLoss, Payload, TaskError};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::Exec;
use super::arguments::{Arguments, Unfit};
use super::definition::{CommandLine, Stdin};
use super::failure::{Ended, not_started};
use super::find::NotFound;
use super::process::Process;
use super::stderr::Stderr;
use super::stdout::Stdout;
use super::supervise::{Attached, Limit, supervise};
use crate::kinds::limits::BROKER_SLACK;

/// What programs get of the worker's environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// A running program. Dropping it ends the program.
pub(super) struct Program {
    name: String,
    ended: oneshot::Receiver<Ended>,
    _wanted: DropGuard,
}

impl Program {
    /// Starts the program of a task. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the arguments do not fit the command line, or there is no program
    /// to start.
    pub(super) fn start(exec: &Exec, context: &Context, payload: &Payload) -> Result<(Self, Stdout), TaskError> {
        let args = words(&exec.definition.cmd, payload).map_err(Unfit::rejected)?;
        let name = &exec.definition.cmd.program;
        let path = exec.find().map_err(NotFound::not_started)?;
        let limit = limit(Instant::now(), exec.definition.timeout, context.remaining());
        let input = match exec.definition.stdin {
            Stdin::None => None,
            Stdin::Json if payload.is_json() => Some(payload.data().clone()),
            Stdin::Json => {
                return Err(TaskError::rejected(format!(
                    "the arguments do not fit: they are {:?}, and the program reads JSON",
                    payload.content_type()
                )));
            }
        };
        let child = Command::new(path)
            .arg0(name)
            .args(args)
            .current_dir(&exec.folder)
            .env_clear()
            .envs(environment(exec, context))
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| not_started(name, &error))?;
        let mut process = Process::watch(child).map_err(|error| not_started(name, &error))?;
        let watched = exec.guard.as_ref().map(|guard| guard.watch(process.group()));
        let pipes = process.pipes().map_err(|error| not_started(name, &error))?;

        let (unwanted, gone) = (CancellationToken::new(), CancellationToken::new());
        let (tell, ended) = oneshot::channel();
        let attached = Attached {
            stderr: Stderr::listen(pipes.stderr),
            stdin: pipes.stdin.zip(input).map(|(mut stdin, input)| {
                AbortOnDropHandle::new(tokio::spawn(async move {
                    // A program may close its stdin without having read all.
                    let _ = stdin.write_all(&input).await;
                }))
            }),
            watched,
            linger: context.linger(),
        };
        let tokens = (unwanted.clone(), gone.clone());
        tokio::spawn(supervise(process, attached, context.clone(), limit, tokens, tell));
        let program = Self {
            name: name.clone(),
            ended,
            _wanted: unwanted.drop_guard(),
        };
        Ok((program, Stdout::new(pipes.stdout, gone)))
    }

    /// Waits for its end; gives the end of what it said on stderr.
    ///
    /// # Errors
    /// Unless it ended well.
    pub(super) async fn end(self) -> Result<String, TaskError> {
        match self.ended.await {
            Ok(ended) => ended.verdict(&self.name),
            Err(_) => Err(TaskError::retryable(format!("it is not known how {} ended", self.name))),
        }
    }
}

/// The words behind the program's name.
fn words(cmd: &CommandLine, payload: &Payload) -> Result<Vec<String>, Unfit> {
    let literal = cmd.args.iter().map(|word| word.literal().map(str::to_owned));
    if let Some(words) = literal.collect() {
        return Ok(words); // whatever the arguments are
    }
    let arguments = Arguments::of(payload)?;
    cmd.args.iter().map(|word| word.render(&arguments)).collect()
}

/// All the program gets to know, apart from its command line.
fn environment(exec: &Exec, context: &Context) -> BTreeMap<String, OsString> {
    let inherited = INHERITED
        .iter()
        .filter_map(|&name| Some((name.to_owned(), std::env::var_os(name)?)));
    let own = exec
        .definition
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.into()));
    let token = context.token();
    let has_checkpoints = exec.definition.on_loss == OnLoss::Checkpoint;
    let of_the_run = [
        ("ASYNQ_TASK_ID", Some(token.task_id.to_string().into())),
        ("ASYNQ_EPOCH", Some(token.epoch.to_string().into())),
        ("ASYNQ_ATTEMPT", Some(token.attempt.to_string().into())),
        (
            "ASYNQ_START_INDEX",
            // To ask is to promise that it begins there.
            (exec.definition.seeks || has_checkpoints).then(|| context.start_index().to_string().into()),
        ),
        (
            "ASYNQ_CHECKPOINT",
            has_checkpoints
                .then(|| context.start_checkpoint_bytes())
                .flatten()
                .map(|token| OsString::from_vec(token.into())),
        ),
        (
            "ASYNQ_DEADLINE",
            time_left(exec.definition.timeout, context.remaining())
                .and_then(deadline)
                .map(OsString::from),
        ),
    ];
    let of_the_run = of_the_run
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    inherited.chain(own).chain(of_the_run).collect()
}

/// How long the run may take, by worker.toml or by the broker.
fn time_left(own: Option<Duration>, brokers: Option<Duration>) -> Option<Duration> {
    [own, brokers].into_iter().flatten().min()
}

/// That long from now, in RFC 3339 with milliseconds.
fn deadline(left: Duration) -> Option<String> {
    let now = clock_gettime(ClockId::Realtime);
    let now = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
    let ms = i64::try_from((now + left).as_millis()).ok()?;
    Some(format!("{:.3}", jiff::Timestamp::from_millisecond(ms).ok()?))
}

/// When the worker itself ends the run. What the broker ends as well is left to
/// it, as long as it can be heard.
fn limit(now: Instant, own: Option<Duration>, brokers: Option<Duration>) -> Option<Limit> {
    let after = time_left(own, brokers)?;
    let slack = if brokers == Some(after) {
        BROKER_SLACK
    } else {
        Duration::ZERO
    };
    Some(Limit {
        at: now.checked_add(after.saturating_add(slack))?,
        after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_timeout_wins_and_the_broker_speaks_first_of_its_own() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let limit = |own, brokers| limit(now, own, brokers).map(|limit| (limit.at - now, limit.after));
        assert_eq!(limit(None, None), None);
        assert_eq!(limit(Some(5 * second), None), Some((5 * second, 5 * second)));
        assert_eq!(
            limit(Some(5 * second), Some(9 * second)),
            Some((5 * second, 5 * second))
        );
        assert_eq!(
            limit(Some(5 * second), Some(2 * second)),
            Some((2 * second + BROKER_SLACK, 2 * second))
        );
        assert_eq!(
            limit(None, Some(2 * second)),
            Some((2 * second + BROKER_SLACK, 2 * second))
        );
    }

    #[test]
    fn a_deadline_is_written_for_other_programs() {
        let text = deadline(Duration::from_secs(60)).unwrap();
        assert!(
            text.ends_with('Z') && text.len() == "2026-11-22T15:18:06.123Z".len(),
            "{text}"
        );
        assert!(text.parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::UNIX_EPOCH);
    }
}
