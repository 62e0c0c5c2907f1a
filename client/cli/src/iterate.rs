//! `asynq iterate`: run a task and print the items it yields as they come, or go on with one that runs.

use std::{
    future::{IntoFuture, ready},
    time::Duration,
};

use asynq_client::{Items, Payload, TaskId};
use asynq_proto::duration;
use tokio::{signal::ctrl_c, time::timeout};

use crate::{
    arguments,
    connect::{Broker, connect},
    failure::{Failure, go_on},
    limits::{CANCEL_WITHIN, DETACH_GRACE, WRITE_WITHIN},
    options::TaskOptions,
    output::{Lines, hung_up},
    running::{cancel, pass, terminated, warn_without_worker},
    time::brief,
};

/// Run a task and print the items it yields, one line each, as they come.
///
/// The stream outlives its connection and the broker. The task is stopped by Ctrl-C,
/// when --wait passes, and when nobody reads the output any more. It runs ahead of
/// the output by no more than the window.
///
/// If this command is killed, the task waits for another reader: --task goes on with
/// it. `asynq task ls --state running` names the task, and the lines that have been
/// printed are the number for --from. With --task, Ctrl-C, --wait and the end of the
/// output leave the task to the next reader in the same way.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("wait", |wait| wait.help(WAIT)))]
pub(crate) struct Args {
    /// The task's name, as a worker has registered it.
    #[arg(required_unless_present = "task")]
    name: Option<String>,
    /// Its argument: JSON, @FILE, or - for stdin [default: null].
    #[arg(allow_negative_numbers = true)]
    json: Option<String>,
    /// Go on with this task instead; if another reads it, that one's stream ends.
    #[arg(long, value_name = "ID", conflicts_with_all = OF_A_NEW_TASK)]
    task: Option<TaskId>,
    /// The first item to print, counted from 0; all before it are dropped for good [default: 0].
    #[arg(long, value_name = "I", requires = "task", conflicts_with = "name")]
    from: Option<u64>,
    /// How many items the task may run ahead, 1 to 65536 [default: 256, growing to 4096].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    window: Option<u32>,
    /// How long the task waits for a reader if this command or its connection dies, up to 24h; then
    /// it is cancelled [default: 30s].
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    detach_grace: Option<Duration>,
    #[command(flatten)]
    options: TaskOptions,
}

/// What means nothing to a task that is there.
const OF_A_NEW_TASK: [&str; 15] = [
    "name",
    "json",
    "queue",
    "series",
    "niceness",
    "next",
    "last",
    "delay",
    "at",
    "start_before",
    "timeout",
    "deadline",
    "retries",
    "at_most_once",
    "ttl",
];

const WAIT: &str = "Wait no longer than this; then the task is stopped, or left with --task [default: for ever]";

