//! What a caller or worker has to show, and whom it trusts: certificate files
//! and a token, checked before anything is sent.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, version};

use crate::endpoint::Endpoint;
use crate::token::Token;

/// What every end speaks inside TLS.
const ALPN: &[u8] = b"h2";

/// What to secure connections with. Every part may be missing; files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The CAs the broker's certificate may be signed by. Without it, those
    /// this system trusts.
    pub ca: Option<PathBuf>,
    /// The own certificate, and those between it and its CA.
    pub cert: Option<PathBuf>,
    /// The key of the own certificate.
    pub key: Option<PathBuf>,
    /// Goes with every call.
    pub token: Option<Token>,
}

/// Why [`Credentials`] are of no use. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A certificate is no good without its key, nor the other way round.
    #[error("{given} needs {missing} beside it: the certificate and its key go together")]
    Half {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// Certificates for a connection without TLS.
    #[error("{given} has no meaning for {endpoint}: write the broker's address as https://host:port")]
    NoTls {
        /// The flag that asks for TLS.
        given: &'static str,
        /// The broker.
        endpoint: String,
    },
    /// Everybody on the way could read the token.
    #[error(
        "the token would travel in clear to {endpoint}, which is not this machine: \
         write the broker's address as https://host:port"
    )]
    TokenInClear {
        /// The broker.
        endpoint: String,
    },
    /// A file does not hold what it should.
    #[error("cannot use {} as {what}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
        /// Why not.
        problem: String,
    },
    /// No CA to check the broker against.
    #[error("this system trusts no CA: name the CA of the broker's certificate with --ca FILE")]
    NoRoots,
}

impl Credentials {
    /// Checks it all and reads the files: the TLS half, where `endpoint` wants TLS.
    pub(crate) fn client_config(&self, endpoint: &Endpoint) -> Result<Option<Arc<ClientConfig>>, CredentialsError> {
        match (&self.cert, &self.key) {
            (Some(_), None) => return Err(half("--cert", "--tls-key")),
            (None, Some(_)) => return Err(half("--tls-key", "--cert")),
            _ => {}
        }
        if !endpoint.is_secure() {
            return self.in_clear(endpoint).map(|()| None);
        }
        let roots = match &self.ca {
            Some(ca) => roots(ca, "a CA")?,
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unusable(Path::new("rustls"), "TLS", &error))?
            .with_root_certificates(roots);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert, "a certificate")?, private_key(key)?)
                .map_err(|error| unusable(cert, "this client's certificate", &error))?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection shows and checks certificates as they are now.
        config.resumption = Resumption::disabled();
        Ok(Some(Arc::new(config)))
    }

    fn in_clear(&self, endpoint: &Endpoint) -> Result<(), CredentialsError> {
        let given = [(&self.ca, "--ca"), (&self.cert, "--cert")];
        if let Some((_, given)) = given.into_iter().find(|(file, _)| file.is_some()) {
            let endpoint = endpoint.to_string();
            return Err(CredentialsError::NoTls { given, endpoint });
        }
        if self.token.is_some() && !endpoint.is_loopback() {
            let endpoint = endpoint.to_string();
            return Err(CredentialsError::TokenInClear { endpoint });
        }
        Ok(())
    }
}

const fn half(given: &'static str, missing: &'static str) -> CredentialsError {
    CredentialsError::Half { given, missing }
}

fn unusable(path: &Path, what: &'static str, problem: &dyn fmt::Display) -> CredentialsError {
    CredentialsError::File {
        path: path.to_owned(),
        what,
        problem: problem.to_string(),
    }
}

fn unread(path: &Path, what: &'static str, error: &pem::Error) -> CredentialsError {
    match error {
        pem::Error::Io(error) => unusable(path, what, error),
        pem::Error::NoItemsFound => unusable(path, what, &"it holds none in PEM form"),
        other => unusable(path, what, other),
    }
}

/// All certificates of a PEM file, at least one.
///
/// # Errors
/// If it cannot be read or holds none.
pub fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unread(path, what, &error))?;
    match found.is_empty() {
        true => Err(unread(path, what, &pem::Error::NoItemsFound)),
        false => Ok(found),
    }
}

/// The first private key of a PEM file.
///
/// # Errors
/// If it cannot be read or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unread(path, "a private key", &error))
}

/// The CAs of a PEM file.
///
/// # Errors
/// If it cannot be read or holds none.
pub fn roots(path: &Path, what: &'static str) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, what)? {
        roots.add(certificate).map_err(|error| unusable(path, what, &error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    // Some of a system's many certificates may be odd; those are no CA of ours.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(CredentialsError::NoRoots),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, credentials: Credentials) -> String {
        credentials
            .client_config(&url.parse().unwrap())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let token = Some(Token::new("s3cret").unwrap());
        let file = || Some(PathBuf::from("/no/such/file"));
        let cert_only = Credentials {
            cert: file(),
            ..Credentials::default()
        };
        let key_only = Credentials {
            key: file(),
            ..Credentials::default()
        };
        let ca = Credentials {
            ca: file(),
            ..Credentials::default()
        };
        let token = Credentials {
            token,
            ..Credentials::default()
        };
        for (url, credentials, said) in [
            ("https://h", &cert_only, "--cert needs --tls-key"),
            ("https://h", &key_only, "--tls-key needs --cert"),
            ("http://127.0.0.1", &ca, "--ca has no meaning for http://127.0.0.1:7740"),
            ("https://h", &ca, "cannot use /no/such/file as a CA"),
            ("http://h", &token, "in clear to http://h:7740"),
            ("http://192.0.2.1", &token, "in clear"),
        ] {
            let error = check(url, credentials.clone());
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        for near in ["http://127.0.0.9", "http://localhost", "http://[::1]"] {
            assert!(token.client_config(&near.parse().unwrap()).unwrap().is_none());
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let error = check(
            "https://h",
            Credentials {
                ca: Some("Cargo.toml".into()),
                ..Credentials::default()
            },
        );
        assert_eq!(error, "cannot use Cargo.toml as a CA: it holds none in PEM form");
    }
}
