//! What the service manager is told, on a socket of our own.

use std::ffi::OsStr;
use std::path::PathBuf;

use asynq_tests::{Cluster, PATIENCE, Process, Signal, within};
use tokio::net::UnixDatagram;

/// The service manager.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { folder, socket }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a daemon with what systemd would tell it.
    async fn start(&self, name: &str, args: &[&str], watchdog: Option<&str>) -> Process {
        let socket = self.at("notify");
        let mut env = vec![("NOTIFY_SOCKET", socket.as_os_str())];
        env.extend(watchdog.map(|micros| ("WATCHDOG_USEC", OsStr::new(micros))));
        let started = Process::start_with_env(name, args, &env, self.at(name)).await;
        started.unwrap_or_else(|said| panic!("{name}: {said}"))
    }

    /// The next message that has a line which begins so.
    async fn told(&self, beginning: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        let telling = async {
            loop {
                let length = self.socket.recv(&mut buffer).await.unwrap();
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                let lines: Vec<_> = text.lines().map(str::to_owned).collect();
                if lines.iter().any(|line| line.starts_with(beginning)) {
                    return lines;
                }
            }
        };
        within(beginning, PATIENCE, telling).await
    }
}

fn broker_args(manager: &Manager) -> Vec<String> {
    let data = manager.at("data").to_str().unwrap().to_owned();
    ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", &data]
        .map(str::to_owned)
        .to_vec()
}

#[tokio::test]
async fn the_broker_says_when_it_serves_reloads_and_drains() {
    let manager = Manager::new();
    let args = broker_args(&manager);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut broker = manager.start("asynqd", &args, None).await;
    assert_eq!(manager.told("STATUS=").await, ["STATUS=opening the store"]);
    let ready = manager.told("READY=1").await;
    assert_eq!(ready, ["READY=1".to_owned(), format!("STATUS={}", broker.ready())]);
    broker.signal(Signal::HUP);
    let reloading = manager.told("RELOADING=1").await;
    let clock = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let micros: u64 = clock.unwrap().parse().unwrap();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
    assert!(micros <= now && now - micros < 60_000_000, "{micros} at {now}");
    let again = manager.told("READY=1").await;
    // It goes on saying where it serves.
    let serving = format!("STATUS={}; ", broker.ready());
    assert!(again[1].starts_with(&serving), "{again:?}");
    assert!(again[1].contains("no certificates or tokens"), "{again:?}");
    broker.signal(Signal::TERM);
    let stopping = manager.told("STOPPING=1").await;
    assert!(stopping[1].starts_with("STATUS=draining"), "{stopping:?}");
    assert!(broker.end(PATIENCE).await.success());
}

#[tokio::test]
async fn a_reload_that_fails_says_so_and_changes_nothing() {
    let manager = Manager::new();
    let tokens = manager.at("tokens.toml");
    std::fs::write(&tokens, "").unwrap();
    let mut args = broker_args(&manager);
    args.extend(["--tokens".to_owned(), tokens.to_str().unwrap().to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut broker = manager.start("asynqd", &args, None).await;
    manager.told("READY=1").await;
    std::fs::write(&tokens, "[[token]]\nname = 7\n").unwrap();
    broker.signal(Signal::HUP);
    let again = manager.told("READY=1").await;
    assert!(again[1].contains("; everything stays as it was: "), "{again:?}");
    broker.stop(PATIENCE).await;
}

#[tokio::test]
async fn the_watchdog_is_fed_only_if_there_is_one() {
    let manager = Manager::new();
    let args = broker_args(&manager);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut broker = manager.start("asynqd", &args, Some("300000")).await;
    for _ in 0..3 {
        manager.told("WATCHDOG=1").await;
    }
    broker.stop(PATIENCE).await;
    let mut unwatched = manager.start("asynqd", &args, None).await;
    manager.told("READY=1").await;
    unwatched.signal(Signal::TERM);
    // Between the two there is no room for another message to hide.
    let mut buffer = [0; 4096];
    let length = manager.socket.recv(&mut buffer).await.unwrap();
    assert!(buffer[..length].starts_with(b"STOPPING=1\n"));
    assert!(unwatched.end(PATIENCE).await.success());
}

#[tokio::test]
async fn the_worker_says_when_it_is_registered_and_drains_and_programs_do_not_inherit_it() {
    let cluster = Cluster::start().await;
    let manager = Manager::new();
    let file = manager.at("worker.toml");
    std::fs::write(
        &file,
        "[task.env]\nkind = \"exec\"\ncmd = [\"env\"]\nstdout = \"raw\"\n",
    )
    .unwrap();
    let (url, file) = (cluster.broker.url(), file.to_str().unwrap().to_owned());
    let args = ["--broker", &url, "--config", &file, "--slots", "1"];
    let mut worker = manager.start("asynq-worker", &args, None).await;
    assert_eq!(manager.told("STATUS=").await, ["STATUS=connecting to the broker"]);
    let ready = manager.told("READY=1").await;
    assert_eq!(ready, ["READY=1".to_owned(), format!("STATUS={}", worker.ready())]);
    let env = cluster.run(&["call", "env", "{}"]).await.out;
    assert!(
        env.contains("ASYNQ_TASK_ID=") && !env.contains("NOTIFY_SOCKET"),
        "{env}"
    );
    worker.signal(Signal::TERM);
    let stopping = manager.told("STOPPING=1").await;
    assert!(stopping[1].starts_with("STATUS=draining"), "{stopping:?}");
    assert!(worker.end(PATIENCE).await.success());
}
