//! What the broker is told: flag over environment over TOML file over default.

mod http;
mod print;
mod security;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::commands::Command;
pub use http::HttpAddress;
pub use security::{Security, TlsFiles};

/// Where the configuration is looked for when nobody names a file.
const DEFAULT_FILE: &str = "/etc/asynq/asynqd.toml";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7740);

/// Where tasks are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the data directory: an acknowledged task survives a power cut.
    Sqlite,
    /// In memory: everything is lost when the broker ends.
    Memory,
}

impl StoreKind {
    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Memory => "memory",
        }
    }
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The word users see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The asynq broker: keeps tasks, hands them to workers, brings results back.
#[derive(Debug, Parser)]
#[command(name = "asynqd", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Flags {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    sources: Sources,
}

/// All that can be asked of `asynqd`.
#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Other(Command),
    /// Show what the broker would go by
    #[command(subcommand)]
    Config(print::Verb),
}

/// What a broker goes by.
#[derive(Debug, Default, clap::Args)]
struct Sources {
    /// TOML file with these flags as keys (`_` for `-`) [default: /etc/asynq/asynqd.toml if present]
    #[arg(long, env = "ASYNQ_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "\
Examples:
  asynqd
  asynqd --listen 127.0.0.1:0 --store memory
  asynqd --listen 0.0.0.0:7740 --tls-cert server.pem --tls-key server.key --tokens tokens.toml";

/// What flags and file have in common.
#[derive(Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Address for callers and workers (gRPC); port 0 takes a free one [default: 127.0.0.1:7740]
    #[arg(long, env = "ASYNQ_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address for probes and Prometheus (HTTP: /healthz, /readyz, /metrics); `none` for none [default: 127.0.0.1:7741]
    #[arg(long, env = "ASYNQ_HTTP", value_name = "ADDR:PORT")]
    http: Option<HttpAddress>,
    /// Where tasks are kept; one broker at a time [default: $XDG_STATE_HOME/asynq]
    #[arg(long, env = "ASYNQ_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How tasks are kept [default: sqlite]
    #[arg(long, env = "ASYNQ_STORE")]
    store: Option<StoreKind>,
    /// Take the machine's clock for right though it has gone far ahead or back since the broker ran last
    #[arg(long, env = "ASYNQ_TRUST_CLOCK", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    trust_clock: Option<bool>,
    /// Shape of the log on standard error; RUST_LOG filters it [default: text]
    #[arg(long, env = "ASYNQ_LOG")]
    log: Option<LogFormat>,
    /// The broker's certificate, PEM; with --tls-key, TLS is spoken
    #[arg(long, env = "ASYNQ_TLS_CERT", value_name = "FILE", help_heading = "Security")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM
    #[arg(long, env = "ASYNQ_TLS_KEY", value_name = "FILE", help_heading = "Security")]
    tls_key: Option<PathBuf>,
    /// Let in only who shows a certificate of one of these CAs, PEM
    #[arg(long, env = "ASYNQ_CLIENT_CA", value_name = "FILE", help_heading = "Security")]
    client_ca: Option<PathBuf>,
    /// Let in only who shows one of these tokens; `asynqd token new` makes them
    #[arg(long, env = "ASYNQ_TOKENS", value_name = "FILE", help_heading = "Security")]
    tokens: Option<PathBuf>,
    /// Listen beyond this machine without TLS, or without asking who is there
    #[arg(long, env = "ASYNQ_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Security")]
    insecure: Option<bool>,
}

/// What there is to do.
#[derive(Debug)]
pub enum Run {
    /// Be the broker.
    Serve(Config),
    /// Do one thing and end.
    Command(Command),
    /// Print this and end.
    Print(String),
}

/// The command line, to be told of in completions and man pages.
pub(crate) fn command_line() -> clap::Command {
    Flags::command()
}

