//! What is read from files about who gets in, and read again on SIGHUP.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use asynq_proto::CredentialsError;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::complaints::Complaints;
use super::tls;
use super::tokens::{Tokens, TokensError};
use crate::config::Security;
use crate::metrics::Calls;

/// Who gets in. Cheap to clone; clones share what is read again.
#[derive(Clone)]
pub struct Access {
    shared: Arc<Shared>,
}

struct Shared {
    security: Security,
    tls: Option<RwLock<TlsAcceptor>>,
    tokens: Option<RwLock<Arc<Tokens>>>,
    complaints: Complaints,
    calls: Calls,
}

/// Why it cannot be said who gets in.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A certificate, a key or a CA is of no use.
    #[error(transparent)]
    Tls(#[from] CredentialsError),
    /// The tokens file is of no use.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

impl Access {
    /// Everybody who reaches the port, in clear.
    #[must_use]
    pub fn anyone() -> Self {
        Self {
            shared: Arc::new(Shared {
                security: Security::default(),
                tls: None,
                tokens: None,
                complaints: Complaints::default(),
                calls: Calls::default(),
            }),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If one of them is of no use; the message names it.
    pub fn open(security: Security) -> Result<Self, AccessError> {
        let (tls, tokens) = read(&security)?;
        Ok(Self {
            shared: Arc::new(Shared {
                security,
                tls: tls.map(RwLock::new),
                tokens: tokens.map(|tokens| RwLock::new(Arc::new(tokens))),
                complaints: Complaints::default(),
                calls: Calls::default(),
            }),
        })
    }

    /// Reads the files again. Connections that are open go on; sessions and
    /// streams whose token is gone are ended.
    ///
    /// # Errors
    /// If one of the files is of no use: then everything stays as it was.
    pub fn reload(&self) -> Result<(), AccessError> {
        let (tls, tokens) = read(&self.shared.security)?;
        if let (Some(old), Some(new)) = (&self.shared.tls, tls) {
            *old.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        if let (Some(old), Some(mut new)) = (&self.shared.tokens, tokens) {
            let mut old = old.write().unwrap_or_else(PoisonError::into_inner);
            new.take_over(&old);
            info!(tokens = new.len(), "tokens were read again");
            *old = Arc::new(new);
        }
        Ok(())
    }

    /// Whether there is anything to read again.
    #[must_use]
    pub fn is_anyone(&self) -> bool {
        self.shared.tls.is_none() && self.shared.tokens.is_none()
    }

    /// TLS, if it is to be spoken.
    pub(crate) fn tls(&self) -> Option<TlsAcceptor> {
        let tls = self.shared.tls.as_ref()?;
        Some(tls.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The tokens, if one has to be shown.
    pub(super) fn tokens(&self) -> Option<Arc<Tokens>> {
        let tokens = self.shared.tokens.as_ref()?;
        Some(tokens.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// What is counted of calls.
    pub(crate) fn calls(&self) -> &Calls {
        &self.shared.calls
    }

    /// Tells operators who was refused, and why.
    pub(crate) fn complain(&self, peer: Option<SocketAddr>, reason: &dyn fmt::Display) {
        let Some(passed_over) = self.shared.complaints.one_more() else {
            return;
        };
        let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        match passed_over {
            0 => warn!(peer, %reason, "refused"),
            more => warn!(peer, %reason, more, "refused, and more that were not logged"),
        }
    }
}

fn read(security: &Security) -> Result<(Option<TlsAcceptor>, Option<Tokens>), AccessError> {
    let tls = security.tls.as_ref().map(tls::acceptor).transpose()?;
    let tokens = security.tokens.as_deref().map(Tokens::read).transpose()?;
    let key = security.tls.as_ref().map(|tls| tls.key.as_path());
    for file in key.into_iter().chain(security.tokens.as_deref()) {
        warn_if_open(file);
    }
    Ok((tls, tokens))
}

/// What is to be known to the broker alone should not be there for everybody.
fn warn_if_open(file: &Path) {
    let mode = std::fs::metadata(file).map_or(0, |file| file.mode());
    if mode & 0o007 != 0 {
        let file = file.display();
        warn!(%file, "everybody on this machine can open this file: chmod o= it");
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Access").field(&self.shared.security).finish()
    }
}
