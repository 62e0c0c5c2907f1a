//! A peer to compare with: Redis, two lists, pipelines of 100. The caller pushes
//! tasks on one list and pops results from the other; a worker, a process of its
//! own, pops tasks and pushes results. Each push is a command of its own, as
//! programs that do not know of one another would send them; pops take up to 100
//! at a time. With `appendfsync always` what is acknowledged survives a power
//! cut, but a task that was popped is lost with its worker.
//!
//! The protocol is spoken by hand: pipelines of strings are a page of code, and
//! a client library would cost the peer processor time that is not its own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use asynq_tests::Process;

use crate::{Figure, cpu};

/// The argument that makes this program the worker.
pub(crate) const WORK: &str = "work-for-redis";
/// Commands in a pipeline, and values a pop takes at most.
pub(crate) const BATCH: usize = 100;
const TASKS: &str = "tasks";
const RESULTS: &str = "results";
/// For the server to listen.
const READY: Duration = Duration::from_secs(10);

/// When the server writes its log to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Before each answer.
    Always,
    /// Never: there is no log.
    Memory,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Always => "redis lists, AOF always",
            Self::Memory => "redis lists, memory",
        }
    }
}

pub(crate) struct Redis {
    kind: Kind,
    connection: Connection,
    address: SocketAddr,
    pids: [u32; 2],
    server: Child,
    _worker: Process,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts a server and a worker; why not, where there is no Redis.
    pub(crate) async fn start(kind: Kind) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder");
        // Redis cannot be asked for a free port; this one was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a free port");
        let (log, sync) = match kind {
            Kind::Always => ("yes", "always"),
            Kind::Memory => ("no", "no"),
        };
        let mut server = Command::new("redis-server");
        server.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
        server.args(["--appendonly", log, "--appendfsync", sync, "--save", ""]);
        server.arg("--dir").arg(folder.path());
        server.stdout(Stdio::null());
        let server = server.spawn().map_err(|error| format!("redis-server: {error}"))?;
        let begun = Instant::now();
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) if begun.elapsed() > READY => return Err(format!("redis-server: {error}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let me = std::env::current_exe().expect("a running program has a path");
        let args = [WORK, &address.to_string()];
        let worker = Process::start_at(&me, args, folder.path().join("worker.log")).await;
        let worker = worker.unwrap_or_else(|said| panic!("the worker of redis: {said}"));
        Ok(Self {
            kind,
            connection: Connection::new(stream),
            address,
            pids: [server.id(), worker.pid()],
            server,
            _worker: worker,
            folder,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Tasks there and results back, so many of them unanswered.
    pub(crate) fn load(&mut self, tasks: usize, in_flight: usize, payload: &[u8]) -> Figure {
        let used = |pids: &[u32]| pids.iter().map(|pid| cpu::used(*pid)).sum::<Duration>();
        let pids = [self.pids[0], self.pids[1], std::process::id()];
        let (cpu, begun) = (used(&pids), Instant::now());
        let (mut sent, mut done) = (0, 0);
        let mut took = Vec::new();
        let mut sent_at = VecDeque::new();
        while done < tasks {
            let mut pushes = 0;
            while sent < tasks && sent - done + BATCH <= in_flight {
                for _ in 0..BATCH {
                    self.connection.command(&push(TASKS, payload));
                }
                sent_at.push_back(Instant::now());
                sent += BATCH;
                pushes += BATCH;
            }
            self.connection.command(&pop(RESULTS));
            self.connection.flush();
            for _ in 0..pushes {
                self.connection.answer();
            }
            let before = done / BATCH;
            done += self.connection.answer();
            // Results come back in the order of their tasks.
            let batches = done / BATCH - before;
            took.extend(sent_at.drain(..batches).map(|at| at.elapsed()));
        }
        assert_eq!(done, tasks, "each task has one result");
        let (elapsed, cpu) = (begun.elapsed(), used(&pids).saturating_sub(cpu));
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        Figure {
            per_second: tasks as f64 / elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / tasks as f64,
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Pops tasks and pushes results until the server goes.
pub(crate) fn work(address: &str) {
    let mut connection = Connection::new(TcpStream::connect(address).expect("redis listens"));
    println!("working");
    loop {
        connection.command(&pop(TASKS));
        connection.flush();
        let values = connection.values();
        for value in &values {
            connection.command(&push(RESULTS, value));
        }
        connection.flush();
        for _ in &values {
            connection.answer();
        }
    }
}

fn push<'a>(list: &'a str, value: &'a [u8]) -> [&'a [u8]; 3] {
    [b"RPUSH", list.as_bytes(), value]
}

/// Waits for some, takes up to a batch.
fn pop(list: &str) -> [&[u8]; 7] {
    [b"BLMPOP", b"0", b"1", list.as_bytes(), b"LEFT", b"COUNT", b"100"]
}

/// A connection that speaks RESP, as far as lists need it.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    outgoing: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP stream");
        Self {
            reader: BufReader::with_capacity(256 * 1024, stream),
            outgoing: Vec::new(),
        }
    }

    pub(crate) fn command(&mut self, words: &[&[u8]]) {
        let out = &mut self.outgoing;
        write!(out, "*{}\r\n", words.len()).expect("memory");
        for word in words {
            write!(out, "${}\r\n", word.len()).expect("memory");
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
    }

    pub(crate) fn flush(&mut self) {
        // A server that has ended ends this process too.
        let sent = self.reader.get_mut().write_all(&self.outgoing);
        self.outgoing.clear();
        if sent.is_err() {
            std::process::exit(0);
        }
    }

    /// A number, or the length of what was popped.
    pub(crate) fn answer(&mut self) -> usize {
        match self.head() {
            (b':', number) => number,
            (b'*', 2) => self.popped(|_| ()).len(),
            (kind, number) => panic!("redis answers {}{number}", char::from(kind)),
        }
    }

    /// What was popped.
    fn values(&mut self) -> Vec<Vec<u8>> {
        match self.head() {
            (b'*', 2) => self.popped(<[u8]>::to_vec),
            (kind, number) => panic!("redis answers {}{number}", char::from(kind)),
        }
    }

    /// The name of the list, and the values.
    fn popped<T>(&mut self, keep: impl Fn(&[u8]) -> T) -> Vec<T> {
        let mut value = Vec::new();
        self.bulk(&mut value);
        let (_, count) = self.head();
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            self.bulk(&mut value);
            values.push(keep(&value));
        }
        values
    }

    pub(crate) fn bulk(&mut self, value: &mut Vec<u8>) {
        let (_, length) = self.head();
        value.resize(length + 2, 0);
        self.reader.read_exact(value).expect("redis answers");
        value.truncate(length);
    }

    /// So many answers in one.
    pub(crate) fn array(&mut self, of: usize) {
        let (kind, length) = self.head();
        assert_eq!((char::from(kind), length), ('*', of), "redis answers otherwise");
    }

    /// The kind of what follows, and its number.
    pub(crate) fn head(&mut self) -> (u8, usize) {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            std::process::exit(0);
        }
        let number = std::str::from_utf8(&line[1..]).map(str::trim).ok();
        match number.and_then(|number| number.parse().ok()) {
            Some(number) => (line[0], number),
            None => panic!("redis answers {}", String::from_utf8_lossy(&line).trim()),
        }
    }
}
