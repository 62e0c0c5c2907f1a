//! The broker's end of TLS: its certificate, and which certificates it takes
//! from others.

use std::path::Path;
use std::sync::Arc;

use asynq_proto::CredentialsError;
use asynq_proto::credentials::{certificates, private_key, roots};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, Error, ServerConfig, version};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Reads the files.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, CredentialsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| unusable(&files.cert, "the broker's certificate", &error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let what = "the CA of client certificates";
            let roots = Arc::new(roots(ca, what)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(ca, what, &error))?)
        }
    };
    let mut config = builder
        .with_single_cert(
            certificates(&files.cert, "the broker's certificate")?,
            private_key(&files.key)?,
        )
        .map_err(|error| unusable(&files.cert, "the broker's certificate", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Connections live long, and each of them shows a certificate that is valid now.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn unusable(path: &Path, what: &'static str, error: &dyn std::error::Error) -> CredentialsError {
    CredentialsError::File {
        path: path.to_owned(),
        what,
        problem: error.to_string(),
    }
}

/// Why a handshake failed, for the log of the broker.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it showed no client certificate".into(),
        Error::InvalidCertificate(bad) => match bad {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is not signed by --client-ca".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; is this machine's clock right?".into()
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "its certificate is not made for clients".into()
            }
            other => format!("its certificate is not good: {other}"),
        },
        Error::AlertReceived(alert) => format!("it does not take this broker's certificate: {alert:?}"),
        other => format!("TLS did not come about: {other}"),
    }
}
