//! The data connection, on a thread of its own: streams of items, and values
//! too large for the session.
//!
//! It shares no thread with the session, so that no amount of items delays a
//! heartbeat, and none with handlers: one that blocks its runtime for seconds
//! would otherwise leave the connection's keepalive unanswered, and the streams
//! of all others would break with it.

use std::io;
use std::thread;

use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::{Connector, Wire};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// A client whose messages may be as large as the wire allows.
pub(crate) fn client(channel: Wire) -> WorkersClient<Wire> {
    WorkersClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The connection and its thread, which ends when this is dropped.
pub(crate) struct Data {
    line: Line,
    _end: DropGuard,
}

/// The use of the connection.
#[derive(Clone)]
pub(crate) struct Line {
    runtime: Handle,
    client: WorkersClient<Wire>,
}

impl Data {
    /// Starts the thread. The connection is opened when first used.
    pub(crate) fn start(connector: &Connector) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let channel = {
            let _entered = handle.enter();
            connector.data()
        };
        let end = CancellationToken::new();
        let ended = end.clone();
        thread::Builder::new().name("asynq-data".into()).spawn(move || {
            runtime.block_on(ended.cancelled());
            // A name server that does not answer must not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            line: Line {
                runtime: handle,
                client: client(channel),
            },
            _end: end.drop_guard(),
        })
    }

    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }
}

impl Line {
    pub(crate) fn client(&self) -> WorkersClient<Wire> {
        self.client.clone()
    }

    /// Runs `work` on the connection's thread, for as long as the handle lives.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.runtime.spawn(work))
    }
}
