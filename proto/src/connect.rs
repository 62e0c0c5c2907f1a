//! Reaching a broker: what address, over what transport, with which HTTP/2
//! settings. Clients and workers connect through here and nowhere else.

use std::{fmt, future::Future, io, pin::Pin, str::FromStr, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint as TonicEndpoint};

use crate::limits::{CONNECT_TIMEOUT, CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW};

/// The port a broker listens on when nothing else is said.
pub const DEFAULT_PORT: u16 = 7740;

/// Where a broker is: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the address of a broker: {problem}")]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

impl Endpoint {
    /// The host name or address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; [`DEFAULT_PORT`] if the address names none.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = |problem| EndpointError {
            text: text.to_owned(),
            problem,
        };
        let uri: Uri = text.parse().map_err(|_| error("write it as http://host:port"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(error("this version speaks plain http:// only")),
            _ => return Err(error("write it as http://host:port")),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(error("leave out what follows the port"));
        }
        let authority = uri.authority().ok_or_else(|| error("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(error("a user name has no meaning here"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            None => DEFAULT_PORT,
            Some("") => return Err(error("the port is missing after the colon")),
            Some(port) => port.parse().map_err(|_| error("ports are 1 to 65535"))?,
        };
        if port == 0 {
            return Err(error("ports are 1 to 65535"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            uri,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The future of a [`Dial`].
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// A transport: opens one byte stream to a broker.
///
/// TCP is built in; a unix socket, a pipe within the process or a simulated
/// network is another implementation, and everything above stays the same.
pub trait Dial: Send + Sync + 'static {
    /// Opens a new connection to `endpoint`. Dropping the future gives up.
    fn dial(&self, endpoint: &Endpoint) -> Dialing;
}

/// TCP without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, endpoint: &Endpoint) -> Dialing {
        let Endpoint { host, port, .. } = endpoint.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
#[error("no broker at {endpoint}: {cause}")]
pub struct ConnectError {
    endpoint: Endpoint,
    cause: String,
}

/// Makes connections to one broker. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    endpoint: Endpoint,
    transport: Arc<dyn Dial>,
}

impl Connector {
    /// Connects over TCP.
    pub fn tcp(endpoint: Endpoint) -> Self {
        Self::new(endpoint, Tcp)
    }

    /// Connects over a transport of the caller's.
    pub fn new(endpoint: Endpoint, transport: impl Dial) -> Self {
        Self {
            endpoint,
            transport: Arc::new(transport),
        }
    }

    /// The broker's address.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens the control connection, for sessions: small messages that must
    /// never queue behind bulk data. Tries once; see [`crate::backoff`].
    pub async fn control(&self) -> Result<Channel, ConnectError> {
        let connected = self.settings().connect_with_connector(self.service()).await;
        connected.map_err(|error| ConnectError {
            endpoint: self.endpoint.clone(),
            cause: root_cause(&error),
        })
    }

    /// The data connection, for values too large for a session. It is opened
    /// when first used, and again when it was lost.
    pub fn data(&self) -> Channel {
        self.settings().connect_with_connector_lazy(self.service())
    }

    fn settings(&self) -> TonicEndpoint {
        TonicEndpoint::from(self.endpoint.uri.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
    }

    fn service(
        &self,
    ) -> impl tower::Service<
        Uri,
        Response = TokioIo<Box<dyn Io>>,
        Error = io::Error,
        Future: Future<Output = io::Result<TokioIo<Box<dyn Io>>>> + Send,
    > + Send
    + use<> {
        let Self { endpoint, transport } = self.clone();
        tower::service_fn(move |_| {
            let dialing = transport.dial(&endpoint);
            async move { dialing.await.map(TokioIo::new) }
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.endpoint).finish()
    }
}

/// tonic says "transport error" and hides the rest in its sources.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_understood() {
        for (text, host, port, shown) in [
            ("http://127.0.0.1:7740", "127.0.0.1", 7740, "http://127.0.0.1:7740"),
            ("http://broker", "broker", DEFAULT_PORT, "http://broker:7740"),
            ("http://broker.lan:80/", "broker.lan", 80, "http://broker.lan:80"),
            ("http://[::1]:9", "::1", 9, "http://[::1]:9"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port));
            assert_eq!(endpoint.to_string(), shown);
        }
    }

    #[test]
    fn addresses_that_are_refused_say_why() {
        for (text, part) in [
            ("", "http://host:port"),
            ("127.0.0.1:7740", "http://host:port"),
            ("ftp://host", "http://host:port"),
            ("https://host", "plain http"),
            ("http://host:0", "1 to 65535"),
            ("http://host:99999", "1 to 65535"),
            ("http://host:", "port is missing"),
            ("http://host/path", "follows the port"),
            ("http://host?x=1", "follows the port"),
            ("http://me@host", "user name"),
        ] {
            let said = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(said.contains(part), "{text:?}: {said}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let said = Connector::tcp(address.parse().unwrap())
            .control()
            .await
            .unwrap_err()
            .to_string();
        assert!(said.starts_with(&format!("no broker at {address}: ")), "{said}");
        assert!(said.contains("refused"), "{said}");
    }
}
