//! One stream to the broker, from hello and welcome to its loss.

use std::sync::atomic::{AtomicU64, Ordering};

use asynq_proto::{
    Backoff, ConnectError, Connector,
    limits::MAX_MESSAGE_BYTES,
    v1::{SessionHello, SessionReply, SessionRequest, SessionWelcome, tasks_client::TasksClient},
};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    Error,
    limits::{FIRST_CONNECT, HANDSHAKE},
};

/// An open stream.
pub(super) struct Link {
    /// Holds one message: while it is full, more gathers for the next one.
    pub(super) outgoing: mpsc::Sender<SessionRequest>,
    pub(super) replies: Streaming<SessionReply>,
    pub(super) welcome: SessionWelcome,
}

/// Who says hello. What comes late on a connection of its that is not the latest, the
/// broker does not take.
pub(super) struct Me {
    id: Bytes,
    connections: AtomicU64,
}

impl Me {
    pub(super) fn new() -> Self {
        Self {
            id: Bytes::copy_from_slice(&fastrand::u128(..).to_be_bytes()),
            connections: AtomicU64::new(0),
        }
    }

    fn hello(&self) -> SessionHello {
        SessionHello {
            client: concat!("asynq-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            client_id: self.id.clone(),
            connection: self.connections.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

/// Why no stream came about.
pub(super) enum OpenError {
    /// Nobody there, or nobody who is ready yet.
    NoBroker(String),
    /// Somebody is there and will not have us; asking again does not help.
    Refused(Error),
}

impl From<ConnectError> for OpenError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unreachable { .. } => Self::NoBroker(error.to_string()),
            ConnectError::Tls { .. } => Self::Refused(error.into()),
        }
    }
}

impl Link {
    /// The first one of a client: tries for [`FIRST_CONNECT`].
    pub(super) async fn first(connector: &Connector, me: &Me) -> Result<Self, Error> {
        let (begun, mut backoff) = (Instant::now(), Backoff::reconnect());
        loop {
            let remaining = FIRST_CONNECT.saturating_sub(begun.elapsed());
            let message = match timeout(remaining, Self::open(connector, me)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(OpenError::Refused(error))) => return Err(error),
                Ok(Err(OpenError::NoBroker(message))) => message,
                Err(_) => format!(
                    "no broker at {}: it accepts connections but does not answer",
                    connector.endpoint()
                ),
            };
            let pause = backoff.pause();
            if begun.elapsed() + pause >= FIRST_CONNECT {
                return Err(Error::NoBroker {
                    message,
                    id: None,
                    indefinite: false,
                });
            }
            sleep(pause).await;
        }
    }

    /// Connects and says hello. Tries once.
    pub(super) async fn open(connector: &Connector, me: &Me) -> Result<Self, OpenError> {
        let channel = connector.control().await?;
        let mut tasks = TasksClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let welcoming = async {
            let (outgoing, requests) = mpsc::channel(1);
            let hello = SessionRequest {
                hello: Some(me.hello()),
                operations: Vec::new(),
            };
            outgoing
                .try_send(hello)
                .map_err(|_| Status::internal("the first message found no room"))?;
            let mut replies = tasks.session(ReceiverStream::new(requests)).await?.into_inner();
            let first = replies
                .message()
                .await?
                .ok_or_else(|| Status::unavailable("the broker hung up"))?;
            let welcome = first
                .welcome
                .ok_or_else(|| Status::internal("the broker did not say welcome"))?;
            Ok(Self {
                outgoing,
                replies,
                welcome,
            })
        };
        match timeout(HANDSHAKE, welcoming).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(status)) => Err(match connector.trouble() {
                Some(trouble) => trouble.into(),
                None => from_status(connector, status),
            }),
            Err(_) => Err(OpenError::NoBroker(silent(connector))),
        }
    }
}

fn silent(connector: &Connector) -> String {
    format!(
        "no broker at {}: something listens there but does not answer",
        connector.endpoint()
    )
}

fn from_status(connector: &Connector, status: Status) -> OpenError {
    let broker = connector.endpoint();
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => OpenError::Refused(status.into()),
        Code::Unimplemented => OpenError::Refused(Error::unexpected(&format!(
            "\"unimplemented\" (what listens at {broker} is no asynq broker, or too old a one)"
        ))),
        _ => OpenError::NoBroker(format!("no broker at {broker}: {}", status.message())),
    }
}
