//! What the broker is told about who gets in, and whether that is enough for
//! the address it listens on.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigError, Settings};

/// What secures the broker. Files are read by [`crate::Access::open`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// What TLS takes; without it, everything travels in clear.
    pub tls: Option<TlsFiles>,
    /// The tokens file; without it, nobody is asked for one.
    pub tokens: Option<PathBuf>,
}

/// The files of TLS, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The broker's certificate, and those between it and its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs of clients' certificates; without it, clients show none.
    pub client_ca: Option<PathBuf>,
}

impl Security {
    /// Puts the settings together.
    pub(super) fn of(settings: &mut Settings) -> Result<Self, ConfigError> {
        let half = |given, missing| Err(ConfigError::Half { given, missing });
        let client_ca = settings.client_ca.take();
        let tls = match (settings.tls_cert.take(), settings.tls_key.take()) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key, client_ca }),
            (Some(_), None) => return half("--tls-cert", "--tls-key"),
            (None, Some(_)) => return half("--tls-key", "--tls-cert"),
            (None, None) if client_ca.is_some() => return half("--client-ca", "--tls-cert and --tls-key"),
            (None, None) => None,
        };
        Ok(Self {
            tls,
            tokens: settings.tokens.take(),
        })
    }

    /// Whether it keeps strangers out who reach the port.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some() || self.tokens.is_some())
    }

    /// Beyond this machine the broker is secured, or somebody insists.
    pub(super) fn check(&self, listen: SocketAddr, insecure: bool) -> Result<(), ConfigError> {
        match listen.ip().is_loopback() || self.is_enough() || insecure {
            true => Ok(()),
            false => Err(ConfigError::Exposed(listen)),
        }
    }
}
