//! Certificates for tests: good ones, and each kind of bad one.

use std::path::PathBuf;

use asynqd::clock::{Clock, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// When a certificate is good.
#[derive(Clone, Copy)]
pub(crate) enum Valid {
    Now,
    NoMore,
    NotYet,
}

pub(crate) const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
pub(crate) const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

/// A CA whose certificates are written to a folder of its own.
pub(crate) struct Ca {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, Vec::new(), Valid::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for 127.0.0.1 and localhost.
    pub(crate) fn sign(&self, file: &str, purpose: ExtendedKeyUsagePurpose, valid: Valid) -> Pair {
        let names = vec!["127.0.0.1".into(), "localhost".into()];
        self.sign_for(file, names, purpose, valid)
    }

    pub(crate) fn sign_for(
        &self,
        file: &str,
        names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
        valid: Valid,
    ) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = params(file, names, valid);
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            cert: self.path(&format!("{file}.pem")),
            key: self.path(&format!("{file}.key")),
        };
        std::fs::write(&pair.cert, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

fn params(name: &str, names: Vec<String>, valid: Valid) -> CertificateParams {
    let now = i64::try_from(SystemClock::new().now().as_millis() / 1000).unwrap();
    let now = OffsetDateTime::from_unix_timestamp(now).unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = match valid {
        Valid::Now => (now - Duration::DAY, now + Duration::DAY),
        Valid::NoMore => (now - Duration::DAY, now - Duration::HOUR),
        Valid::NotYet => (now + Duration::HOUR, now + Duration::DAY),
    };
    params
}
