//! A TCP proxy between a broker and whoever is to lose it for a while.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::dice::Dice;

/// Bytes on their way through one direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;
/// Of a slow connection, bytes at a time, and what they take.
const SLOW_BYTES: usize = 1024;
const SLOW: Duration = Duration::from_millis(20);
/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Hands them on.
    Fair,
    /// Does this, to new connections as well.
    Struck(Fault),
}

impl Weather {
    /// Whether connections that are there, or come, are of no more use.
    const fn is_fatal(self) -> bool {
        matches!(self, Self::Struck(Fault::End | Fault::Reset | Fault::HalfOpen))
    }
}

/// What can befall connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends see them end; new ones end at once.
    End,
    /// Both ends see them reset; new ones are at once.
    Reset,
    /// They stay open and nothing passes. What was on its way arrives once it heals.
    Silence,
    /// Nothing passes any more, ever, and neither end is told; new ones end at once.
    HalfOpen,
    /// They take their time.
    Slow,
}

/// Hands bytes on to a broker, until told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    lost: AtomicU64,
}

/// What a connection is given.
#[derive(Debug, Clone)]
struct Setting {
    broker: SocketAddr,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
    /// How many answers of a thousand are lost, with their connection.
    loses: u64,
}

impl Proxy {
    /// Listens on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn to(broker: SocketAddr) -> Self {
        Self::losing(broker, 0, Dice::new(0)).await
    }

    /// The same, but of what the broker answers, so much of a thousand is lost: it resets
    /// the connection instead of handing the answer on.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn losing(broker: SocketAddr, per_mille: u64, dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (weather, seen) = watch::channel(Weather::Fair);
        let counts = Arc::new(Counts::default());
        let setting = Setting {
            broker,
            weather: seen,
            counts: counts.clone(),
            loses: per_mille,
        };
        Self {
            address,
            weather,
            counts,
            accepting: tokio::spawn(accept(listener, setting, dice)),
        }
    }

    /// Where it listens, as an URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does this to all connections, until it [heals](Self::heal).
    pub fn strike(&self, fault: Fault) {
        self.weather.send_replace(Weather::Struck(fault));
    }

    /// Breaks all connections; new ones do not come about.
    pub fn cut(&self) {
        self.strike(Fault::End);
    }

    /// Swallows everything; connections stay open, so that neither end is told.
    pub fn silence(&self) {
        self.strike(Fault::Silence);
    }

    /// Hands bytes on again. What was on its way in a silence arrives.
    pub fn heal(&self) {
        self.weather.send_replace(Weather::Fair);
    }

    /// How many connections it has taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many answers were lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, setting: Setting, mut dice: Dice) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        setting.counts.accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(relay(near, setting.clone(), dice.fork()));
    }
}

