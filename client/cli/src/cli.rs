//! The command line: what there is to type, and where it goes.

use asynq_manual::{Completions, Man, Section};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::{
    bench, call, connect::Broker, demo, doctor, enqueue, failure::Failure, iterate, map, output, queue, series, task,
    worker,
};

/// Runs tasks on an asynq broker and looks after them.
#[derive(Debug, Parser)]
#[command(name = "asynq", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    broker: Broker,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  asynq call echo '{\"a\":1}'          run a task, print its result
  asynq enqueue resize @job.json     put a task in its queue, print its id
  asynq iterate count '{\"n\":9}'      print a task's items as they come
  asynq task ls --state running      what is going on?
  asynq task explain ID              why is it not running?
  asynq task history ID              what has it gone through?
  asynq worker ls                    who is there to run tasks
  asynq demo mandelbrot              a picture, computed by all workers
  asynq demo logs /var/log/nginx     log files, read by all workers

Exit codes: 0 done, 1 the task is dead, 2 wrong usage, 3 no broker, 4 timed out,
5 cancelled or expired, 6 refused by the broker, 130 detached by Ctrl-C.";

const COMPLETIONS: &str = "\
Examples:
  source <(asynq completions bash)                                   for this shell
  asynq completions bash > ~/.local/share/bash-completion/completions/asynq
  asynq completions zsh > \"${fpath[1]}/_asynq\"
  asynq completions fish > ~/.config/fish/completions/asynq.fish";

const MAN: &str = "\
Examples:
  asynq man | man -l -
  asynq man task ls | man -l -
  asynq man --out ~/.local/share/man/man1";

#[derive(Debug, Subcommand)]
enum Command {
    Call(call::Args),
    Enqueue(enqueue::Args),
    Iterate(iterate::Args),
    Map(map::Args),
    /// Look at tasks, wait for them, end them, have them run again.
    #[command(
        subcommand,
        after_help = "Examples:\n  asynq task ls --state dead --since 1h\n  asynq task explain \"$id\""
    )]
    Task(task::Command),
    /// Look at queues.
    #[command(subcommand, after_help = "Examples:\n  asynq queue ls")]
    Queue(queue::Command),
    /// End all tasks of a series.
    #[command(subcommand, after_help = "Examples:\n  asynq series cancel photos")]
    Series(series::Command),
    /// Look at workers.
    #[command(subcommand, after_help = "Examples:\n  asynq worker ls")]
    Worker(worker::Command),
    Bench(bench::Args),
    /// See a cluster at work.
    #[command(subcommand, after_help = "Examples:\n  asynq demo mandelbrot -o set.png")]
    Demo(demo::Command),
    Doctor(doctor::Args),
    #[command(after_help = COMPLETIONS)]
    Completions(Completions),
    #[command(after_help = MAN)]
    Man(Man),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: the names are stable, all fields are always there.
    Json,
}

/// Reads the command line. Help and version are printed from here and end in success.
pub(crate) fn parse() -> Result<Cli, Failure> {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        cli.broker.note_origin(&matches);
        Ok(cli)
    });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::write(error.render().to_string().as_bytes())
            .err()
            .unwrap_or(Failure::silent(0)),
        _ => {
            let text = error.render().to_string();
            Failure::usage(text.trim_start_matches("error: ").trim_end())
        }
    })
}

impl Cli {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Call(args) => args.run(&self.broker).await,
            Command::Enqueue(args) => args.run(&self.broker).await,
            Command::Iterate(args) => args.run(&self.broker).await,
            Command::Map(args) => args.run(&self.broker).await,
            Command::Task(command) => command.run(&self.broker).await,
            Command::Queue(command) => command.run(&self.broker).await,
            Command::Series(command) => command.run(&self.broker).await,
            Command::Worker(command) => command.run(&self.broker).await,
            Command::Bench(args) => args.run(&self.broker).await,
            Command::Demo(command) => command.run(&self.broker).await,
            Command::Doctor(args) => args.run(&self.broker).await,
            Command::Completions(args) => output::write(args.render(Cli::command()).as_bytes()),
            Command::Man(args) => {
                let page = args
                    .run(Cli::command(), Section::Commands)
                    .map_err(|error| Failure::usage(error.to_string()))?;
                output::write(page.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_example(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        // An example is of this command itself, or of what is below it.
        if !help.contains("Examples:\n") || !help.contains(path) {
            found.push(path.to_owned());
        }
        for below in command.get_subcommands() {
            without_example(below, &format!("{path} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_help_has_an_example_of_its_command() {
        let mut found = Vec::new();
        without_example(&Cli::command(), "asynq", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn negative_numbers_are_values() {
        for line in [
            "asynq call echo -5",
            "asynq call echo -1.5e3 --niceness -20",
            "asynq enqueue echo - --niceness=-1",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        for line in [
            "asynq call echo --next --last",
            "asynq call echo --delay 1s --at 2030-01-01T00:00:00Z",
            "asynq call echo --niceness 21",
            "asynq call echo --retries 1000",
            "asynq call",
            "asynq map echo",
            "asynq map echo --jsonl - --look-ahead 0",
            "asynq enqueue echo 1 --jsonl -",
            "asynq enqueue echo --jsonl - --key k",
            "asynq enqueue echo --on-key replace",
            "asynq call echo --key k --on-key twice",
            "asynq map echo --jsonl - --key k",
            "asynq iterate count --window 0",
            "asynq iterate count --window 65537",
            "asynq iterate",
            "asynq iterate count --from 3",
            "asynq iterate count --task 019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1",
            "asynq iterate --task 019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1 --queue q",
            "asynq iterate --task 019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1 --at-most-once",
            "asynq iterate --task 019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1 --from -1",
            "asynq queue",
            "asynq series cancel",
            "asynq task cancel --since 1",
            "asynq task purge --all",
            "asynq bench --mode dream",
            "asynq bench --tasks 0",
            "asynq bench --in-flight 65537",
            "asynq bench --payload 1",
            "asynq bench --payload 4000001",
            "asynq demo mandelbrot --size 15",
            "asynq demo mandelbrot --center 1",
            "asynq demo mandelbrot --zoom 0",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
