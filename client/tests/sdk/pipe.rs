//! A fake broker at the other end of pipes within the process, for tests whose clock stands still.

use std::io;

use asynq_client::connect::{Connector, Dial, Dialing, Endpoint, Io};
use tokio::{
    io::{DuplexStream, copy_bidirectional, duplex},
    sync::{mpsc, watch},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::fake::Fake;

/// Where connections can be lost.
pub(crate) struct Pipes(watch::Sender<u32>);

impl Pipes {
    /// Loses all there are.
    pub(crate) fn lose(&self) {
        self.0.send_modify(|lost| *lost += 1);
    }
}

struct Dialer {
    accepted: mpsc::Sender<DuplexStream>,
    lost: watch::Receiver<u32>,
}

impl Dial for Dialer {
    fn dial(&self, _: &Endpoint) -> Dialing {
        let (accepted, mut lost) = (self.accepted.clone(), self.lost.clone());
        Box::pin(async move {
            let (client, mut near) = duplex(64 * 1024);
            let (mut far, server) = duplex(64 * 1024);
            lost.mark_unchanged();
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = lost.changed() => {}
                }
            });
            accepted.send(server).await.map_err(io::Error::other)?;
            Ok(Box::new(client) as Box<dyn Io>)
        })
    }
}

pub(crate) fn start() -> (Fake, Pipes, Connector) {
    let (accepted, incoming) = mpsc::channel(16);
    let (pipes, lost) = watch::channel(0);
    let endpoint: Endpoint = "http://127.0.0.1:7740".parse().unwrap();
    let fake = Fake::serve(
        ReceiverStream::new(incoming).map(Ok),
        "127.0.0.1:7740".parse().unwrap(),
        1024,
    );
    (fake, Pipes(pipes), Connector::new(endpoint, Dialer { accepted, lost }))
}
