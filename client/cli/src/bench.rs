//! `asynq bench`: how fast the broker and the workers that are there do nothing.

use std::{
    fs,
    time::{Duration, Instant},
};

use asynq_client::{Client, Error, Payload};
use clap::ValueEnum;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::task::unconstrained;

use crate::{
    cli::Format,
    connect::{Broker, connect},
    failure::Failure,
    output,
    progress::Progress,
    running::{UnderWay, say_without_workers},
};

/// Measure throughput and latency.
///
/// Needs workers with `--builtins`. Runs in the queue it is given, beside what
/// else is there. Ctrl-C cancels what it started, but for --mode enqueue: what
/// that has put in the queue is left to the workers.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to measure.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Tasks, or items of the one task that --mode iterate runs: 1 to 10000000.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    tasks: u64,
    /// Calls not answered at a time, or items a worker may run ahead: 1 to 65536.
    #[arg(long, value_name = "K", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Bytes of each argument, or of each item's padding: 2 to 4000000.
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=4_000_000))]
    payload: u32,
    /// The queue to put the tasks in.
    #[arg(long, value_name = "Q", default_value = "default")]
    queue: String,
    /// The process of the broker, if it runs here: adds its processor time.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// The processes of the workers, with commas, if they run here: adds their processor time.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    worker_pid: Vec<u32>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Tasks that return their argument, each awaited.
    #[default]
    Call,
    /// Tasks that are put in their queue, each until it is durable.
    Enqueue,
    /// Items of one task.
    Iterate,
}

const ECHO: &str = "echo";
const COUNT: &str = "count";

const EXAMPLES: &str = "\
Examples:
  asynq bench                                       100000 calls, 1024 in flight
  asynq bench --in-flight 1 --tasks 2000            the latency of a call
  asynq bench --mode iterate --tasks 1000000
  asynq bench --broker-pid $(pgrep -x asynqd) -o json";

/// What was measured. The names are stable; what was not measured is null.
#[derive(Debug, Serialize)]
struct Report {
    mode: Mode,
    tasks: u64,
    in_flight: u32,
    payload_bytes: u32,
    seconds: f64,
    tasks_per_s: Option<f64>,
    items_per_s: Option<f64>,
    latency_us: Latency,
    cpu_us_per_task: Cpu,
}

/// From asking to being answered.
#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
}

