//! `asynq-worker config print`: each setting as it takes effect, and who said so.

use asynq_proto::settings::{self, Origin, Setting};
use asynq_worker::Credentials;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError, ConfigFile, Flags, LogFormat};

/// `asynq-worker config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print each setting as it takes effect, and where it comes from; no secret is shown
    Print(PrintArgs),
}

/// The same flags as the worker's, so that they can be tried out.
#[derive(Debug, Args)]
pub(crate) struct PrintArgs {
    #[command(flatten)]
    flags: Flags,
    /// Shape of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table for people
    Text,
    /// One line of JSON
    Json,
}

impl Verb {
    /// What is to be printed. `matches` are those of the whole command line.
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<String, ConfigError> {
        let Self::Print(args) = self;
        let matches = matches.subcommand_matches("config");
        let matches = matches.and_then(|matches| matches.subcommand_matches("print"));
        let (config, file) = Config::load(args.flags)?;
        let settings = effective(&config, matches, file.as_ref());
        Ok(match args.output {
            Output::Text => settings::table(&settings),
            Output::Json => settings::json(&settings),
        })
    }
}

/// Every setting. The compiler sees to it that none of [`Config`] is left out, a
/// test that there is one for each flag. Tasks are no settings.
fn effective(config: &Config, matches: Option<&ArgMatches>, file: Option<&ConfigFile>) -> Vec<Setting> {
    let Config {
        broker,
        slots,
        name,
        builtins,
        files,
        exit_when_idle,
        drain_timeout,
        log,
        tasks: _,
        folder: _,
        credentials: Credentials { ca, cert, key, token },
    } = config;
    let path = |path: &std::path::PathBuf| path.display().to_string();
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let drain_timeout = match drain_timeout.subsec_millis() {
        0 => format!("{}s", drain_timeout.as_secs()),
        _ => format!("{}ms", drain_timeout.as_millis()),
    };
    let log = match log {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let keys = file.and_then(|file| file.text.parse::<toml::Table>().ok());
    let origin = |id: &str| match matches.and_then(|matches| matches.value_source(id)) {
        Some(ValueSource::CommandLine) => Origin::Flag,
        Some(ValueSource::EnvVariable) => Origin::Environment(format!("ASYNQ_{}", id.to_uppercase())),
        _ => match file.filter(|_| keys.as_ref().is_some_and(|keys| keys.contains_key(id))) {
            Some(file) => Origin::of_key(&file.path, &file.text, id),
            None => Origin::Default,
        },
    };
    let setting = |(id, value): (&str, _)| Setting {
        name: id.replace('_', "-"),
        value,
        origin: origin(id),
    };
    let rows = [
        ("config", file.map(|file| path(&file.path))),
        ("broker", Some(broker.clone())),
        (
            "slots",
            Some(slots.map_or_else(|| cores().to_string(), |slots| slots.to_string())),
        ),
        // Without one it is made up at the start.
        ("name", name.clone()),
        ("builtins", Some(builtins.to_string())),
        // Without it, the folder the worker is started in.
        ("files", files.as_ref().map(path)),
        ("exit_when_idle", Some(exit_when_idle.to_string())),
        ("drain_timeout", Some(drain_timeout)),
        ("log", Some(log.to_owned())),
        ("ca", ca.as_ref().map(path)),
        ("cert", cert.as_ref().map(path)),
        ("tls_key", key.as_ref().map(path)),
    ];
    let token = setting(("token", token.as_ref().map(|_| String::new()))).hidden();
    rows.into_iter().map(setting).chain([token]).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::config::Cli;

    fn printed(args: &[&str]) -> String {
        let args = ["asynq-worker", "config", "print"].iter().chain(args);
        let matches = Cli::command().try_get_matches_from(args).unwrap();
        let command = Cli::from_arg_matches(&matches).unwrap().command.unwrap();
        command.run(&matches).unwrap()
    }

    #[test]
    fn every_flag_has_its_line_and_every_line_its_flag() {
        let flags = Flags::augment_args(clap::Command::new("x"));
        let (mut names, mut envs) = (Vec::new(), Vec::new());
        for flag in flags.get_arguments() {
            names.push(flag.get_id().to_string());
            envs.push((
                flag.get_env().unwrap().to_owned(),
                flag.get_id().as_str().to_uppercase(),
            ));
        }
        let (config, _) = Config::load(Flags::default()).unwrap();
        let mut lines: Vec<_> = effective(&config, None, None)
            .into_iter()
            .map(|setting| setting.name.replace('-', "_"))
            .collect();
        names.sort();
        lines.sort();
        assert_eq!(names, lines);
        assert!(envs.iter().all(|(env, id)| *env == *format!("ASYNQ_{id}")), "{envs:?}");
    }

    #[test]
    fn each_value_says_where_it_comes_from_and_no_secret_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("worker.toml");
        std::fs::write(&file, "slots = 3\ndrain_timeout = \"5m\"\ntoken = \"hush-hush\"\n").unwrap();
        let file = file.to_str().unwrap();
        for format in ["text", "json"] {
            let page = printed(&["--config", file, "--name", "a", "-o", format]);
            assert!(!page.contains("hush"), "{page}");
        }
        let page = printed(&["--config", file, "--name", "a"]);
        let line = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            let line = line.unwrap_or_else(|| panic!("{name} in {page}"));
            line.split("  ")
                .filter(|part| !part.is_empty())
                .map(|part| part.trim().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(line("slots"), ["slots", "3", &format!("{file}:1")]);
        assert_eq!(line("drain-timeout"), ["drain-timeout", "300s", &format!("{file}:2")]);
        assert_eq!(line("token"), ["token", "(set, not shown)", &format!("{file}:3")]);
        assert_eq!(line("name"), ["name", "a", "--name"]);
        assert_eq!(line("log"), ["log", "text", "default"]);
    }
}
