//! The daemon's settings: flag, else `ASYNQ_…`, else worker.toml, else default.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use asynq_proto::duration;
use asynq_worker::{Credentials, Token};
use clap::{Args, CommandFactory, Parser, ValueEnum};
use serde::{Deserialize, Deserializer, de};

use crate::commands::Command;
use crate::kinds::Tasks;
use crate::security::SecurityArgs;

/// Where worker.toml is looked for when nobody says.
const DEFAULT_FILE: &str = "/etc/asynq/worker.toml";
const DEFAULT_BROKER: &str = "http://127.0.0.1:7740";
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes tasks from an asynq broker and runs them.
///
/// SIGTERM and SIGINT drain: nothing new is taken, what has not started is
/// given back, the rest finishes within the drain timeout. A second signal
/// exits at once. Logs go to stderr, RUST_LOG filters them.
#[derive(Debug, Parser)]
#[command(name = "asynq-worker", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// What a worker goes by.
#[derive(Debug, Default, Args)]
pub(crate) struct Flags {
    /// Where the broker is; https:// where it speaks TLS [default: http://127.0.0.1:7740]
    #[arg(long, value_name = "URL", env = "ASYNQ_BROKER")]
    broker: Option<String>,
    /// A worker.toml: these flags as keys, with _ for -, and tasks that need no Rust, as [task.NAME] [default: /etc/asynq/worker.toml if present]
    #[arg(long, value_name = "FILE", env = "ASYNQ_CONFIG")]
    config: Option<PathBuf>,
    /// How many tasks run at a time, 1 to 65536 [default: the number of CPUs]
    #[arg(long, value_name = "N", env = "ASYNQ_SLOTS")]
    slots: Option<u32>,
    /// The name operators see [default: <host>-<4 hex digits>]
    #[arg(long, value_name = "NAME", env = "ASYNQ_NAME")]
    name: Option<String>,
    /// Offer the tasks echo, sleep, fail and sha256, and the iterators count, mandelbrot and scan
    #[arg(long, env = "ASYNQ_BUILTINS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    builtins: Option<bool>,
    /// The folder that sha256 and scan may read: paths are relative to it, nothing outside is opened [default: the working directory]
    #[arg(long, value_name = "DIR", env = "ASYNQ_FILES")]
    files: Option<PathBuf>,
    /// Exit once connected and without anything to do for one second
    #[arg(long, env = "ASYNQ_EXIT_WHEN_IDLE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    exit_when_idle: Option<bool>,
    /// How long a drain may take, such as 250ms, 30s, 5m, 1h30m [default: 30s]
    #[arg(long, value_name = "DURATION", env = "ASYNQ_DRAIN_TIMEOUT", value_parser = duration::parse)]
    drain_timeout: Option<Duration>,
    /// How logs are written [default: text]
    #[arg(long, value_name = "FORMAT", env = "ASYNQ_LOG")]
    log: Option<LogFormat>,
    #[command(flatten)]
    security: SecurityArgs,
}

const EXAMPLES: &str = "Examples:\n  asynq-worker --builtins\n  \
    asynq-worker --builtins --files /var/log\n  \
    asynq-worker --config worker.toml\n  \
    asynq-worker --broker http://broker:7740 --builtins --slots 64 --drain-timeout 5m\n\n\
    A worker.toml:\n  \
    slots = 4\n\n  \
    [task.grep]\n  \
    kind = \"exec\"\n  \
    cmd = [\"grep\", \"-rn\", \"--\", \"{pattern}\", \"/var/log\"]\n  \
    stdout = \"lines\"";

/// The command line, to be told of in completions and man pages.
pub(crate) fn command_line() -> clap::Command {
    Cli::command()
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// worker.toml. A key nobody knows is a mistake, not a wish.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    broker: Option<String>,
    slots: Option<u32>,
    name: Option<String>,
    builtins: Option<bool>,
    files: Option<PathBuf>,
    exit_when_idle: Option<bool>,
    #[serde(default, deserialize_with = "a_duration")]
    drain_timeout: Option<Duration>,
    log: Option<LogFormat>,
    #[serde(default)]
    task: Tasks,
    token: Option<Token>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

/// What the daemon goes by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) broker: String,
    pub(crate) slots: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) builtins: bool,
    /// What builtins may read, if not the working directory.
    pub(crate) files: Option<PathBuf>,
    pub(crate) exit_when_idle: bool,
    pub(crate) drain_timeout: Duration,
    pub(crate) log: LogFormat,
    pub(crate) tasks: Tasks,
    /// Where the tasks' programs run: worker.toml's folder.
    pub(crate) folder: PathBuf,
    pub(crate) credentials: Credentials,
}

/// worker.toml cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Malformed {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("--files says what the builtins may read: give --builtins, too, or leave it out")]
    FilesForNobody,
}

