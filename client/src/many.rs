//! Verbs of operators: over many tasks at a time, and over tasks that have ended.

use asynq_proto::limits::MAX_TASKS_PER_CALL;
use futures_util::{StreamExt, stream};

use crate::{
    CancelOutcome, Cancellation, Error, ListTasks, Refusal, State, TaskId, limits::CANCELS_UNDER_WAY, session::Session,
};

/// What a retry has achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// The task.
    pub id: TaskId,
    /// It was dead, and lives; `false`: it had not ended, and nothing was done. `true`
    /// too if it lives after an answer was lost and it was asked for again.
    pub revived: bool,
    /// Where it stands now.
    pub state: State,
}

/// What has become of the tasks of a listing, in numbers.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Cancelled, retried or purged, as was asked. Where an answer was lost and they
    /// were asked for again: those that are as was asked then.
    pub done: u64,
    /// Of a cancel: those that run, whose workers have been told to stop.
    pub stopping: u64,
    /// Those that were found in another state when their turn came: nothing was
    /// done, and nothing is left to do.
    pub moved_on: u64,
    /// Those with which it could not be done.
    pub refused: u64,
    /// Why the first of those was refused.
    pub refusal: Option<Error>,
}

impl Tally {
    /// All that were looked at.
    pub const fn seen(&self) -> u64 {
        self.done + self.stopping + self.moved_on + self.refused
    }

    fn cancelled(&mut self, cancelled: Result<Cancellation, Error>) -> Result<(), Error> {
        let outcome = match cancelled {
            Ok(cancelled) => cancelled.outcome,
            // It has ended and been forgotten.
            Err(Error::Refused {
                kind: Refusal::NotFound,
                ..
            }) => CancelOutcome::Finished,
            Err(error) => return Err(error),
        };
        *match outcome {
            CancelOutcome::Cancelled => &mut self.done,
            CancelOutcome::Stopping => &mut self.stopping,
            CancelOutcome::Finished => &mut self.moved_on,
        } += 1;
        Ok(())
    }

    /// `done`: it was in the state that was asked for.
    fn ended(&mut self, done: Result<bool, Error>) {
        match done {
            Ok(true) => self.done += 1,
            Ok(false) => self.moved_on += 1,
            Err(error) if has_moved_on(&error) => self.moved_on += 1,
            Err(error) => {
                self.refused += 1;
                self.refusal.get_or_insert(error);
            }
        }
    }
}

fn has_moved_on(error: &Error) -> bool {
    ["NOT_DEAD", "OTHER_STATE", "TASK_NOT_FOUND"].contains(&error.reason())
}

/// Cancels the tasks of a listing: see [`crate::Client::cancel_where`].
pub(crate) async fn cancel(
    session: &Session,
    mut tasks: ListTasks,
    mut told: impl FnMut(&Tally),
) -> Result<Tally, Error> {
    if tasks.states().is_empty() {
        tasks = State::LIVE.into_iter().fold(tasks, ListTasks::state);
    }
    let (mut pages, mut tally) = (Pages::of(tasks), Tally::default());
    while let Some(ids) = pages.next().await? {
        let cancels = stream::iter(ids).map(|id| session.cancel(id));
        let mut cancels = cancels.buffer_unordered(CANCELS_UNDER_WAY);
        while let Some(cancelled) = cancels.next().await {
            tally.cancelled(cancelled)?;
        }
        told(&tally);
    }
    Ok(tally)
}

/// Retries one task.
pub(crate) async fn retry_one(session: &Session, id: TaskId) -> Result<Retry, Error> {
    let (tasks, asked_again) = session.data().retry(&[id]).await?;
    let mut tasks = tasks.into_iter();
    let task = tasks.next().ok_or_else(|| Error::unexpected("no outcome of a retry"))?;
    match task.error {
        Some(error) => Err(error.into()),
        None => Ok(Retry {
            id,
            revived: task.revived || asked_again,
            state: State::from_wire(task.state),
        }),
    }
}

/// Retries the dead tasks of a listing: see [`crate::Client::retry_where`].
pub(crate) async fn retry(session: &Session, tasks: ListTasks, mut told: impl FnMut(&Tally)) -> Result<Tally, Error> {
    only(tasks.states(), &[State::Dead], "of tasks to be retried")?;
    let (mut pages, mut tally) = (Pages::of(tasks.state(State::Dead)), Tally::default());
    while let Some(ids) = pages.next().await? {
        let (tasks, asked_again) = session.data().retry(&ids).await?;
        for task in tasks {
            let revived = task.revived || asked_again;
            tally.ended(task.error.map_or(Ok(revived), |error| Err(error.into())));
        }
        told(&tally);
    }
    Ok(tally)
}

/// Purges the tasks of a listing: see [`crate::Client::purge_where`].
pub(crate) async fn purge(session: &Session, tasks: ListTasks, mut told: impl FnMut(&Tally)) -> Result<Tally, Error> {
    let states = tasks.states().to_vec();
    if states.is_empty() {
        return Err(invalid("states of tasks to be purged must be given".to_owned()));
    }
    only(&states, &State::ENDED, "of tasks to be purged")?;
    let (mut pages, mut tally) = (Pages::of(tasks), Tally::default());
    while let Some(ids) = pages.next().await? {
        let (tasks, asked_again) = session.data().purge(&ids, &states).await?;
        for task in tasks {
            let purged = match task.error.map(Error::from) {
                // By the first of the two.
                Some(error) if asked_again && error.reason() == "TASK_NOT_FOUND" => Ok(true),
                Some(error) => Err(error),
                None => Ok(true),
            };
            tally.ended(purged);
        }
        told(&tally);
    }
    Ok(tally)
}

fn only(states: &[i32], allowed: &[State], whose: &str) -> Result<(), Error> {
    match states
        .iter()
        .map(|&state| State::from_wire(state))
        .find(|state| !allowed.contains(state))
    {
        None => Ok(()),
        Some(state) => {
            let allowed: Vec<_> = allowed.iter().map(|state| state.as_str()).collect();
            let allowed = allowed.join(", ");
            Err(invalid(format!(
                "states {whose} cannot be {state}, allowed are {allowed}"
            )))
        }
    }
}

fn invalid(message: String) -> Error {
    Error::Refused {
        kind: Refusal::InvalidArgument,
        reason: "INVALID_FIELD".to_owned(),
        message,
        retry_after: None,
    }
}

/// The tasks of a listing, so many at a time as one call takes. Tasks that come
/// in after the first page was asked for are on none.
struct Pages {
    rest: Option<ListTasks>,
}

impl Pages {
    fn of(tasks: ListTasks) -> Self {
        let most = u32::try_from(MAX_TASKS_PER_CALL).unwrap_or(u32::MAX);
        Self {
            rest: Some(tasks.counted_from_now().limit(most)),
        }
    }

    /// At least one, or `None` after the last.
    async fn next(&mut self) -> Result<Option<Vec<TaskId>>, Error> {
        while let Some(tasks) = self.rest.take() {
            let page = tasks.clone().await?;
            self.rest = page.next.map(|next| tasks.page(next));
            if !page.tasks.is_empty() {
                return Ok(Some(page.tasks.into_iter().map(|task| task.id).collect()));
            }
        }
        Ok(None)
    }
}
