//! The binary: ready line, signals, lock, bad input, and `kill -9`.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self, TaskState, operation::Op};
use bytes::Bytes;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};

struct Asynqd {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

fn asynqd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asynqd"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Asynqd {
    fn start(data_dir: &Path) -> Self {
        let mut command = asynqd(&[
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--data-dir",
            data_dir.to_str().unwrap(),
        ]);
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        let address = ready
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("{ready:?}"));
        Self {
            child,
            _stdout: stdout,
            address: address.parse().unwrap(),
        }
    }

    /// Of what is not read, no more than 64 KiB fits on the way: the default
    /// window of 2 MiB takes all answers of a test.
    async fn tasks(&self) -> TasksClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535);
        TasksClient::new(endpoint.connect().await.unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Asynqd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code and standard error of a run that is to fail.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = asynqd(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn acknowledged_tasks_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for round in 0..3 {
        let mut broker = Asynqd::start(dir.path());
        let mut tasks = broker.tasks().await;
        for _ in 0..20 {
            let request = v1::EnqueueRequest {
                name: "later".into(),
                ..Default::default()
            };
            ids.push(tasks.enqueue(request).await.unwrap().into_inner().id);
        }
        for id in &ids {
            let shown = tasks
                .show(v1::ShowRequest { id: id.clone() })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(shown.state(), TaskState::Ready, "round {round}");
        }
        broker.child.kill().unwrap();
        assert!(!broker.exit().success());
    }
}

/// The client's connection lives on another thread: this one waits for the exit.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sigterm_and_sigint_drain_and_exit_0_with_a_silent_peer() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Asynqd::start(dir.path());
        let mut tasks = broker.tasks().await;
        let request = v1::EnqueueRequest {
            name: "later".into(),
            ..Default::default()
        };
        let id = tasks.enqueue(request).await.unwrap().into_inner().id;
        let _silent = TcpStream::connect(broker.address).unwrap();
        // A hang-up changes nothing.
        broker.signal(Signal::HUP);
        tasks.show(v1::ShowRequest { id }).await.unwrap();
        let began = Instant::now();
        broker.signal(signal);
        assert_eq!(broker.exit().code(), Some(0));
        assert!(began.elapsed() < asynqd::limits::DRAIN_TIMEOUT + Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Asynqd::start(dir.path());
    let mut tasks = broker.tasks().await;
    let request = v1::EnqueueRequest {
        name: "later".into(),
        ..Default::default()
    };
    let id = tasks.enqueue(request).await.unwrap().into_inner().id;
    // A session that leaves its answers unread cannot be ended in good order.
    let show = |call| {
        let op = Some(Op::Show(v1::ShowRequest { id: id.clone() }));
        v1::Operation { call, op }
    };
    // Another id, to see when all of it has been gone through.
    let mut last = id.to_vec();
    last[15] ^= 1;
    let last = Bytes::from(last);
    let enqueue = v1::EnqueueRequest {
        id: last.clone(),
        name: "last".into(),
        first_send: true,
        ..Default::default()
    };
    let enqueue = v1::Operation {
        call: 10_000,
        op: Some(Op::Enqueue(enqueue)),
    };
    let operations = (0..10_000).map(show).chain([enqueue]).collect();
    let first = v1::SessionRequest {
        hello: Some(v1::SessionHello::default()),
        operations,
    };
    let requests = tokio_stream::once(first).chain(tokio_stream::pending());
    let _unread = tasks.session(requests).await.unwrap();
    let began = Instant::now();
    while tasks.show(v1::ShowRequest { id: last.clone() }).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the session is not read");
    }
    broker.signal(Signal::TERM);
    let began = Instant::now();
    while TcpStream::connect(broker.address).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "it goes on accepting");
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.child.try_wait().unwrap(), None, "it drains");
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit().code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_second_broker_on_a_data_directory_exits_1_naming_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let first = Asynqd::start(dir.path());
    let (code, stderr) = refused(&["--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let holder = format!("pid {}, listening on {}", first.child.id(), first.address);
    assert!(stderr.contains(&holder), "{stderr}");
}

#[test]
fn bad_input_exits_2_naming_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "tapes = 2\n").unwrap();
    for (args, part) in [
        (&["--tapes", "2"][..], "--tapes"),
        (&["--store", "tape"], "tape"),
        (&["--listen", "7740"], "7740"),
        (&["--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (&["--config", file.path().to_str().unwrap()], "tapes"),
    ] {
        let (code, stderr) = refused(args);
        assert!(code == Some(2) && stderr.contains(part), "{args:?}: {code:?} {stderr}");
    }
}

#[test]
fn an_address_in_use_exits_1_naming_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stderr) = refused(&["--store", "memory", "--listen", &address]);
    assert!(code == Some(1) && stderr.contains(&address), "{code:?} {stderr}");
}

#[tokio::test]
async fn running_out_of_descriptors_passes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Asynqd::start(dir.path());
    let open = std::fs::read_dir(format!("/proc/{}/fd", broker.child.id()))
        .unwrap()
        .count() as u64;
    let limit = Rlimit {
        current: Some(open + 4),
        maximum: Some(open + 4),
    };
    prlimit(Some(Pid::from_child(&broker.child)), Resource::Nofile, limit).unwrap();
    let crowd: Vec<_> = (0..20).map(|_| TcpStream::connect(broker.address).unwrap()).collect();
    drop(crowd);
    let request = v1::EnqueueRequest {
        name: "later".into(),
        ..Default::default()
    };
    broker.tasks().await.enqueue(request).await.unwrap();
}

#[test]
fn logs_go_to_standard_error_as_json_lines_if_asked() {
    let mut command = asynqd(&[
        "--store",
        "memory",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "none",
        "--log",
        "json",
    ]);
    let mut child = command.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut ready)
        .unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let mut log = String::new();
    child.stderr.unwrap().read_to_string(&mut log).unwrap();
    assert!(
        log.lines().count() > 0 && log.lines().all(|line| line.starts_with('{') && line.ends_with('}')),
        "{log}"
    );
}
