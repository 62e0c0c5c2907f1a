//! Reaching the broker within the time the user has, and keeping count of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use asynq_client::{Client, Credentials, Token};
use clap::{ArgMatches, parser::ValueSource};
use tokio::time::timeout;

use crate::failure::Failure;

/// Which broker, and what to show it. Every command takes these flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Broker {
    /// The broker; https:// where it speaks TLS.
    #[arg(
        long = "broker",
        global = true,
        env = "ASYNQ_BROKER",
        value_name = "URL",
        default_value = "http://127.0.0.1:7740"
    )]
    url: String,
    /// The token to show, or @FILE that holds it.
    #[arg(
        long,
        global = true,
        env = "ASYNQ_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = SECURITY
    )]
    token: Option<Token>,
    /// Trust the CAs of this PEM file [default: those of the system].
    #[arg(long, global = true, env = "ASYNQ_CA", value_name = "FILE", help_heading = SECURITY)]
    ca: Option<PathBuf>,
    /// The certificate to show, PEM; wants --tls-key.
    #[arg(long, global = true, env = "ASYNQ_CERT", value_name = "FILE", help_heading = SECURITY)]
    cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, global = true, env = "ASYNQ_TLS_KEY", value_name = "FILE", help_heading = SECURITY)]
    tls_key: Option<PathBuf>,
    /// Where the URL comes from.
    #[arg(skip)]
    origin: Option<ValueSource>,
}

const SECURITY: &str = "Security";

impl Broker {
    /// Notes where the URL comes from, for those who ask.
    pub(crate) fn note_origin(&mut self, matches: &ArgMatches) {
        self.origin = matches.value_source("url");
    }

    pub(crate) const fn origin(&self) -> Option<ValueSource> {
        self.origin
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.tls_key.clone(),
            token: self.token.clone(),
        }
    }
}

/// A connected client and what is left of `--wait`.
pub(crate) struct Connected {
    pub(crate) client: Client,
    begun: Instant,
    wait: Option<Duration>,
}

/// Connects; `wait` counts from now.
pub(crate) async fn connect(broker: &Broker, wait: Option<Duration>) -> Result<Connected, Failure> {
    let begun = Instant::now();
    let connecting = Client::builder(&broker.url).credentials(broker.credentials()).connect();
    let client = match wait {
        None => connecting.await?,
        Some(wait) => match timeout(wait, connecting).await {
            Ok(client) => client?,
            Err(_) => {
                return Err(Failure::new(
                    3,
                    "NO_BROKER",
                    format!("no broker at {} in the time to wait", broker.url),
                ));
            }
        },
    };
    Ok(Connected { client, begun, wait })
}

impl Connected {
    /// How long may still be waited, if there is a limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.wait.map(|wait| wait.saturating_sub(self.begun.elapsed()))
    }
}
