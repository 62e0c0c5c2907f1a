//! TLS as a caller or worker sees it: the handshake, and what is wrong where
//! the two ends do not get together, in words that say what to do.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connect::Io;
use crate::endpoint::Endpoint;

/// The first byte of an alert, which nobody sends who speaks HTTP/2 in clear.
const ALERT: u8 = 0x15;

/// Why the two ends of a connection do not get together. Trying again does not
/// help: one of them has to be set right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The broker's certificate has another CA.
    #[error("the broker's certificate is not signed by a CA this client trusts: give --ca FILE with the right CA")]
    UnknownIssuer,
    /// The broker's certificate is too old.
    #[error("the broker's certificate has expired: renew it there, or set this machine's clock")]
    Expired,
    /// The broker's certificate is from the future.
    #[error("the broker's certificate is not valid yet: set this machine's clock, or the one that made it")]
    NotYetValid,
    /// The broker's certificate has other names.
    #[error(
        "the broker's certificate is not for {0:?}: use a name it has, \
         or make one with this name (asynqd tls init --name)"
    )]
    WrongName(String),
    /// The broker shows a certificate that is good for clients only.
    #[error("what the broker shows is no certificate for servers: start it with the right --tls-cert")]
    NotForServers,
    /// The broker's certificate is wrong in a rarer way.
    #[error("the broker's certificate cannot be trusted: {0}")]
    BadCertificate(String),
    /// The broker does not speak TLS.
    #[error("the broker there does not speak TLS: start it with --tls-cert and --tls-key, or write http://")]
    SpeaksNoTls,
    /// The broker speaks nothing else.
    #[error("the broker there speaks TLS: write its address as https://")]
    NeedsTls,
    /// The broker wants a certificate.
    #[error("the broker wants a certificate from its clients: give --cert FILE and --tls-key FILE")]
    CertificateMissing,
    /// The broker trusts another CA.
    #[error("the broker does not trust the CA of this client's certificate: give a --cert that its --client-ca signed")]
    CertificateUnknown,
    /// This client's certificate is too old, or too new.
    #[error("this client's certificate has expired or is not valid yet: renew it, or set the clocks right")]
    CertificateExpired,
    /// This client's certificate is of another kind.
    #[error("the broker does not take this client's certificate: give one made for clients with --cert ({0})")]
    CertificateRefused(String),
    /// Anything else.
    #[error("TLS does not come about: {0}")]
    Other(String),
}

impl TlsError {
    /// It is the broker that refuses; else it is this client.
    pub const fn is_by_broker(&self) -> bool {
        matches!(
            self,
            Self::CertificateMissing
                | Self::CertificateUnknown
                | Self::CertificateExpired
                | Self::CertificateRefused(_)
        )
    }

    /// What TLS says, if it is TLS that says it and not the connection that broke.
    fn of(error: &io::Error, host: &str) -> Option<Self> {
        use rustls::Error as Tls;
        let tls = error.get_ref()?.downcast_ref::<Tls>()?;
        Some(match tls {
            Tls::InvalidCertificate(error) => Self::of_broker(error, host),
            Tls::AlertReceived(alert) => Self::of_alert(*alert),
            Tls::InvalidMessage(_) => Self::SpeaksNoTls,
            other => Self::Other(other.to_string()),
        })
    }

    fn of_broker(error: &CertificateError, host: &str) -> Self {
        use CertificateError as Bad;
        match error {
            Bad::UnknownIssuer | Bad::BadSignature => Self::UnknownIssuer,
            Bad::Expired | Bad::ExpiredContext { .. } => Self::Expired,
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => Self::NotYetValid,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::WrongName(host.to_owned()),
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => Self::NotForServers,
            other => Self::BadCertificate(other.to_string()),
        }
    }

    /// What the broker says before it hangs up.
    fn of_alert(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        match alert {
            Alert::CertificateRequired | Alert::NoCertificate => Self::CertificateMissing,
            Alert::UnknownCA | Alert::DecryptError => Self::CertificateUnknown,
            Alert::CertificateExpired => Self::CertificateExpired,
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied => Self::CertificateRefused(format!("{alert:?}")),
            other => Self::Other(format!("the broker says {other:?}")),
        }
    }
}

/// Where the last [`TlsError`] of a connector is found. Since TLS 1.3 a broker
/// refuses a client's certificate only after the client's handshake is over, so
/// that the refusal surfaces in the middle of HTTP/2, which keeps no causes.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<TlsError>>>);

impl Trouble {
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn get(&self) -> Option<TlsError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: TlsError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Wraps a fresh connection as `config` wants it: in TLS, or not.
pub(crate) async fn wrap(
    io: Box<dyn Io>,
    endpoint: &Endpoint,
    config: Option<Arc<ClientConfig>>,
    trouble: Trouble,
) -> io::Result<Watched> {
    let (io, plain) = match config {
        Some(config) => {
            let io = secure(io, endpoint, config).await;
            (io.inspect_err(|error| note(error, endpoint.host(), &trouble))?, false)
        }
        // Never in clear what is to be secret.
        None if endpoint.is_secure() => {
            return Err(io::Error::other("https:// wants a connector with credentials"));
        }
        None => (io, true),
    };
    Ok(Watched {
        io,
        host: endpoint.host().into(),
        unheard: plain,
        trouble,
    })
}

async fn secure(io: Box<dyn Io>, endpoint: &Endpoint, config: Arc<ClientConfig>) -> io::Result<Box<dyn Io>> {
    Ok(Box::new(handshake(io, endpoint, config).await?))
}

/// The certificate the broker shows, in DER.
pub(crate) async fn certificate(
    io: Box<dyn Io>,
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
    trouble: &Trouble,
) -> io::Result<Vec<u8>> {
    let stream = handshake(io, endpoint, config).await;
    let stream = stream.inspect_err(|error| note(error, endpoint.host(), trouble))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| io::Error::other("the broker showed no certificate"))?;
    Ok(shown.to_vec())
}

async fn handshake(
    io: Box<dyn Io>,
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<Box<dyn Io>>> {
    let name = ServerName::try_from(endpoint.host().to_owned())
        .map_err(|_| io::Error::other("the host is no name a certificate could have"))?;
    match TlsConnector::from(config).connect(name, io).await {
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::new(
            error.kind(),
            "it hung up in the TLS handshake; does it speak TLS?",
        )),
        Err(error) => Err(error),
    }
}

fn note(error: &io::Error, host: &str, trouble: &Trouble) {
    if let Some(error) = TlsError::of(error, host) {
        trouble.note(error);
    }
}

/// A connection that notes what TLS says of its end.
pub(crate) struct Watched {
    io: Box<dyn Io>,
    host: Box<str>,
    /// Plain, and nothing has been read yet.
    unheard: bool,
    trouble: Trouble,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if let Err(error) = &read {
            note(error, &self.host, &self.trouble);
        } else if self.unheard {
            self.unheard = false;
            if buf.filled().get(before) == Some(&ALERT) {
                self.trouble.note(TlsError::NeedsTls);
            }
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