impl Config {
    /// Puts the sources together: what takes effect, and the file that had a part in it.
    pub(crate) fn load(flags: Flags) -> Result<(Self, Option<ConfigFile>), ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let path = flags
            .config
            .clone()
            .or_else(|| default.exists().then(|| default.into()));
        let file = path.map(ConfigFile::read).transpose()?;
        let below = file
            .as_ref()
            .map_or_else(|| Ok(File::default()), ConfigFile::settings)?;
        let folder = file.as_ref().and_then(|file| file.path.parent());
        let config = Self::merge(flags, below, folder.unwrap_or(Path::new("")));
        match config.files {
            Some(_) if !config.builtins => Err(ConfigError::FilesForNobody),
            _ => Ok((config, file)),
        }
    }

    fn merge(flags: Flags, file: File, folder: &Path) -> Self {
        Self {
            broker: flags.broker.or(file.broker).unwrap_or_else(|| DEFAULT_BROKER.into()),
            slots: flags.slots.or(file.slots),
            name: flags.name.or(file.name),
            builtins: flags.builtins.or(file.builtins).unwrap_or(false),
            files: flags.files.or(file.files),
            exit_when_idle: flags.exit_when_idle.or(file.exit_when_idle).unwrap_or(false),
            drain_timeout: flags
                .drain_timeout
                .or(file.drain_timeout)
                .unwrap_or(DEFAULT_DRAIN_TIMEOUT),
            log: flags.log.or(file.log).unwrap_or_default(),
            tasks: file.task,
            folder: folder.into(),
            credentials: flags.security.or(Credentials {
                ca: file.ca,
                cert: file.cert,
                key: file.tls_key,
                token: file.token,
            }),
        }
    }
}

/// A TOML file, and what it says.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl ConfigFile {
    fn read(path: PathBuf) -> Result<Self, ConfigError> {
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    fn settings(&self) -> Result<File, ConfigError> {
        toml::from_str(&self.text).map_err(|source| ConfigError::Malformed {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }
}

/// A duration as it is written on the command line, for a key that may be absent.
pub(crate) fn a_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration::parse(&text)
        .map(Some)
        .map_err(|error| de::Error::custom(format!("{text:?} is no duration: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Result<Flags, clap::Error> {
        Cli::try_parse_from(["asynq-worker"].iter().chain(args)).map(|cli| cli.flags)
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file: File =
            toml::from_str("slots = 3\nname = \"a\"\nbuiltins = true\nfiles = \"a\"\ndrain_timeout = \"5m\"\nlog = \"json\"\nca = \"a\"\ntoken = \"t\"").unwrap();
        let config = Config::merge(
            flags(&["--slots", "4", "--builtins=false", "--ca", "b", "--files", "b"]).unwrap(),
            file,
            Path::new("etc"),
        );
        assert_eq!(
            config,
            Config {
                broker: DEFAULT_BROKER.into(),
                slots: Some(4),
                name: Some("a".into()),
                builtins: false,
                files: Some("b".into()),
                exit_when_idle: false,
                drain_timeout: Duration::from_mins(5),
                log: LogFormat::Json,
                tasks: Tasks::default(),
                folder: "etc".into(),
                credentials: Credentials {
                    ca: Some("b".into()),
                    token: Some(Token::new("t").unwrap()),
                    ..Credentials::default()
                },
            }
        );
    }

    #[test]
    fn a_flag_without_a_value_means_yes_and_takes_no_other_word() {
        let parsed = flags(&["--builtins", "--exit-when-idle"]).unwrap();
        assert_eq!((parsed.builtins, parsed.exit_when_idle), (Some(true), Some(true)));
        assert!(flags(&["--builtins", "true"]).is_err());
    }

    #[test]
    fn unknown_keys_and_flags_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        fs::write(&path, "slotz = 3\n").unwrap();
        let error = Config::load(Flags {
            config: Some(path.clone()),
            ..Flags::default()
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("worker.toml") && error.contains("slotz"), "{error}");
        let error = flags(&["--slotz", "3"]).unwrap_err().to_string();
        assert!(error.contains("--slotz"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = Config::load(Flags {
            config: Some(path),
            ..Flags::default()
        })
        .unwrap_err()
        .to_string();
        assert!(error.starts_with("failed to read"), "{error}");
    }

    #[test]
    fn a_duration_in_the_file_is_read_as_on_the_command_line() {
        let file: File = toml::from_str("drain_timeout = \"1h30m\"").unwrap();
        assert_eq!(file.drain_timeout, Some(Duration::from_mins(90)));
        assert_eq!(
            flags(&["--drain-timeout", "1h30m"]).unwrap().drain_timeout,
            file.drain_timeout
        );
        let error = toml::from_str::<File>("drain_timeout = \"soon\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("soon") && error.contains("250ms"), "{error}");
    }
}
