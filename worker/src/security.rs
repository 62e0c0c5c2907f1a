//! The daemon's flags that secure its connections.

use std::path::PathBuf;

use asynq_worker::{Credentials, Token};
use clap::Args;

/// What to show the broker, and how to know it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityArgs {
    /// The token to show, or @FILE that holds it
    #[arg(long, value_name = "TOKEN", env = "ASYNQ_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<Token>,
    /// Trust the CAs of this PEM file [default: those of the system]
    #[arg(long, value_name = "FILE", env = "ASYNQ_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate to show, PEM; wants --tls-key
    #[arg(long, value_name = "FILE", env = "ASYNQ_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the certificate, PEM
    #[arg(long, value_name = "FILE", env = "ASYNQ_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl SecurityArgs {
    /// What the flags say, else what worker.toml says.
    pub(crate) fn or(self, file: Credentials) -> Credentials {
        Credentials {
            token: self.token.or(file.token),
            ca: self.ca.or(file.ca),
            cert: self.cert.or(file.cert),
            key: self.tls_key.or(file.key),
        }
    }
}
