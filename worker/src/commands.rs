//! What `asynq-worker` does beside being a worker: one thing, and then it ends.

use asynq_manual::{Completions, Man, Section};
use clap::{ArgMatches, Subcommand};

use crate::config::command_line;
use crate::print;

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what makes a shell complete this command's words
    #[command(after_help = "Examples:\n  source <(asynq-worker completions bash)")]
    Completions(Completions),
    /// Print a page for man, or write those of all subcommands to a folder
    #[command(
        after_help = "Examples:\n  asynq-worker man | man -l -\n  asynq-worker man --out ~/.local/share/man/man8"
    )]
    Man(Man),
    /// Show what the worker would go by
    #[command(subcommand)]
    Config(print::Verb),
}

impl Command {
    /// What is to be printed. `matches` are those of the whole command line.
    pub(crate) fn run(self, matches: &ArgMatches) -> anyhow::Result<String> {
        Ok(match self {
            Self::Completions(args) => args.render(command_line()),
            Self::Man(args) => args.run(command_line(), Section::Daemons)?,
            Self::Config(verb) => verb.run(matches)?,
        })
    }
}
