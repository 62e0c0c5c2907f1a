//! A TCP proxy between a broker and whoever is to lose it for a while.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes on their way through one direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Hands them on.
    Fair,
    /// Breaks every connection, new ones at once.
    Cut,
    /// Keeps connections open and hands nothing on.
    Silent,
}

/// Hands bytes on to a broker, until told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (weather, seen) = watch::channel(Weather::Fair);
        Self {
            address,
            weather,
            accepting: tokio::spawn(accept(listener, broker, seen)),
        }
    }

    /// Where it listens, as an URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks all connections; new ones do not come about.
    pub fn cut(&self) {
        self.weather.send_replace(Weather::Cut);
    }

    /// Swallows everything; connections stay open, so that neither end is told.
    pub fn silence(&self) {
        self.weather.send_replace(Weather::Silent);
    }

    /// Hands bytes on again. What was on its way in a silence arrives.
    pub fn heal(&self) {
        self.weather.send_replace(Weather::Fair);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, broker: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(relay(near, broker, weather.clone()));
    }
}

async fn relay(near: TcpStream, broker: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut cut = weather.clone();
    let relaying = async {
        let far = TcpStream::connect(broker).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::try_join!(
            pump(near_in, far_out, weather.clone()),
            pump(far_in, near_out, weather.clone())
        )
    };
    tokio::select! {
        biased;
        _ = cut.wait_for(|now| *now == Weather::Cut) => {}
        // An end that breaks its connection has every right to.
        _ = relaying => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if weather.wait_for(|now| *now != Weather::Silent).await.is_err() {
            return Ok(()); // the proxy is gone
        }
        match read {
            0 => return to.shutdown().await,
            read => to.write_all(&buffer[..read]).await?,
        }
    }
}
