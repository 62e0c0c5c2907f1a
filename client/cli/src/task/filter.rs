//! Which tasks: what `task ls` and the verbs over many tasks take alike.

use std::time::{Duration, SystemTime};

use asynq_client::{Client, ListTasks, State};
use asynq_proto::duration;

use crate::time::instant;

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Filter {
    /// Only tasks in this state, or in one of these: dead,expired.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub(crate) state: Vec<State>,
    /// Only tasks of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only tasks in this queue.
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// Only tasks of this series; '' are those of none.
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Option<String>,
    /// Only tasks enqueued since this time, such as 2030-01-31T12:00:00Z, or no
    /// longer ago than 5m or 1h30m.
    #[arg(long, value_name = "T", value_parser = since)]
    pub(crate) since: Option<Since>,
}

/// From when on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    At(SystemTime),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, &'static str> {
    let at = instant(text).map(Since::At);
    at.or_else(|_| duration::parse(text).map(Since::Ago))
        .map_err(|_| "write a time like 2030-01-31T12:00:00Z, or how long ago it is, like 30s, 5m or 1h30m")
}

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            state,
            name,
            queue,
            series,
            since,
        } = self;
        state.is_empty() && name.is_none() && queue.is_none() && series.is_none() && since.is_none()
    }

    pub(crate) fn listing(self, client: &Client) -> ListTasks {
        let mut tasks = client.tasks();
        for state in self.state {
            tasks = tasks.state(state);
        }
        if let Some(name) = self.name {
            tasks = tasks.name(name);
        }
        if let Some(queue) = self.queue {
            tasks = tasks.queue(queue);
        }
        if let Some(series) = self.series {
            tasks = tasks.series(series);
        }
        match self.since {
            Some(Since::At(time)) => tasks.since(time),
            Some(Since::Ago(time)) => tasks.within(time),
            None => tasks,
        }
    }
}
