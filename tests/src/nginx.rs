//! A web server as people run it, to have logs that it has written.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::Signal;
use crate::process::send;
use crate::wait::{PATIENCE, eventually, within};

/// Where Debian has it.
const PROGRAM: &str = "/usr/sbin/nginx";

/// nginx on a free port, with all it needs in a folder of its own: it runs as
/// whoever runs the test.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Nginx {
    /// Starts it in a folder. It answers `/` with 200, `/old` with 302, `/teapot`
    /// with 418, `/broken` with 502 and anything else with 404, and writes
    /// `access.log` and `error.log`.
    ///
    /// # Panics
    /// When it is not installed, or does not listen.
    pub async fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("html")).expect("the folder can be made");
        fs::write(folder.join("html/index.html"), "hello\n").expect("the folder can be written");
        // Somebody else may take the port before nginx does.
        eventually("a port for nginx", PATIENCE, || async {
            let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = free.local_addr().expect("it is bound");
            drop(free);
            let child = spawn(folder, address);
            let mut started = Self {
                child,
                address,
                folder: folder.to_owned(),
            };
            started.listens().await.then_some(started)
        })
        .await
    }

    /// Where it keeps its access log.
    #[must_use]
    pub fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    /// Where it keeps its error log.
    #[must_use]
    pub fn error_log(&self) -> PathBuf {
        self.folder.join("error.log")
    }

    /// Sends bytes on a connection of their own and gives the status of the
    /// answer, 0 if there is none.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn send(&self, request: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(self.address).await.expect("nginx listens");
        stream.write_all(request).await.expect("it reads");
        let mut answer = Vec::new();
        // It may close before it has read all.
        let read: io::Result<_> = within("an answer", PATIENCE, stream.read_to_end(&mut answer)).await;
        let status = read
            .ok()
            .and_then(|_| str::from_utf8(answer.get(9..12)?).ok()?.parse().ok());
        status.unwrap_or(0)
    }

    /// Ends it, which writes all that is to be logged.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(mut self) {
        send(&self.child, Signal::QUIT).expect("nginx runs");
        within("the end of nginx", PATIENCE, self.child.wait())
            .await
            .expect("it is our child");
    }

    /// Whether it listens, rather than ends because it cannot.
    async fn listens(&mut self) -> bool {
        eventually("nginx to listen or end", PATIENCE, || async {
            if TcpStream::connect(self.address).await.is_ok() {
                return Some(());
            }
            // Looked at from outside, since the closure may not wait for the child.
            let log = fs::read_to_string(self.error_log()).unwrap_or_default();
            log.contains("still could not bind").then_some(())
        })
        .await;
        self.child.try_wait().expect("it is our child").is_none()
    }
}

fn spawn(folder: &Path, address: SocketAddr) -> Child {
    let at = folder.display();
    // One process, no root, nothing outside the folder.
    let config = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log info;
        events {{ worker_connections 64; }}
        http {{
            access_log {at}/access.log combined;
            client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
            uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
            server {{
                listen {address}; root {at}/html;
                location = /old {{ return 302 /; }}
                location = /teapot {{ return 418; }}
                location = /broken {{ proxy_pass http://127.0.0.1:1; }}
            }}
        }}"
    );
    fs::write(folder.join("nginx.conf"), config).expect("the folder can be written");
    assert!(
        Path::new(PROGRAM).exists(),
        "{PROGRAM} is missing; install it first: apt-get install nginx-light (`make test` does)"
    );
    Command::new(PROGRAM)
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg(folder.join("error.log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nginx starts")
}
