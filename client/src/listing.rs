//! Listings: which tasks there are.

use std::{
    future::IntoFuture,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use asynq_proto::{
    limits::{DEFAULT_LIST_TASKS, MAX_LIST_TASKS},
    v1,
};

use crate::{
    BoxFuture, Error, State, TaskInfo,
    session::Session,
    spec::{ms, unix_ms},
};

/// A listing of tasks, newest first. Made by [`crate::Client::tasks`]; awaited,
/// it gives a [`TaskPage`].
///
/// A task is listed if it fits all that is asked for, as it is now.
#[derive(Debug, Clone)]
#[must_use = "a listing does nothing unless it is awaited"]
pub struct ListTasks {
    session: Session,
    request: v1::ListTasksRequest,
    within: Option<Duration>,
}

/// Some tasks, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskPage {
    /// The tasks, newest first.
    pub tasks: Vec<TaskInfo>,
    /// What to give to [`ListTasks::page`] to go on; `None` if these were all.
    pub next: Option<String>,
    /// The broker's clock when it answered, to tell how old a task is.
    pub now: SystemTime,
}

impl ListTasks {
    pub(crate) fn new(session: Session) -> Self {
        let request = v1::ListTasksRequest {
            limit: DEFAULT_LIST_TASKS,
            ..v1::ListTasksRequest::default()
        };
        Self {
            session,
            request,
            within: None,
        }
    }

    /// Only tasks in this state, or in another one given so.
    pub fn state(mut self, state: State) -> Self {
        self.request.states.push(state.to_wire());
        self
    }

    /// Only tasks of this name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.name = name.into();
        self
    }

    /// Only tasks in this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.request.queue = queue.into();
        self
    }

    /// Only tasks of this series; `""` is that of tasks that were given none.
    pub fn series(mut self, series: impl Into<String>) -> Self {
        self.request.series = Some(series.into());
        self
    }

    /// Only tasks that were enqueued at this time or later. Replaces
    /// [`within`](Self::within).
    pub fn since(mut self, time: SystemTime) -> Self {
        self.request.since_ms = unix_ms(time);
        self.within = None;
        self
    }

    /// Only tasks that were enqueued no longer ago than this. Replaces
    /// [`since`](Self::since).
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    /// At most so many tasks, 1 to 10,000. Default: 50.
    pub fn limit(mut self, tasks: u32) -> Self {
        self.request.limit = tasks.clamp(1, MAX_LIST_TASKS);
        self
    }

    /// Goes on where another listing ended: its [`TaskPage::next`]. What else is
    /// asked for should be the same.
    pub fn page(mut self, next: impl Into<String>) -> Self {
        self.request.page = next.into();
        self
    }

    /// The states asked for so far, as they are numbered on the wire.
    pub(crate) fn states(&self) -> &[i32] {
        &self.request.states
    }

    /// With "no longer ago than" counted from now, whenever it is asked.
    pub(crate) fn counted_from_now(mut self) -> Self {
        if let Some(within) = self.within.take() {
            self.request.since_ms = since(self.session.broker_now(), within);
        }
        self
    }

    /// Asks until there are as many as wanted: a broker looks through so many
    /// tasks at a time, and gives what it has found.
    async fn ask(self) -> Result<TaskPage, Error> {
        let Self {
            session, mut request, ..
        } = self.counted_from_now();
        let mut tasks = Vec::new();
        loop {
            let wanted = request.limit;
            let reply = session.data().tasks(request.clone()).await?;
            request.limit = wanted.saturating_sub(u32::try_from(reply.tasks.len()).unwrap_or(u32::MAX));
            for task in reply.tasks {
                tasks.push(TaskInfo::try_from(task)?);
            }
            if request.limit == 0 || reply.next.is_empty() {
                let now = UNIX_EPOCH.checked_add(Duration::from_millis(reply.now_ms));
                return Ok(TaskPage {
                    tasks,
                    next: Some(reply.next).filter(|next| !next.is_empty()),
                    now: now.unwrap_or(UNIX_EPOCH),
                });
            }
            if reply.next == request.page {
                return Err(Error::unexpected("the same page of tasks again"));
            }
            request.page = reply.next;
        }
    }
}

/// A time before the first is the first one there is, not "none".
fn since(now: Duration, within: Duration) -> u64 {
    ms(now.saturating_sub(within)).max(1)
}

impl IntoFuture for ListTasks {
    type Output = Result<TaskPage, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}