const EXAMPLES: &str = "\
Examples:
  asynq iterate count '{\"n\":100000}' | wc -l
  asynq iterate count '{\"n\":1000000}' | head -3     stops the task after three
  asynq iterate rows @query.json --window 16 --series reports
  asynq iterate rows @query.json --detach-grace 1h > rows
  asynq iterate --task \"$id\" --from $(wc -l < rows) >> rows     goes on with that";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let grace = self.detach_grace.unwrap_or(DETACH_GRACE);
        let connected;
        let (id, opened) = match self.task {
            Some(id) => {
                connected = connect(broker, self.options.wait).await?;
                let mut resume = connected
                    .client
                    .resume_raw(id)
                    .from_index(self.from.unwrap_or(0))
                    .take_over();
                resume = resume.manual_ack().detach_on_drop().detach_grace(grace);
                if let Some(items) = self.window {
                    resume = resume.window(items);
                }
                if let Some(left) = connected.left() {
                    resume = resume.wait_at_most(left);
                }
                (id, resume.into_future())
            }
            None => {
                let payload = arguments::read(self.json.as_deref())?;
                connected = connect(broker, self.options.wait).await?;
                let name = self.name.as_deref().unwrap_or_default();
                let mut iterate = self.options.for_iterate(connected.client.iterate_raw(name, payload));
                // What has not been written can be read again, and whoever kills us leaves it all.
                iterate = iterate.manual_ack().detach_on_drop().detach_grace(grace);
                if let Some(items) = self.window {
                    iterate = iterate.window(items);
                }
                if let Some(left) = connected.left() {
                    iterate = iterate.wait_at_most(left);
                }
                (iterate.id(), iterate.into_future())
            }
        };
        let client = &connected.client;
        let detached = |next| {
            let waits = format!("the task {id} waits {} for a reader", brief(grace));
            Failure::new(130, "DETACHED", format!("{waits}; {}", go_on(id, next)))
        };
        let is_ours = self.task.is_none();
        let mut items = tokio::select! {
            items = opened => items?,
            _ = ctrl_c() => return Err(match is_ours {
                true => cancel(client, id).await,
                false => detached(self.from.unwrap_or(0)),
            }),
        };
        let name = self.name.as_deref().unwrap_or("its name");
        let mut printer = Printer::new(&items);
        let why = tokio::select! {
            printed = printer.print(&mut items) => match printed {
                Ok(()) => return Ok(()),
                // Whether the task has ended or the output.
                Err(failure) => failure,
            },
            () = hung_up() => Failure::hung_up(),
            _ = ctrl_c() => match is_ours {
                true => Failure::new(5, "CANCELLED", format!("the task {id} was cancelled")),
                false => return Err(detached(printer.leave(&mut items).await)),
            },
            () = terminated() => return Err(detached(printer.leave(&mut items).await)),
            () = pass(connected.left()) => match is_ours {
                true => wait_passed(format!("the task {id} was stopped")),
                false => wait_passed(go_on(id, printer.leave(&mut items).await)),
            },
            never = warn_without_worker(client, id, name) => match never {},
        };
        match is_ours {
            true => Err(stop(items, why).await),
            false => Err(why),
        }
    }
}

/// Items on their way to the output. What is written is acknowledged, and nothing else.
struct Printer {
    lines: Lines,
    /// The first item that may not have been written.
    next: u64,
}

impl Printer {
    fn new(items: &Items<Payload>) -> Self {
        Self {
            lines: Lines::new(),
            next: items.position(),
        }
    }

    /// Prints all. What is at hand is written together, but never waits for more.
    async fn print(&mut self, items: &mut Items<Payload>) -> Result<(), Failure> {
        loop {
            let next = tokio::select! {
                biased;
                next = items.try_next() => next,
                () = ready(()), if !self.lines.is_empty() => {
                    self.flush(items).await?;
                    continue;
                }
            };
            match next {
                Ok(Some(item)) => {
                    self.lines.push(&item).await?;
                    if self.lines.is_empty() {
                        self.written(items);
                    }
                }
                Ok(None) => return self.flush(items).await,
                Err(error) => {
                    self.flush(items).await?;
                    return Err(error.into());
                }
            }
        }
    }

    async fn flush(&mut self, items: &mut Items<Payload>) -> Result<(), Failure> {
        self.lines.flush().await?;
        self.written(items);
        Ok(())
    }

    fn written(&mut self, items: &mut Items<Payload>) {
        items.ack();
        self.next = items.position();
    }

    /// Writes what is there, unless nobody takes it; says with which item to go on.
    async fn leave(&mut self, items: &mut Items<Payload>) -> u64 {
        // If it cannot be written, it is to come again.
        let _unwritten = timeout(WRITE_WITHIN, self.flush(items)).await;
        self.next
    }
}

/// Stops the task, if it has not ended, and waits for that.
async fn stop(items: Items<Payload>, why: Failure) -> Failure {
    let id = items.id();
    let stopped = tokio::select! {
        stopped = timeout(CANCEL_WITHIN, items.stop()) => matches!(stopped, Ok(Ok(_))),
        _ = ctrl_c() => return Failure::new(130, "DETACHED", format!("the task {id} is being stopped")),
    };
    match why.code() {
        4 | 5 if !stopped => Failure::new(
            3,
            "NO_BROKER",
            format!("the broker does not tell whether the task {id} ended"),
        ),
        _ => why,
    }
}

fn wait_passed(became: String) -> Failure {
    Failure::new(4, "WAIT_PASSED", format!("the time to wait has passed; {became}"))
}