/// What the broker runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address for callers and workers.
    pub listen: SocketAddr,
    /// Address for probes and Prometheus.
    pub http: HttpAddress,
    /// Where tasks are kept; not used by [`StoreKind::Memory`].
    pub data_dir: PathBuf,
    /// How tasks are kept.
    pub store: StoreKind,
    /// The wall clock is right, whatever the store says.
    pub trust_clock: bool,
    /// Shape of the log.
    pub log: LogFormat,
    /// Who gets in.
    pub security: Security,
    /// Strangers may reach the ports.
    pub insecure: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is wrong, or asks for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// Nothing says where tasks are to be kept.
    #[error("neither XDG_STATE_HOME nor HOME is set: say where tasks are kept with --data-dir")]
    NoDataDir,
    /// Flags that go together.
    #[error("{given} needs {missing} beside it")]
    Half {
        /// The flag that is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// Everybody could use the broker, or read what it says.
    #[error(
        "refusing to listen on {0}, which others can reach: give --tls-cert and --tls-key, and --client-ca or --tokens \
         (`asynqd tls init DIR` makes certificates, `asynqd token new NAME --role ROLE` tokens), \
         or --insecure where the network keeps strangers out"
    )]
    Exposed(SocketAddr),
    /// Everybody could read the metrics.
    #[error(
        "refusing to serve HTTP on {0}, which others can reach: that port has neither TLS nor tokens; \
         give --http an address of this machine alone, such as 127.0.0.1:7741, or `none`, \
         or --insecure where the network keeps strangers out (it counts for --listen, too)"
    )]
    HttpExposed(SocketAddr),
}

impl Run {
    /// Reads the command line and, for a broker, the environment and the file.
    ///
    /// # Errors
    /// If one of them is wrong; the message names the flag or key.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, ConfigError> {
        let matches = Flags::command().try_get_matches_from(args)?;
        let flags = Flags::from_arg_matches(&matches)?;
        match flags.command {
            Some(Verb::Other(command)) => Ok(Self::Command(command)),
            Some(Verb::Config(print::Verb::Print(args))) => args.run(&matches).map(Self::Print),
            None => Config::load(flags.sources).map(|(config, _)| Self::Serve(config)),
        }
    }
}

impl Config {
    /// What takes effect, and the file that had a part in it.
    fn load(sources: Sources) -> Result<(Self, Option<ConfigFile>), ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let path = sources.config.or_else(|| default.exists().then(|| default.into()));
        let file = path.map(ConfigFile::read).transpose()?;
        let below = file
            .as_ref()
            .map_or_else(|| Ok(Settings::default()), ConfigFile::settings)?;
        let state_home = || {
            let set = |name| {
                std::env::var_os(name)
                    .filter(|value| !value.is_empty())
                    .map(PathBuf::from)
            };
            set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))
        };
        let config = sources.settings.or(below).complete(state_home)?;
        Ok((config, file))
    }
}

impl Settings {
    fn or(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            http: self.http.or(below.http),
            data_dir: self.data_dir.or(below.data_dir),
            store: self.store.or(below.store),
            trust_clock: self.trust_clock.or(below.trust_clock),
            log: self.log.or(below.log),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            client_ca: self.client_ca.or(below.client_ca),
            tokens: self.tokens.or(below.tokens),
            insecure: self.insecure.or(below.insecure),
        }
    }

    fn complete(mut self, state_home: impl Fn() -> Option<PathBuf>) -> Result<Config, ConfigError> {
        let store = self.store.unwrap_or(StoreKind::Sqlite);
        let data_dir = match self.data_dir.take().or_else(|| Some(state_home()?.join("asynq"))) {
            Some(dir) => dir,
            None if store == StoreKind::Memory => PathBuf::new(),
            None => return Err(ConfigError::NoDataDir),
        };
        let listen = self.listen.unwrap_or(DEFAULT_LISTEN);
        let security = Security::of(&mut self)?;
        let (http, insecure) = (self.http.unwrap_or_default(), self.insecure.unwrap_or(false));
        security.check(listen, insecure)?;
        http.check(insecure)?;
        Ok(Config {
            listen,
            http,
            data_dir,
            store,
            trust_clock: self.trust_clock.unwrap_or(false),
            log: self.log.unwrap_or(LogFormat::Text),
            security,
            insecure,
        })
    }
}

