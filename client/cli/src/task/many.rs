//! A verb over many tasks: which they are, and what has become of them.

use std::time::Instant;

use asynq_client::{Client, Error, ListTasks, State, Tally, TaskId};
use serde::Serialize;

use super::filter::Filter;
use crate::{
    cli::Format,
    failure::{Failure, note},
    limits::TOLD_EVERY,
    output,
};

/// The tasks by their ids, or by what they must fit.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The tasks.
    #[arg(value_name = "ID")]
    ids: Vec<TaskId>,
    #[command(flatten)]
    filter: Filter,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// See [`Which`].
#[derive(Debug)]
pub(crate) enum Tasks {
    Ids(Vec<TaskId>),
    Fitting(Filter),
}

impl Which {
    /// Exactly one way of naming them must have been used.
    pub(crate) fn tasks(self, verb: &str, states: &[State]) -> Result<Tasks, Failure> {
        let Self { ids, filter, all } = self;
        match (ids.is_empty(), filter.is_empty(), all) {
            (false, true, false) => Ok(Tasks::Ids(ids)),
            (true, false, false) => {
                check(&filter, verb, states)?;
                Ok(Tasks::Fitting(filter))
            }
            (true, true, true) => Ok(Tasks::Fitting(filter)),
            (true, true, false) => Err(Failure::usage(format!(
                "{verb} which tasks? Give their ids, or filters (--state --name --queue --series --since), or --all"
            ))),
            _ => Err(Failure::usage(format!(
                "{verb} by ids, by filters or --all: give one of these"
            ))),
        }
    }
}

/// That it can be done to tasks in these states, and that no variable of a script
/// was empty: that would mean all tasks.
pub(crate) fn check(filter: &Filter, verb: &str, states: &[State]) -> Result<(), Failure> {
    for (flag, value) in [("--name", &filter.name), ("--queue", &filter.queue)] {
        if value.as_ref().is_some_and(String::is_empty) {
            return Err(Failure::usage(format!(
                "{flag} is empty; leave it out to {verb} tasks of any"
            )));
        }
    }
    match filter.state.iter().find(|state| !states.contains(state)) {
        None => Ok(()),
        Some(state) => {
            let states: Vec<_> = states.iter().map(|state| state.as_str()).collect();
            let states = states.join(", ");
            Err(Failure::usage(format!(
                "{verb} takes no tasks that are {state}; --state can be {states}"
            )))
        }
    }
}

/// What can be done to all tasks of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Cancel,
    Retry,
    Purge,
}

/// Does it, and prints in numbers what has become of them.
pub(crate) async fn sweep(verb: Verb, client: &Client, tasks: ListTasks, format: Format) -> Result<(), Failure> {
    let (mut last, mut told) = (Tally::default(), Instant::now());
    let hear = |tally: &Tally| {
        last.clone_from(tally);
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            note(&format!("{} tasks so far", tally.seen()));
        }
    };
    let swept = match verb {
        Verb::Cancel => client.cancel_where(tasks, hear).await,
        Verb::Retry => client.retry_where(tasks, hear).await,
        Verb::Purge => client.purge_where(tasks, hear).await,
    };
    let tally = match swept {
        Ok(tally) => tally,
        Err(error) => {
            // What was done is done.
            note(&format!("before it failed: {}", verb.text(&last)));
            return Err(error.into());
        }
    };
    match format {
        Format::Text => output::line(&verb.text(&tally))?,
        Format::Json => verb.json(&tally)?,
    }
    match tally.refusal {
        None => Ok(()),
        Some(error) => Err(Failure::from(error).at(&format!("{} tasks were refused, the first", tally.refused))),
    }
}

impl Verb {
    /// `3 cancelled, 1 stopping`: what is zero is left out, but for the first.
    fn text(self, tally: &Tally) -> String {
        let (done, moved_on) = match self {
            Self::Cancel => ("cancelled", "had ended before"),
            Self::Retry => ("retried", "were dead no more"),
            Self::Purge => ("purged", "had changed before"),
        };
        let mut text = format!("{} {done}", tally.done);
        for (count, word) in [
            (tally.stopping, "stopping"),
            (tally.moved_on, moved_on),
            (tally.refused, "refused"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        text
    }

    fn json(self, tally: &Tally) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Cancelled {
            cancelled: u64,
            stopping: u64,
            finished: u64,
        }
        #[derive(Serialize)]
        struct Retried {
            retried: u64,
            changed: u64,
            refused: u64,
        }
        #[derive(Serialize)]
        struct Purged {
            purged: u64,
            changed: u64,
            refused: u64,
        }
        let (done, refused) = (tally.done, tally.refused);
        match self {
            Self::Cancel => output::json(&Cancelled {
                cancelled: done,
                stopping: tally.stopping,
                finished: tally.moved_on,
            }),
            Self::Retry => output::json(&Retried {
                retried: done,
                changed: tally.moved_on,
                refused,
            }),
            Self::Purge => output::json(&Purged {
                purged: done,
                changed: tally.moved_on,
                refused,
            }),
        }
    }
}

/// The worst that has come of one of many.
#[derive(Debug, Default)]
pub(crate) struct Worst(u8);

impl Worst {
    /// Says what went wrong with one, and goes on.
    pub(crate) fn note(&mut self, error: Error) {
        let failure = Failure::from(error);
        self.0 = self.0.max(failure.code());
        failure.report();
    }

    pub(crate) fn end(self) -> Result<(), Failure> {
        match self.0 {
            0 => Ok(()),
            code => Err(Failure::silent(code)),
        }
    }
}
