//! A broker as a process, on a free port and with a data directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::wait::{PATIENCE, eventually};
use crate::{Process, Signal};

/// How long a drain of the broker may take: 10 s for connections that do not
/// end, and what a slow machine needs.
const DRAIN: Duration = Duration::from_secs(15);

/// `asynqd`, started.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    address: SocketAddr,
    http: Option<SocketAddr>,
    folder: TempDir,
    more: Vec<&'static str>,
}

impl Broker {
    /// Starts it with an empty data directory.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more arguments.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start_with(more: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the data");
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let process = start(free, folder.path(), more)
            .await
            .unwrap_or_else(|said| panic!("asynqd: {said}"));
        let http = process
            .ready()
            .split_once("(http ")
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        let http = http.and_then(|http| http.parse().ok());
        Self {
            address: Self::address_in(process.ready()),
            http,
            process,
            folder,
            more: more.to_vec(),
        }
    }

    /// The address in the ready line of a broker.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn address_in(ready: &str) -> SocketAddr {
        let address = ready
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(' ').next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("not a ready line: {ready:?}"))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers HTTP, as it was started first.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
            .unwrap_or_else(|| panic!("no HTTP in {:?}", self.process.ready()))
    }

    /// The same as an URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it keeps its tasks.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.folder.path())
    }

    /// A folder that lives as long as this broker.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process, to send signals to.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it with SIGKILL.
    pub async fn kill9(&mut self) {
        self.process.kill9().await;
    }

    /// Starts it again, after its end, on the same port and data.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn restart(&mut self) {
        let (address, folder, more) = (self.address, self.folder.path(), &self.more);
        // A connection on its way out may have got the port for its own end.
        let started = eventually("the port to be free again", PATIENCE, || async move {
            match start(address, folder, more).await {
                Ok(process) => Some(process),
                Err(said) if said.contains("cannot listen") => None,
                Err(said) => panic!("asynqd: {said}"),
            }
        });
        self.process = started.await;
    }

    /// Stops it with SIGTERM.
    ///
    /// # Panics
    /// When it does not exit with 0 within its drain deadline.
    pub async fn stop(&mut self) {
        self.process.stop(DRAIN).await;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

async fn start(address: SocketAddr, folder: &Path, more: &[&str]) -> Result<Process, String> {
    let (address, data) = (address.to_string(), data_dir(folder));
    let args = [
        "--listen".as_ref(),
        address.as_ref(),
        "--http".as_ref(),
        "127.0.0.1:0".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ];
    let args = args.into_iter().chain(more.iter().map(AsRef::as_ref));
    Process::start("asynqd", args, folder.join("asynqd.log")).await
}