/// A TOML file, and what it says.
#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    fn read(path: PathBuf) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        toml::from_str(&self.text).map_err(|source| ConfigError::Malformed {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(args: &[&str]) -> Result<Config, ConfigError> {
        let flags = Flags::try_parse_from(["asynqd"].iter().chain(args))?;
        Config::load(flags.sources).map(|(config, _)| config)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = file("listen = \"127.0.0.1:1\"\nstore = \"memory\"\n");
        let path = file.path().to_str().unwrap();
        let config = load(&["--config", path, "--listen", "[::1]:2", "--data-dir", "d"]).unwrap();
        assert_eq!(config.listen, "[::1]:2".parse().unwrap());
        assert_eq!((config.store, config.log), (StoreKind::Memory, LogFormat::Text));
        assert_eq!(config.data_dir, Path::new("d"));
    }

    #[test]
    fn wrong_keys_values_and_flags_are_named() {
        for (text, part) in [
            ("lisen = 1", "lisen"),
            ("store = \"tape\"", "tape"),
            ("listen = \"here\"", "listen"),
            ("http = \"7741\"", "7741"),
        ] {
            let file = file(text);
            let error = load(&["--config", file.path().to_str().unwrap()])
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (flag, part) in [
            ("--store=tape", "tape"),
            ("--verbose", "--verbose"),
            ("--listen=7740", "7740"),
        ] {
            let error = load(&[flag]).unwrap_err().to_string();
            assert!(error.contains(part), "{flag}: {error}");
        }
        let error = load(&["--config", "/no/such/file"]).unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn the_data_directory_has_a_default_unless_there_is_no_home() {
        let at = |home: Option<&str>| {
            let home = home.map(PathBuf::from);
            Settings::default()
                .complete(|| home.clone())
                .map(|config| config.data_dir)
        };
        assert_eq!(at(Some("/state")).unwrap(), Path::new("/state/asynq"));
        assert!(matches!(at(None), Err(ConfigError::NoDataDir)));
        let memory = Settings {
            store: Some(StoreKind::Memory),
            ..Settings::default()
        };
        assert!(memory.complete(|| None).is_ok());
    }

    #[test]
    fn what_others_can_reach_has_to_be_secured() {
        let tls = ["--tls-cert", "c", "--tls-key", "k"];
        let (ca, tokens) = (["--client-ca", "a"], ["--tokens", "t"]);
        let at = |address: &'static str, more: &[&'static str]| {
            let args = [&["--store", "memory", "--listen", address], more].concat();
            load(&args)
                .map(|config| config.security)
                .map_err(|error| error.to_string())
        };
        for (given, missing) in [
            (&["--tls-cert", "c"][..], "--tls-cert needs --tls-key"),
            (&["--tls-key", "k"], "--tls-key needs --tls-cert"),
            (&["--client-ca", "a"], "--client-ca needs --tls-cert and --tls-key"),
        ] {
            assert!(at("127.0.0.1:0", given).unwrap_err().contains(missing));
        }
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            for too_little in [&[][..], &tokens, &tls] {
                let said = at(open, too_little).unwrap_err();
                assert!(said.contains(&format!("refusing to listen on {open}")), "{said}");
                assert!(
                    said.contains("asynqd tls init") && said.contains("--insecure"),
                    "{said}"
                );
                assert!(at(open, &[too_little, &["--insecure"]].concat()).is_ok());
            }
            let all = at(open, &[&tls[..], &ca, &tokens].concat()).unwrap();
            assert_eq!(all.tls.unwrap().client_ca, Some("a".into()));
            for enough in [&ca, &tokens] {
                assert!(at(open, &[&tls[..], enough].concat()).unwrap().is_enough());
            }
        }
        for (http, so) in [
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("127.0.0.1:0", true),
            ("none", true),
        ] {
            let asked = at("127.0.0.1:1", &["--http", http]);
            assert_eq!(asked.is_ok(), so, "{http}");
            assert!(
                asked.is_ok()
                    || asked
                        .unwrap_err()
                        .contains(&format!("refusing to serve HTTP on {http}"))
            );
            assert!(at("127.0.0.1:1", &["--http", http, "--insecure"]).is_ok());
        }
        for near in ["127.0.0.1:1", "[::1]:1"] {
            assert!(!at(near, &tokens).unwrap().is_enough());
        }
    }

    #[test]
    fn flags_are_well_formed() {
        Flags::command().debug_assert();
    }
}
