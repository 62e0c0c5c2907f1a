//! Connecting to a broker that is secured: certificates and a token.

use std::path::PathBuf;

use asynq_proto::{Connector, Credentials, Token};

use crate::{Client, Error};

/// Collects what a connection takes; [`connect`](Self::connect) makes it.
///
/// The first thing that is wrong is reported by [`connect`](Self::connect).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    url: String,
    credentials: Credentials,
    mistake: Option<Error>,
}

impl ClientBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            credentials: Credentials::default(),
            mistake: None,
        }
    }

    /// Trusts the CAs of this PEM file, and no others. Default: the CAs this
    /// system trusts.
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials.ca = Some(file.into());
        self
    }

    /// Shows this certificate to the broker. Both files are PEM.
    pub fn cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.credentials.cert = Some(cert.into());
        self.credentials.key = Some(key.into());
        self
    }

    /// Sends this token with every call: the secret itself, or `@FILE`.
    ///
    /// It is never sent in clear beyond this machine: then [`connect`](Self::connect)
    /// fails with [`Error::Credentials`].
    pub fn token(mut self, token: &str) -> Self {
        match token.parse::<Token>() {
            Ok(token) => self.credentials.token = Some(token),
            Err(error) => {
                self.mistake.get_or_insert_with(|| error.into());
            }
        }
        self
    }

    /// Uses these credentials instead of all that were given before.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Connects, as [`Client::connect`] does.
    ///
    /// # Errors
    /// As there; and [`Error::Credentials`] before anything is sent,
    /// [`Error::Tls`] or [`Error::Refused`] if either end does not trust the other.
    pub async fn connect(self) -> Result<Client, Error> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let connector = Connector::tcp(self.url.parse()?, &self.credentials)?;
        Client::with_connector(connector).await
    }
}