/// Why a connection is handed on no more.
enum Over {
    /// The weather.
    Struck(Fault),
    /// One of its answers is to be lost.
    AnswerLost,
    /// An end broke it, and has every right to.
    Broken,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

async fn relay(near: TcpStream, setting: Setting, dice: Dice) {
    if setting.weather.borrow().is_fatal() {
        if *setting.weather.borrow() == Weather::Struck(Fault::Reset) {
            let _ = set_socket_linger(&near, Some(Duration::ZERO));
        }
        return;
    }
    let Ok(far) = TcpStream::connect(setting.broker).await else {
        return;
    };
    // Other names of the same, to be reset by.
    let (Ok(near_end), Ok(far_end)) = (near.as_fd().try_clone_to_owned(), far.as_fd().try_clone_to_owned()) else {
        return;
    };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let mut weather = setting.weather.clone();
    let over = {
        let (asked, answered) = (
            pump(&mut near_in, &mut far_out, setting.weather.clone(), None),
            pump(
                &mut far_in,
                &mut near_out,
                setting.weather.clone(),
                Some((&setting, dice)),
            ),
        );
        let relaying = async { tokio::try_join!(asked, answered) };
        tokio::select! {
            biased;
            fault = fatal(&mut weather) => Over::Struck(fault),
            relayed = relaying => relayed.err().unwrap_or(Over::Broken),
        }
    };
    match over {
        Over::Struck(Fault::HalfOpen) => {
            // Each end is read until it gives up by itself, and told nothing before.
            tokio::join!(discard(near_in), discard(far_in));
        }
        Over::Struck(Fault::Reset) | Over::AnswerLost => {
            reset(&near_end, near_out);
            reset(&far_end, far_out);
        }
        Over::Struck(_) | Over::Broken => {}
    }
}

async fn fatal(weather: &mut watch::Receiver<Weather>) -> Fault {
    match weather.wait_for(|now| now.is_fatal()).await.as_deref() {
        Ok(Weather::Struck(fault)) => *fault,
        // The proxy is gone, and all its connections go.
        _ => Fault::End,
    }
}

/// Has the peer see a reset when the last name of the connection is closed.
fn reset(end: &OwnedFd, out: OwnedWriteHalf) {
    // One that is broken already needs none.
    let _ = set_socket_linger(end, Some(Duration::ZERO));
    // Dropped, it would say goodbye.
    out.forget();
}

async fn discard(mut from: OwnedReadHalf) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
}

/// Walks through the frames of HTTP/2, however they are cut into pieces on their way.
#[derive(Debug, Default)]
struct Frames {
    /// As much as there is of the header of the next.
    header: Vec<u8>,
    /// Bytes there are to come of this one.
    left: usize,
}

impl Frames {
    /// How many messages begin in these bytes: frames of the type DATA, each of which is
    /// one where there is one question at a time.
    fn answers_in(&mut self, mut bytes: &[u8]) -> usize {
        const HEADER: usize = 9;
        const DATA: u8 = 0;
        let mut answers = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - skipped, &bytes[skipped..]);
                continue;
            }
            let (more, rest) = bytes.split_at((HEADER - self.header.len()).min(bytes.len()));
            self.header.extend(more);
            bytes = rest;
            if let [a, b, c, kind, ..] = self.header[..]
                && self.header.len() == HEADER
            {
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                answers += usize::from(kind == DATA && self.left > 0);
                self.header.clear();
            }
        }
        answers
    }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    mut losing: Option<(&Setting, Dice)>,
) -> Result<(), Over> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut frames, mut answers) = (Frames::default(), 0);
    loop {
        let read = from.read(&mut buffer).await?;
        let passes = |now: &Weather| *now != Weather::Struck(Fault::Silence);
        let Ok(now) = weather.wait_for(passes).await.map(|now| *now) else {
            return Ok(()); // the proxy is gone
        };
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        if let Some((setting, dice)) = &mut losing {
            for _ in 0..frames.answers_in(&buffer[..read]) {
                answers += 1;
                // The first is the welcome.
                if answers > 1 && dice.chance(setting.loses) {
                    setting.counts.lost.fetch_add(1, Ordering::Relaxed);
                    return Err(Over::AnswerLost);
                }
            }
        }
        if now == Weather::Struck(Fault::Slow) {
            for part in buffer[..read].chunks(SLOW_BYTES) {
                sleep(SLOW).await;
                to.write_all(part).await?;
            }
        } else {
            to.write_all(&buffer[..read]).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(9 + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        // Settings, headers, an answer, a ping, an end without a word, two answers.
        let all = [(4, 6), (1, 30), (0, 40), (6, 8), (0, 0), (0, 1), (0, 200)];
        let bytes: Vec<u8> = all.into_iter().flat_map(|(kind, length)| frame(kind, length)).collect();
        for piece in 1..=bytes.len() {
            let mut frames = Frames::default();
            let found: usize = bytes.chunks(piece).map(|bytes| frames.answers_in(bytes)).sum();
            assert_eq!(found, 3, "in pieces of {piece}");
        }
    }
}
