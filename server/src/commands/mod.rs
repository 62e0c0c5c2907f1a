//! What `asynqd` does beside being the broker: one thing, and then it ends.

mod tls_init;
mod token_new;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use asynq_manual::{Completions, Man, ManError, Section};
use clap::Subcommand;

use crate::config::command_line;

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make certificates
    #[command(subcommand)]
    Tls(Tls),
    /// Make tokens
    #[command(subcommand)]
    Token(Token),
    /// Print what makes a shell complete this command's words
    #[command(after_help = "Examples:\n  source <(asynqd completions bash)")]
    Completions(Completions),
    /// Print a page for man, or write those of all subcommands to a folder
    #[command(after_help = "Examples:\n  asynqd man | man -l -\n  asynqd man --out ~/.local/share/man/man8")]
    Man(Man),
}

/// `asynqd tls …`.
#[derive(Debug, Subcommand)]
pub enum Tls {
    /// Make a CA, and certificates for the broker, a worker and a caller
    Init(tls_init::Args),
}

/// `asynqd token …`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token: print its table for the tokens file, and once its secret
    New(token_new::Args),
}

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It would overwrite something.
    #[error("{} exists already: nothing was written; name another folder, or move it away", .0.display())]
    Exists(PathBuf),
    /// A file or folder cannot be written, or stdout not.
    #[error("failed to write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("failed to make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// An argument does not do.
    #[error("{0}")]
    Argument(String),
    /// There is no such page, or it cannot be written.
    #[error(transparent)]
    Man(#[from] ManError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// If it cannot be done; nothing that was there is overwritten.
    pub fn run(self) -> Result<(), CommandError> {
        match self {
            Self::Tls(Tls::Init(args)) => args.run(),
            Self::Token(Token::New(args)) => args.run(),
            Self::Completions(args) => print(&args.render(command_line())),
            Self::Man(args) => print(&args.run(command_line(), Section::Daemons)?),
        }
    }
}

/// Opens a file that only its owner can read; its content is secret.
fn private(path: &Path, options: &mut OpenOptions) -> Result<std::fs::File, CommandError> {
    let opened = options.write(true).mode(0o600).open(path);
    opened.map_err(|error| unwritten(path, error))
}

fn unwritten(path: &Path, source: io::Error) -> CommandError {
    match source.kind() {
        io::ErrorKind::AlreadyExists => CommandError::Exists(path.to_owned()),
        _ => CommandError::Write {
            path: path.to_owned(),
            source,
        },
    }
}

/// Prints what the user asked for.
fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| unwritten(Path::new("to standard output"), error))
}
