//! Reaching a broker: over what transport, with which HTTP/2 settings. Clients
//! and workers connect through here and nowhere else.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Uri, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{
    body::Body,
    transport::{self, Channel, Endpoint as TonicEndpoint, channel::ResponseFuture},
};
use tower::Service;

pub use crate::endpoint::{DEFAULT_PORT, Endpoint, EndpointError};
use crate::{
    credentials::{Credentials, CredentialsError},
    limits::{CONNECT_TIMEOUT, CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
    tls::{self, TlsError, Trouble, Watched},
    token::Token,
};

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
        let (host, port) = (endpoint.host().to_owned(), endpoint.port());
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody there, or not now.
    #[error("no broker at {endpoint}: {cause}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// What the system says.
        cause: String,
    },
    /// The two ends do not get together. Trying again does not help.
    #[error("no connection to {endpoint}: {problem}")]
    Tls {
        /// Where.
        endpoint: Endpoint,
        /// What to set right.
        problem: TlsError,
    },
}

/// A connection for calls, with the token on each of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Wire {
    channel: Channel,
    token: Option<Token>,
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.header().clone());
        }
        self.channel.call(request)
    }
}

/// Makes connections to one broker. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    endpoint: Endpoint,
    transport: Arc<dyn Dial>,
    tls: Option<Arc<ClientConfig>>,
    token: Option<Token>,
    trouble: Trouble,
}

impl Connector {
    /// Connects over TCP, and over TLS where the address is `https://`.
    ///
    /// # Errors
    /// If the credentials are of no use; the message names flag or file.
    pub fn tcp(endpoint: Endpoint, credentials: &Credentials) -> Result<Self, CredentialsError> {
        Self::new(endpoint, Tcp).secured(credentials)
    }

    /// Connects over a transport of the caller's. An `https://` address wants
    /// [credentials](Self::secured), too.
    pub fn new(endpoint: Endpoint, transport: impl Dial) -> Self {
        Self {
            endpoint,
            transport: Arc::new(transport),
            tls: None,
            token: None,
            trouble: Trouble::default(),
        }
    }

    /// The same with TLS, where the address is `https://`, and with a token.
    /// Files are read once, now.
    ///
    /// # Errors
    /// If the credentials are of no use; the message names flag or file.
    pub fn secured(self, credentials: &Credentials) -> Result<Self, CredentialsError> {
        Ok(Self {
            tls: credentials.client_config(&self.endpoint)?,
            token: credentials.token.clone(),
            ..self
        })
    }

    /// The broker's address.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens the control connection, for sessions: small messages that must
    /// never queue behind bulk data. Tries once; see [`crate::backoff`].
    pub async fn control(&self) -> Result<Wire, ConnectError> {
        self.trouble.clear();
        let connected = self.settings().connect_with_connector(self.service()).await;
        let channel = connected.map_err(|error| match self.trouble() {
            Some(trouble) => trouble,
            None => ConnectError::Unreachable {
                endpoint: self.endpoint.clone(),
                cause: root_cause(&error),
            },
        })?;
        Ok(self.wire(channel))
    }

    /// The data connection, for values too large for a session. It is opened
    /// when first used, and again when it was lost.
    pub fn data(&self) -> Wire {
        self.wire(self.settings().connect_with_connector_lazy(self.service()))
    }

    /// The certificate the broker shows, in DER, asked for on a connection of its
    /// own that ends there. `None` where the address is not `https://`.
    ///
    /// # Errors
    /// If there is no connection, or either end does not trust the other.
    pub async fn certificate(&self) -> Result<Option<Vec<u8>>, ConnectError> {
        let Some(config) = self.tls.clone() else {
            return Ok(None);
        };
        self.trouble.clear();
        let shown = async {
            let io = self.transport.dial(&self.endpoint).await?;
            tls::certificate(io, &self.endpoint, config, &self.trouble).await
        };
        shown.await.map(Some).map_err(|error| match self.trouble() {
            Some(trouble) => trouble,
            None => ConnectError::Unreachable {
                endpoint: self.endpoint.clone(),
                cause: error.to_string(),
            },
        })
    }

    /// What TLS said of the last connection, if that is why it ended. A broker
    /// may refuse a certificate after [`control`](Self::control) has connected:
    /// ask here when the first call fails.
    pub fn trouble(&self) -> Option<ConnectError> {
        self.trouble.get().map(|problem| ConnectError::Tls {
            endpoint: self.endpoint.clone(),
            problem,
        })
    }

    fn wire(&self, channel: Channel) -> Wire {
        let token = self.token.clone();
        Wire { channel, token }
    }

    fn settings(&self) -> TonicEndpoint {
        TonicEndpoint::from(self.endpoint.uri().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
    }

    fn service(
        &self,
    ) -> impl Service<
        Uri,
        Response = TokioIo<Watched>,
        Error = io::Error,
        Future: Future<Output = io::Result<TokioIo<Watched>>> + Send,
    > + Send
    + use<> {
        let connector = self.clone();
        tower::service_fn(move |_| {
            let dialing = connector.transport.dial(&connector.endpoint);
            let Self {
                endpoint, tls, trouble, ..
            } = connector.clone();
            async move {
                tls::wrap(dialing.await?, &endpoint, tls, trouble)
                    .await
                    .map(TokioIo::new)
            }
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

    #[tokio::test]
    async fn a_closed_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let connector = Connector::tcp(address.parse().unwrap(), &Credentials::default()).unwrap();
        let said = connector.control().await.unwrap_err().to_string();
        assert!(said.starts_with(&format!("no broker at {address}: ")), "{said}");
        assert!(said.contains("refused"), "{said}");
    }
}
