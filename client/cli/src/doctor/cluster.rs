//! The broker and who is connected to it: what it tells, and what that means.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use asynq_client::{Client, Error, QueueInfo, State, WorkerInfo};
use tokio::time::timeout;

use super::verdict::Verdict;
use crate::{
    limits::{DOCTOR_ANSWER, DOCTOR_TASKS},
    time::brief,
};

/// Beyond this every call is felt to wait for the network.
const SLOW: Duration = Duration::from_millis(100);
/// Clocks this far apart make times given on one machine wrong on the other.
const SKEW: Duration = Duration::from_secs(2);
/// Names that are listed before the rest is counted.
const NAMES: usize = 5;
/// Round trips, of which the middle one counts.
const ROUNDS: usize = 3;

/// Waits for an answer, though not for ever.
pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(DOCTOR_ANSWER, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {} s", DOCTOR_ANSWER.as_secs())),
    }
}

/// Asks for the queues, which is quick and changes nothing.
pub(super) async fn measure(client: &Client) -> Result<Duration, String> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        answer(client.queues()).await?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[ROUNDS / 2])
}

pub(super) fn round_trip(took: Result<Duration, String>) -> Verdict {
    match took {
        Ok(took) if took < SLOW => Verdict::ok(format!("{:.1} ms", took.as_secs_f64() * 1e3)),
        Ok(took) => Verdict::warn(
            format!("{} ms", took.as_millis()),
            "have many calls under way at a time (map, enqueue), or run nearer to the broker",
        ),
        Err(error) => unanswered(&error),
    }
}

/// The broker's version beside our own.
pub(super) fn version(theirs: &str) -> Verdict {
    let own = env!("CARGO_PKG_VERSION");
    match theirs {
        "" => Verdict::warn(
            format!("the broker does not tell its version, this command is {own}"),
            "install the same version everywhere",
        ),
        theirs if theirs == own => Verdict::ok(format!("{own}, the broker's too")),
        theirs => Verdict::warn(
            format!("the broker is {theirs}, this command {own}"),
            "install the same version everywhere",
        ),
    }
}

/// The broker's clock beside our own.
pub(super) fn clock(theirs: SystemTime, own: SystemTime, doubted: bool) -> Verdict {
    if doubted {
        return Verdict::warn(
            "the broker's had gone far ahead when it started, and nobody vouches for it: no task expires, none is forgotten",
            "start the broker again: with --trust-clock if its clock is right, else with its clock set right",
        );
    }
    let (apart, side) = match theirs.duration_since(own) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    match apart < SKEW {
        true => Verdict::ok("the broker's and this machine's agree"),
        false => Verdict::warn(
            format!("the broker's is {} {side} this machine's", brief(apart)),
            "set the wrong one right (timedatectl): --at and --start-before are taken by the broker's clock, \
             which is read when it starts and never goes back; --trust-clock has it go back",
        ),
    }
}

pub(super) fn workers(workers: Result<&[WorkerInfo], &String>) -> Verdict {
    let workers = match workers {
        Ok(workers) => workers,
        Err(error) => return unanswered(error),
    };
    let active: Vec<_> = workers.iter().filter(|worker| worker.state == "active").collect();
    let slots: u64 = active.iter().map(|worker| u64::from(worker.slots)).sum();
    let busy: u64 = active.iter().map(|worker| u64::from(worker.busy)).sum();
    let others = match workers.len() - active.len() {
        0 => String::new(),
        others => format!("; {others} more drain or are lost"),
    };
    if active.is_empty() {
        let advice = "start one: asynq-worker --builtins, or with --config worker.toml";
        return Verdict::fail(format!("none takes tasks{others}"), advice);
    }
    let found = format!(
        "{} connected, {} of {slots} slots free{others}",
        active.len(),
        slots.saturating_sub(busy)
    );
    match busy < slots {
        true => Verdict::ok(found),
        false => Verdict::warn(
            found,
            "what is ready waits; start more workers, or give them more --slots",
        ),
    }
}

/// Names of tasks that are ready, of the newest.
#[derive(Debug, Default)]
pub(super) struct Ready {
    names: Vec<String>,
    more: bool,
}

pub(super) async fn ready(client: &Client) -> Result<Ready, Error> {
    let page = client.tasks().state(State::Ready).limit(DOCTOR_TASKS).await?;
    Ok(Ready {
        more: page.next.is_some(),
        names: page.tasks.into_iter().map(|task| task.name).collect(),
    })
}

/// Whether somebody can run what is ready.
pub(super) fn tasks(ready: Result<&Ready, &String>, workers: Result<&[WorkerInfo], &String>) -> Verdict {
    let (ready, workers) = match (ready, workers) {
        (Ok(ready), Ok(workers)) => (ready, workers),
        (Err(error), _) | (_, Err(error)) => return unanswered(error),
    };
    let offered: BTreeSet<&str> = workers
        .iter()
        .filter(|worker| worker.state != "lost")
        .flat_map(|worker| worker.tasks.iter().map(String::as_str))
        .collect();
    let stranded = ready.names.iter().map(String::as_str);
    let stranded: Vec<_> = stranded.filter(|name| !offered.contains(name)).collect();
    let looked = match ready.more {
        true => format!("of the newest {} that are ready", ready.names.len()),
        false => format!("of {} that are ready", ready.names.len()),
    };
    if stranded.is_empty() {
        return Verdict::ok(format!("{looked}, each has a worker"));
    }
    let names: BTreeSet<_> = stranded.iter().copied().collect();
    Verdict::warn(
        format!("{looked}, {} have no worker: {}", stranded.len(), listed(&names)),
        "start a worker that has these names; `asynq task ls --state ready` lists them",
    )
}

pub(super) fn queues(queues: Result<&[QueueInfo], &String>) -> Verdict {
    let queues = match queues {
        Ok(queues) => queues,
        Err(error) => return unanswered(error),
    };
    let paused = queues.iter().filter(|queue| queue.paused);
    let paused: BTreeSet<_> = paused.map(|queue| queue.name.as_str()).collect();
    match paused.len() {
        0 => Verdict::ok(format!("{}, none paused", queues.len())),
        count => Verdict::warn(
            format!("{count} of {} paused: {}", queues.len(), listed(&paused)),
            "their tasks wait until somebody resumes them",
        ),
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    let first: Vec<_> = names.iter().take(NAMES).copied().collect();
    match names.len().saturating_sub(NAMES) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn unanswered(error: &str) -> Verdict {
    Verdict::fail(error, "does the broker's log say why?")
}

#[cfg(test)]
mod tests;
