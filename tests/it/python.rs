//! A caller in Python, which knows of asynq what reflection tells it: the page
//! that shows how, as it stands there, and a longer program on top of it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use asynq_tests::{Broker, Cluster, PATIENCE, Process, run, within};
use tempfile::TempDir;
use tokio::process::Command;

const PAGE: &str = include_str!("../../docs/guides/other-languages.md");
const PROGRAM: &str = include_str!("python/client.py");

/// A Python that has the modules: the one that is found first, or the system's.
async fn python() -> PathBuf {
    for python in ["python3", "/usr/bin/python3"] {
        let tried = Command::new(python)
            .args(["-c", "import grpc, google.protobuf"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if tried.await.is_ok_and(|status| status.success()) {
            return python.into();
        }
    }
    panic!("the tests need grpcio and protobuf for Python: apt-get install python3-grpcio python3-protobuf")
}

/// The block of the page that begins so.
fn block(info: &str) -> &'static str {
    let begin = format!("\n```{info}\n");
    let (_, rest) = PAGE.split_once(&begin).unwrap_or_else(|| panic!("no {info}"));
    rest.split_once("```").expect("a block ends").0
}

/// The files of the page, and a broker's address in place of the usual one.
fn folder(address: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("asynq_wire.py", block("python asynq_wire.py")),
        ("example.py", block("python example.py")),
        ("client.py", PROGRAM),
    ] {
        let text = text.replace("127.0.0.1:7740", address);
        std::fs::write(folder.path().join(name), text).expect("the folder can be written");
    }
    folder
}

/// Runs a file of the folder; gives what it prints.
async fn runs(folder: &TempDir, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let running = Command::new(python().await)
        .args(args)
        .current_dir(folder.path())
        .env_clear()
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = within("the end of Python", 2 * PATIENCE, running)
        .await
        .expect("it starts");
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{err}");
    String::from_utf8(ended.stdout).expect("it prints text")
}

const SERVICES: &str = "services: asynq.v1.Admin asynq.v1.Tasks asynq.v1.Workers grpc.health.v1.Health \
     grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection";
const SEEN: &str = r#"
echo: {"a": [1, "ä"]}
items: 100000
left: True
late: DEADLINE_EXCEEDED True
cancelled: 1 True
stopped: 2 True
unknown: NOT_FOUND asynq: TASK_NOT_FOUND None
waited: DEADLINE_EXCEEDED
malformed: INTERNAL asynq: MALFORMED_MESSAGE None
healthy: True
"#;

#[tokio::test]
async fn the_page_does_what_it_says() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let folder = folder(&cluster.broker.address().to_string());
    let printed = runs(&folder, ["example.py"]).await;
    let (shown, _) = block("text").split_once('…').expect("what is different each time");
    assert!(printed.starts_with(shown), "{printed}");
}

#[tokio::test]
async fn a_caller_in_python_does_all_a_caller_does() {
    let (cluster, _worker) = Cluster::with_worker(4).await;
    let address = cluster.broker.address().to_string();
    let printed = runs(&folder(&address), ["client.py", &address]).await;
    assert_eq!(printed, format!("{SERVICES}{SEEN}"));
}

#[tokio::test]
async fn a_caller_in_python_shows_its_token() {
    let secrets = tempfile::tempdir().expect("a folder");
    let at = |name: &str| secrets.path().join(name).to_str().expect("text").to_owned();
    let tokens = at("tokens.toml");
    for role in ["caller", "worker"] {
        let args = ["token", "new", role, "--role", role, "--add-to", &tokens];
        let made = run("asynqd", &args).await;
        assert_eq!(made.code, Some(0), "{}", made.err);
        std::fs::write(at(role), made.out).expect("the folder can be written");
    }
    let args = [
        "--listen",
        "127.0.0.1:0",
        "--http",
        "none",
        "--store",
        "memory",
        "--tokens",
        &tokens,
    ];
    let broker = Process::start("asynqd", args, at("asynqd.log").into()).await;
    let broker = broker.unwrap_or_else(|said| panic!("{said}"));
    let address = Broker::address_in(broker.ready());
    let (url, token) = (format!("http://{address}"), format!("@{}", at("worker")));
    let args = ["--broker", &url, "--token", &token, "--builtins", "--slots", "4"];
    let _worker = Process::start("asynq-worker", args, at("worker.log").into())
        .await
        .unwrap_or_else(|said| panic!("{said}"));

    let address = address.to_string();
    let secret = std::fs::read_to_string(at("caller")).expect("it was written");
    let printed = runs(&folder(&address), ["client.py", &address, secret.trim()]).await;
    let refused = "without a token: UNAUTHENTICATED asynq: TOKEN_MISSING None\n\
         with another: UNAUTHENTICATED asynq: TOKEN_UNKNOWN None\n";
    assert_eq!(printed, format!("{refused}{SERVICES}{SEEN}"));
}
