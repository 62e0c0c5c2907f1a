//! `asynqd config print`: each setting as it takes effect, and who said so.

use asynq_proto::settings::{self, Origin, Setting};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand, ValueEnum};

use super::{Config, ConfigError, ConfigFile, Security, Sources, TlsFiles};

/// `asynqd config …`.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print each setting as it takes effect, and where it comes from; no secret is shown
    Print(PrintArgs),
}

/// The same flags as the broker's, so that they can be tried out.
#[derive(Debug, Args)]
pub(super) struct PrintArgs {
    #[command(flatten)]
    sources: Sources,
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

impl PrintArgs {
    /// What is to be printed. `matches` are those of the whole command line.
    pub(super) fn run(self, matches: &ArgMatches) -> Result<String, ConfigError> {
        let matches = matches.subcommand_matches("config");
        let matches = matches.and_then(|matches| matches.subcommand_matches("print"));
        let (config, file) = Config::load(self.sources)?;
        let settings = effective(&config, matches, file.as_ref());
        Ok(match self.output {
            Output::Text => settings::table(&settings),
            Output::Json => settings::json(&settings),
        })
    }
}

/// Every setting. The compiler sees to it that none of [`Config`] is left out, a
/// test that there is one for each flag.
fn effective(config: &Config, matches: Option<&ArgMatches>, file: Option<&ConfigFile>) -> Vec<Setting> {
    let Config {
        listen,
        http,
        data_dir,
        store,
        trust_clock,
        log,
        security: Security { tls, tokens },
        insecure,
    } = config;
    let path = |path: &std::path::PathBuf| path.display().to_string();
    let of_tls = |pick: fn(&TlsFiles) -> &std::path::PathBuf| tls.as_ref().map(|tls| path(pick(tls)));
    let client_ca = tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    let keys = file.and_then(|file| file.text.parse::<toml::Table>().ok());
    let origin = |id: &str| match matches.and_then(|matches| matches.value_source(id)) {
        Some(ValueSource::CommandLine) => Origin::Flag,
        Some(ValueSource::EnvVariable) => Origin::Environment(format!("ASYNQ_{}", id.to_uppercase())),
        _ => match file.filter(|_| keys.as_ref().is_some_and(|keys| keys.contains_key(id))) {
            Some(file) => Origin::of_key(&file.path, &file.text, id),
            None => Origin::Default,
        },
    };
    let rows = [
        ("config", file.map(|file| path(&file.path))),
        ("listen", Some(listen.to_string())),
        ("http", Some(http.to_string())),
        ("data_dir", Some(path(data_dir)).filter(|dir| !dir.is_empty())),
        ("store", Some(store.as_str().to_owned())),
        ("trust_clock", Some(trust_clock.to_string())),
        ("log", Some(log.as_str().to_owned())),
        ("tls_cert", of_tls(|tls| &tls.cert)),
        ("tls_key", of_tls(|tls| &tls.key)),
        ("client_ca", client_ca.map(path)),
        ("tokens", tokens.as_ref().map(path)),
        ("insecure", Some(insecure.to_string())),
    ];
    let setting = |(id, value): (&str, _)| Setting {
        name: id.replace('_', "-"),
        value,
        origin: origin(id),
    };
    rows.into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::{CommandFactory, FromArgMatches};

    use super::super::{Flags, Settings, Verb as Any};
    use super::*;

    fn printed(args: &[&str]) -> String {
        let args = ["asynqd", "config", "print"].iter().chain(args);
        let matches = Flags::command().try_get_matches_from(args).unwrap();
        match Flags::from_arg_matches(&matches).unwrap().command {
            Some(Any::Config(Verb::Print(args))) => args.run(&matches).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_has_its_line_and_every_line_its_flag() {
        let flags = Sources::augment_args(clap::Command::new("x"));
        let mut flags: Vec<_> = flags.get_arguments().map(|flag| flag.get_id().to_string()).collect();
        let config = Settings::default().complete(|| Some("d".into())).unwrap();
        let mut lines: Vec<_> = effective(&config, None, None)
            .into_iter()
            .map(|setting| setting.name.replace('-', "_"))
            .collect();
        flags.sort();
        lines.sort();
        assert_eq!(flags, lines);
        // `Origin::Environment` makes the name up.
        for flag in Sources::augment_args(clap::Command::new("x")).get_arguments() {
            let name = format!("ASYNQ_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(name.as_str()));
        }
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("asynqd.toml");
        std::fs::write(&file, "store = \"memory\"\nhttp = \"none\"\nlisten = \"127.0.0.1:1\"\n").unwrap();
        let file = file.to_str().unwrap();
        let page = printed(&["--config", file, "--listen", "127.0.0.1:2", "--data-dir", "d"]);
        let line = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} in {page}"))
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(line("listen"), ["listen", "127.0.0.1:2", "--listen"]);
        assert_eq!(line("http"), ["http", "none", &format!("{file}:2")]);
        assert_eq!(line("store"), ["store", "memory", &format!("{file}:1")]);
        assert_eq!(line("config"), ["config", file, "--config"]);
        assert_eq!(line("log"), ["log", "text", "default"]);
        assert_eq!(line("tokens"), ["tokens", "-", "default"]);
        let json = printed(&["-o", "json", "--store", "memory"]);
        assert!(
            json.contains(r#"{"name":"store","value":"memory","origin":"flag","source":"--store"}"#),
            "{json}"
        );
    }
}