/// Of a task, or of an item.
#[derive(Debug, Default, Serialize)]
struct Cpu {
    client: Option<f64>,
    broker: Option<f64>,
    worker: Option<f64>,
}

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = connect(broker, None).await?.client;
        // Fails early, and on what is there to fail.
        let cpu_before = self.cpu()?;
        let unit = if matches!(self.mode, Mode::Iterate) {
            "items"
        } else {
            "tasks"
        };
        let progress = Progress::new("bench".to_owned(), unit, self.tasks);
        say_without_workers(&client, self.task(), &progress).await?;
        let begun = Instant::now();
        let under_way = UnderWay::default();
        let measured = async { Ok(self.measure(&client, &progress, &under_way).await?) };
        let measured = under_way.until_done(&client, measured, |count| {
            format!("{count} tasks that were under way are cancelled")
        });
        let mut took = measured.await?;
        let seconds = begun.elapsed().as_secs_f64();
        progress.finish();
        // A process that has ended meanwhile takes its figure with it, and no other.
        let cpu_after = self.cpu().unwrap_or_default();

        took.sort_unstable();
        let at = |share: f64| {
            let last = took.len().checked_sub(1)?;
            Some(took[(last as f64 * share) as usize].as_secs_f64() * 1e6)
        };
        let cpu = |of: fn(&Used) -> Option<Duration>| {
            let used = of(&cpu_after)?.saturating_sub(of(&cpu_before)?);
            Some(used.as_secs_f64() * 1e6 / self.tasks as f64)
        };
        let rate = self.tasks as f64 / seconds;
        let items = matches!(self.mode, Mode::Iterate);
        self.print(&Report {
            mode: self.mode,
            tasks: self.tasks,
            in_flight: self.in_flight,
            payload_bytes: self.payload,
            seconds,
            tasks_per_s: (!items).then_some(rate),
            items_per_s: items.then_some(rate),
            latency_us: Latency {
                p50: at(0.5),
                p99: at(0.99),
            },
            cpu_us_per_task: Cpu {
                client: cpu(|used| used.client),
                broker: cpu(|used| used.broker),
                worker: cpu(|used| used.worker),
            },
        })
    }

    /// Does the work. How long each answer took, where there is one for each.
    async fn measure(
        &self,
        client: &Client,
        progress: &Progress,
        under_way: &UnderWay,
    ) -> Result<Vec<Duration>, Error> {
        if matches!(self.mode, Mode::Iterate) {
            self.iterate(client, progress, under_way).await?;
            return Ok(Vec::new());
        }
        // The quotes around it are part of it.
        let text = format!("\"{}\"", "x".repeat(self.payload as usize - 2));
        let payload = Payload::bytes("application/json", text);
        let one = |_| {
            let payload = payload.clone();
            async move {
                let begun = Instant::now();
                if matches!(self.mode, Mode::Enqueue) {
                    client.enqueue_raw(ECHO, payload).queue(&self.queue).await?;
                } else {
                    let call = client.call_raw(ECHO, payload).queue(&self.queue);
                    let id = call.id();
                    under_way.begun(id);
                    call.await?;
                    under_way.ended(id);
                }
                progress.step();
                Ok(begun.elapsed())
            }
        };
        let all = stream::iter(0..self.tasks)
            .map(one)
            .buffer_unordered(self.in_flight as usize);
        // All in one task: tokio's turns are meant for smaller ones, and would
        // have what is ready polled twice.
        unconstrained(all.try_collect()).await
    }

    /// What the workers have to offer.
    const fn task(&self) -> &'static str {
        match self.mode {
            Mode::Call | Mode::Enqueue => ECHO,
            Mode::Iterate => COUNT,
        }
    }

    async fn iterate(&self, client: &Client, progress: &Progress, under_way: &UnderWay) -> Result<(), Error> {
        let args = format!("{{\"n\":{},\"bytes\":{}}}", self.tasks, self.payload);
        let args = Payload::bytes("application/json", args);
        let iterate = client.iterate_raw(COUNT, args).queue(&self.queue);
        let id = iterate.id();
        under_way.begun(id);
        let mut items = iterate.window(self.in_flight).await?;
        while items.try_next().await?.is_some() {
            progress.step();
        }
        under_way.ended(id);
        Ok(())
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        if self.output == Format::Json {
            return output::json(report);
        }
        let (unit, rate) = match report.items_per_s {
            Some(rate) => ("items", rate),
            None => ("tasks", report.tasks_per_s.unwrap_or_default()),
        };
        let mut lines = vec![format!(
            "{} {unit} in {:.2} s: {rate:.0} {unit}/s",
            self.tasks, report.seconds
        )];
        if let (Some(p50), Some(p99)) = (report.latency_us.p50, report.latency_us.p99) {
            lines.push(format!("latency: median {p50:.0} µs, 99th percentile {p99:.0} µs"));
        }
        let Cpu { client, broker, worker } = &report.cpu_us_per_task;
        for (who, used) in [("this command", client), ("broker", broker), ("workers", worker)] {
            if let Some(used) = used {
                lines.push(format!("processor time of {who}: {used:.2} µs for each"));
            }
        }
        output::line(&lines.join("\n"))
    }

    /// The processor time used so far by whoever is here.
    fn cpu(&self) -> Result<Used, Failure> {
        let workers = self.worker_pid.iter().map(|pid| cpu_of(*pid));
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        Ok(Used {
            client: Some(cpu_of(std::process::id())?),
            broker: self.broker_pid.map(cpu_of).transpose()?,
            worker: (!workers.is_empty()).then(|| workers.iter().sum()),
        })
    }
}

#[derive(Default)]
struct Used {
    client: Option<Duration>,
    broker: Option<Duration>,
    worker: Option<Duration>,
}

/// User and system time of a process, as the kernel counts it.
fn cpu_of(pid: u32) -> Result<Duration, Failure> {
    let unknown = || Failure::usage(format!("there is no process {pid} whose processor time can be read"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| unknown())?;
    // Fields 14 and 15; the second is a name in parentheses that may hold spaces.
    let (_, after_name) = stat.rsplit_once(')').ok_or_else(unknown)?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().map_err(|_| unknown())?;
    // USER_HZ is 100 on every Linux.
    Ok(Duration::from_millis(ticks * 10))
}
