//! What `asynq-worker` does beside being a worker: one thing, and then it ends.

use std::io::{self, Write};

use asynq_manual::{Completions, Man, Section};
use clap::Subcommand;

use crate::config::command_line;

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
}

impl Command {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let text = match self {
            Self::Completions(args) => args.render(command_line()),
            Self::Man(args) => args.run(command_line(), Section::Daemons)?,
        };
        let mut stdout = io::stdout().lock();
        Ok(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())?)
    }
}
