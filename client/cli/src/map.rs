//! `asynq map`: run a task for each of many inputs and print the results in their order.

use asynq_client::{Client, Error, Map, Payload};
use tokio::{
    signal::ctrl_c,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    connect::{Broker, connect},
    failure::Failure,
    json, jsonl,
    limits::{CANCEL_WITHIN, NO_WORKER_AFTER},
    options::TaskOptions,
    output::{Lines, hung_up},
    running::{pass, say_if_no_worker},
};

/// Run a task for each line of a file and print the results, one line each, in
/// the order of the inputs.
///
/// Stops at the first task that fails. Whenever it stops early, by Ctrl-C or
/// because nobody reads the output any more, the tasks under way are cancelled.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("wait", |wait| wait.help(WAIT)))]
pub(crate) struct Args {
    /// The task's name, as a worker has registered it.
    name: String,
    /// The inputs: each line a JSON argument; - for stdin.
    #[arg(long, value_name = "FILE", required = true)]
    jsonl: String,
    /// How many tasks may be under way, or done and not printed.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    look_ahead: u32,
    /// Go on after failures: print {"error":{…}} instead of the result, exit 1 in the end.
    #[arg(long)]
    keep_going: bool,
    /// Print results as they come, not in the order of the inputs.
    #[arg(long)]
    unordered: bool,
    #[command(flatten)]
    options: TaskOptions,
}

const WAIT: &str = "Wait no longer than this; then the tasks under way are cancelled [default: for ever]";

const EXAMPLES: &str = "\
Examples:
  asynq map resize --jsonl jobs.jsonl > results.jsonl
  seq 1000 | asynq map echo --jsonl - --look-ahead 32
  asynq map fetch --jsonl urls.jsonl --keep-going --retries 2 --series crawl";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let mut inputs = jsonl::open(&self.jsonl)?;
        let connected = connect(broker, self.options.wait).await?;
        let client = &connected.client;
        let map = self.options.for_map(client.map_raw(&self.name, inputs.lines));
        let mut map = map.look_ahead(self.look_ahead as usize);
        if self.unordered {
            map = map.unordered();
        }
        let why = tokio::select! {
            printed = self.print(client, &mut map) => match printed {
                Ok(failed) => return match inputs.problem.try_recv() {
                    Ok(problem) => Err(problem),
                    Err(_) if failed > 0 => Err(Failure::new(1, "FAILED", format!("{failed} tasks failed"))),
                    Err(_) => Ok(()),
                },
                Err(failure) => failure,
            },
            () = hung_up() => Failure::hung_up(),
            _ = ctrl_c() => Failure::new(5, "CANCELLED", "the tasks under way were cancelled"),
            () = pass(connected.left()) => {
                Failure::new(4, "WAIT_PASSED", "the time to wait has passed; the tasks under way were cancelled")
            }
        };
        Err(cancel(map, why).await)
    }

    /// Prints all results; gives how many were failures.
    async fn print(&self, client: &Client, map: &mut Map<Payload>) -> Result<u64, Failure> {
        let (mut lines, mut number, mut failed) = (Lines::new(), 0_u64, 0);
        let warn_at = Instant::now() + NO_WORKER_AFTER;
        let mut unheard = true;
        loop {
            let result = tokio::select! {
                biased;
                result = lines.before(map.try_next()) => result?,
                () = sleep_until(warn_at), if unheard => {
                    unheard = false;
                    if let Some(id) = map.running().next() {
                        say_if_no_worker(client, id, &self.name).await;
                    }
                    continue;
                }
            };
            unheard = false;
            number += 1;
            match result {
                Ok(Some(result)) => lines.push(&result).await?,
                Ok(None) => {
                    lines.flush().await?;
                    return Ok(failed);
                }
                Err(error) if self.keep_going && is_of_one_task(&error) => {
                    failed += 1;
                    lines.push_line(&json::failed(error)?).await?;
                }
                Err(error) => {
                    lines.flush().await?;
                    let failure = Failure::from(error);
                    return Err(match self.unordered {
                        true => failure,
                        false => failure.at(&format!("line {number}")),
                    });
                }
            }
        }
    }
}

/// Whether the next task may fare better.
fn is_of_one_task(error: &Error) -> bool {
    !matches!(error, Error::NoBroker { .. })
}

/// Cancels what is under way. A second Ctrl-C does not wait for it.
async fn cancel(map: Map<Payload>, why: Failure) -> Failure {
    let cancelled = tokio::select! {
        cancelled = timeout(CANCEL_WITHIN, map.cancel()) => matches!(cancelled, Ok(Ok(_))),
        _ = ctrl_c() => return Failure::new(130, "DETACHED", "the tasks under way may go on"),
    };
    match why.code() {
        4 | 5 if !cancelled => Failure::new(
            3,
            "NO_BROKER",
            "the broker does not answer; the tasks under way may go on",
        ),
        _ => why,
    }
}
