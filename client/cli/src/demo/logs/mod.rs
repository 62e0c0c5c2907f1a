//! `asynq demo logs`: log files, read by all workers together, counted and plotted.

mod forms;
mod histogram;
mod paths;
mod plot;
mod row;
mod scan;
mod summary;
mod tally;
mod terminal;
mod timeline;
mod top;

use std::path::PathBuf;

use self::{paths::Paths, plot::Plot, row::TASK, scan::Scans, summary::Summary, timeline::Timeline};
use crate::{
    connect::{Broker, connect},
    failure::{Failure, say},
    output,
    progress::Progress,
    running::{UnderWay, able, warn_without_workers},
};

/// Read log files on all workers; count and plot what is in them.
///
/// Each file is an iterator task whose rows stream back: access logs, the error
/// log of nginx, dpkg.log and syslog, plain or compressed by gzip. A PATH is a
/// file or folder of this machine, whose absolute path the workers are asked
/// for, or else a path under the workers' --files. Needs workers with --builtins.
/// Workers may die, and the broker be started again. Files that
/// cannot be read are named at the end; only if all are, the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Log files, or folders of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Draw rows over time into this file, .svg or .png, instead of on the terminal.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Files read at a time, 1 to 256 [default: twice the slots of the workers].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: Option<u16>,
}

const EXAMPLES: &str = "\
Examples:
  asynq-worker --builtins --files /var/log          a worker that may read them
  asynq demo logs /var/log/dpkg.log
  asynq demo logs /var/log/nginx -o requests.png
  asynq demo logs syslog syslog.*.gz --at-once 4";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        // What cannot be written is worth knowing before the work.
        let plot = self.output.as_deref().map(Plot::create).transpose()?;
        let found = Paths::find(&self.paths)?;
        if found.files.is_empty() {
            return Err(Failure::usage(format!(
                "there is no file to read: {}",
                summary::left_out(&found).unwrap_or_else(|| "the folders are empty".to_owned())
            )));
        }
        let left_out = summary::left_out(&found);
        let client = connect(broker, None).await?.client;
        let workers = able(&client, TASK.name()).await?;
        let slots: usize = workers.iter().map(|worker| worker.slots as usize).sum();
        let at_once = self.at_once.map_or_else(|| (2 * slots).clamp(4, 64), usize::from);
        let progress = Progress::new(TASK.name().to_owned(), "files", found.files.len() as u64).counting("rows");
        let under_way = UnderWay::default();
        let scans = Scans::new(&client, &progress, &under_way);
        let scanned = async {
            tokio::select! {
                files = scans.run(found.files, at_once) => files,
                never = warn_without_workers(&client, TASK.name(), &progress) => match never {},
            }
        };
        let stopped = |_| "the tasks are stopped; nothing was counted".to_owned();
        let files = under_way.until_done(&client, scanned, stopped).await?;
        let took = progress.finish();
        let tallies = scans.tallies();
        let summary = Summary {
            files: &files,
            tallies: &tallies,
            took,
        };
        output::write(summary.text().as_bytes())?;
        match plot {
            Some(_) if summary.rows() == 0 => say("NOT_PLOTTED", "there are no rows, so no picture was drawn"),
            Some(plot) => {
                let drawn = plot.draw(Timeline::of(&tallies, plot::BARS).as_ref(), summary.rows())?;
                output::line(&format!("plotted in {drawn}"))?;
            }
            None => output::write(terminal::plot(&tallies, terminal::width()).as_bytes())?,
        }
        for (kind, message) in files.iter().filter_map(|file| file.failed.as_ref()) {
            say(&kind.to_uppercase(), &summary::harmless(message));
        }
        if let Some(left_out) = left_out {
            say("SKIPPED", &left_out);
        }
        match files.iter().all(|file| file.failed.is_some()) {
            true => Err(Failure::new(1, "FAILED", "no file could be read to its end")),
            false => Ok(()),
        }
    }
}
