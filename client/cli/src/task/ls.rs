//! `asynq task ls`.

use std::time::SystemTime;

use asynq_client::{Client, ListTasks, TaskInfo, TaskPage};
use asynq_proto::limits::{DEFAULT_LIST_TASKS, MAX_LIST_TASKS};

use super::filter::Filter;
use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::{Failure, note},
    json,
    limits::NAME_COLUMN,
    output,
    time::brief,
};

/// List tasks, newest first.
///
/// Text leaves out the columns in which no task differs from the default.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// At most so many, 1 to 10000.
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_LIST_TASKS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIST_TASKS))
    )]
    limit: u32,
    /// Go on where a listing ended that had more to tell.
    #[arg(long, value_name = "TOKEN")]
    page: Option<String>,
    /// How to print; json prints {"tasks":[…],"next":…}.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  asynq task ls --state running
  asynq task ls --state dead --since 1h -o json | jq -r '.tasks[] | .id + \" \" + .error.message'
  asynq task ls --name resize --queue photos --limit 1000";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let format = self.output;
        let client = connect(broker, None).await?.client;
        let page = self.listing(&client).await?;
        if format == Format::Json {
            return output::json(&json::TaskPage::from(page));
        }
        output::columns(&table(&page))?;
        if let Some(next) = page.next {
            note(&format!("There are more: go on with --page {next}"));
        }
        Ok(())
    }

    fn listing(self, client: &Client) -> ListTasks {
        let tasks = self.filter.listing(client).limit(self.limit);
        match self.page {
            Some(page) => tasks.page(page),
            None => tasks,
        }
    }
}

/// The tasks, under a head. A column that says nothing is left out, so that
/// the plainest tasks fit into 80 columns beside their ids.
fn table(page: &TaskPage) -> Vec<Vec<String>> {
    let mut table = vec![Vec::new(); page.tasks.len() + 1];
    let mut column = |head: &str, says_nothing: &str, cell: &dyn Fn(&TaskInfo) -> String| {
        let cells: Vec<_> = page.tasks.iter().map(cell).collect();
        if cells.iter().all(|cell| cell == says_nothing) && !says_nothing.is_empty() {
            return;
        }
        let cells = std::iter::once(head.to_owned()).chain(cells);
        table.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
    };
    column("ID", "", &|task| task.id.to_string());
    column("NAME", "", &|task| cut(&task.name));
    column("STATE", "", &|task| task.state.to_string());
    column("REASON", "-", &reason);
    column("QUEUE", "default", &|task| cut(&task.queue));
    column("SERIES", "-", &|task| or_dash(&cut(&task.series)));
    column("NICE", "0", &|task| task.niceness.to_string());
    // That a task runs or has ended at its first attempt, its state says.
    column("ATTEMPT", "1", &|task| task.attempt.max(1).to_string());
    column("AGE", "", &|task| age(task, page.now));
    column("WORKER", "-", &|task| {
        or_dash(&cut(task.worker.as_deref().unwrap_or_default()))
    });
    table
}

/// Names may be 200 bytes long, and one of them would push all rows apart.
/// `task show` and -o json have them whole.
fn cut(name: &str) -> String {
    match name.char_indices().nth(NAME_COLUMN) {
        None => name.to_owned(),
        Some(_) => name.chars().take(NAME_COLUMN - 1).chain(['…']).collect(),
    }
}

/// Why it is in its state, where that is not another word for it.
fn reason(task: &TaskInfo) -> String {
    match task.reason.as_deref() {
        Some("finished") | None => "-".to_owned(),
        Some(reason) if reason == task.state.as_str() => "-".to_owned(),
        Some(reason) => reason.to_owned(),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// Since it was enqueued.
fn age(task: &TaskInfo, now: SystemTime) -> String {
    match task.enqueued_at {
        Some(enqueued_at) => brief(now.duration_since(enqueued_at).unwrap_or_default()),
        None => "-".to_owned(),
    }
}
