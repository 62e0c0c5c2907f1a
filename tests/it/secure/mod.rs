//! The wire secured: certificates and tokens on every connection of every
//! program, and what those read who are refused.

mod commands;
mod doctor;
mod refused;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use asynq_client::{Client, ClientBuilder, Error, Refusal};
use asynq_tests::{Ended, PATIENCE, Process, Signal, eventually, run};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A broker that asks for certificates and tokens, on all addresses.
struct Secured {
    folder: TempDir,
    broker: Process,
    port: u16,
}

impl Secured {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| path(folder.path(), name);
        ok("asynqd", &["tls", "init", &at("certs")]).await;
        for (name, roles) in [
            ("caller", &["caller"][..]),
            ("worker", &["worker"]),
            ("both", &["worker", "caller"]),
        ] {
            let file = at("tokens.toml");
            let mut args = vec!["token", "new", name, "--add-to", &file];
            args.extend(roles.iter().flat_map(|role| ["--role", role]));
            std::fs::write(at(name), ok("asynqd", &args).await).unwrap();
        }
        let mut args = vec![
            "--listen".to_owned(),
            "0.0.0.0:0".into(),
            "--http".into(),
            "none".into(),
            "--data-dir".into(),
            at("data"),
        ];
        for (flag, file) in [
            ("--tls-cert", "certs/server.pem"),
            ("--tls-key", "certs/server.key"),
            ("--client-ca", "certs/ca.pem"),
            ("--tokens", "tokens.toml"),
        ] {
            args.extend([flag.to_owned(), at(file)]);
        }
        let broker = Process::start("asynqd", args, at("asynqd.log").into()).await.unwrap();
        let port = broker.ready().rsplit(':').next().and_then(|port| port.parse().ok());
        Self {
            port: port.unwrap_or_else(|| panic!("{:?}", broker.ready())),
            broker,
            folder,
        }
    }

    fn at(&self, name: &str) -> String {
        path(self.folder.path(), name)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Flags that let `who` in.
    fn flags(&self, who: &str) -> Vec<String> {
        let (cert, key) = (format!("certs/{who}.pem"), format!("certs/{who}.key"));
        let mut flags = vec!["--broker".to_owned(), self.url()];
        for (flag, file) in [("--ca", "certs/ca.pem"), ("--cert", &cert), ("--tls-key", &key)] {
            flags.extend([flag.to_owned(), self.at(file)]);
        }
        flags.extend(["--token".to_owned(), format!("@{}", self.at(who))]);
        flags
    }

    async fn asynq(&self, flags: &[String], command: &[&str]) -> Ended {
        let args: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .chain(command.iter().copied())
            .collect();
        run("asynq", &args).await
    }

    async fn worker(&self) -> Process {
        let mut args = self.flags("worker");
        args.push("--builtins".into());
        let started = Process::start("asynq-worker", args, self.at("worker.log").into()).await;
        started.unwrap_or_else(|said| panic!("{said}"))
    }

    fn client(&self) -> ClientBuilder {
        Client::builder(&self.url())
            .ca(self.at("certs/ca.pem"))
            .cert(self.at("certs/caller.pem"), self.at("certs/caller.key"))
            .token(&format!("@{}", self.at("caller")))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("asynqd.log")).unwrap()
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// Runs what must go well; gives its output.
async fn ok(name: &str, args: &[&str]) -> String {
    let ended = run(name, args).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{name} {args:?}");
    ended.out
}

/// The flags with one of them changed, or without it.
fn with(flags: &[String], flag: &str, value: Option<&str>) -> Vec<String> {
    let at = flags.iter().position(|given| given == flag).unwrap();
    let mut flags = flags.to_vec();
    match value {
        Some(value) => flags[at + 1] = value.to_owned(),
        None => drop(flags.drain(at..at + 2)),
    }
    flags
}

#[tokio::test]
async fn everything_goes_round_over_connections_that_are_all_secured() {
    let secured = Secured::start().await;
    let mut worker = secured.worker().await;
    assert_eq!(worker.ready(), format!("registered 7 tasks with {}", secured.url()));
    let flags = secured.flags("caller");
    assert_eq!(secured.asynq(&flags, &["call", "echo", "[1]"]).await.out, "[1]\n");
    // Both data connections.
    let large = format!("\"{}\"", "x".repeat(3_000_000));
    std::fs::write(secured.at("large"), &large).unwrap();
    let called = secured
        .asynq(&flags, &["call", "echo", &format!("@{}", secured.at("large"))])
        .await;
    assert!(called.code == Some(0) && called.out == large + "\n", "{}", called.err);
    let counted = secured.asynq(&flags, &["iterate", "count", r#"{"n":10000}"#]).await;
    assert_eq!(
        (counted.code, counted.out.lines().count()),
        (Some(0), 10_000),
        "{}",
        counted.err
    );

    let client = secured.client();
    assert!(!format!("{client:?}").contains("asynq_"), "{client:?}");
    let client = client.connect().await.unwrap();
    assert_eq!(client.workers().await.unwrap().len(), 1);

    // Nobody could have come in clear: the port does not speak it.
    let plain = Client::connect(&format!("http://127.0.0.1:{}", secured.port)).await;
    assert!(
        matches!(&plain, Err(Error::Tls { message }) if message.contains("https://")),
        "{plain:?}"
    );
    let none = Client::builder(&secured.url())
        .ca(secured.at("certs/ca.pem"))
        .connect()
        .await;
    let kind = |error: &Error| {
        matches!(
            error,
            Error::Refused {
                kind: Refusal::PermissionDenied,
                ..
            }
        )
    };
    assert!(none.as_ref().is_err_and(kind), "{none:?}");
    drop(client);
    worker.stop(PATIENCE).await;
    for (log, role) in [
        ("asynqd.log", "caller"),
        ("asynqd.log", "worker"),
        ("worker.log", "worker"),
    ] {
        let secret = std::fs::read_to_string(secured.at(role)).unwrap();
        let log = std::fs::read_to_string(secured.at(log)).unwrap();
        assert!(!log.contains(secret.trim()), "a secret is in the log: {log}");
    }
}

#[tokio::test]
async fn a_hangup_reads_tokens_and_certificates_again() {
    let secured = Secured::start().await;
    let _worker = secured.worker().await;
    let flags = secured.flags("caller");
    let call = async || secured.asynq(&flags, &["call", "echo", "1"]).await;
    assert_eq!(call().await.code, Some(0));

    let tokens = std::fs::read_to_string(secured.at("tokens.toml")).unwrap();
    std::fs::write(secured.at("tokens.toml"), "[[token]]\nsecret = \"hunter2\"\n").unwrap();
    secured.broker.signal(Signal::HUP);
    let complaint = || async { secured.log().contains("everything stays as it was").then_some(()) };
    eventually("the broken file to be refused", PATIENCE, complaint).await;
    let log = secured.log();
    assert!(!log.contains("chmod"), "{log}");
    assert!(log.contains("tokens.toml, line 2") && !log.contains("hunter2"), "{log}");
    assert_eq!(call().await.code, Some(0), "the old tokens count");

    // The worker's is left.
    let second = tokens.rfind("[[token]]").unwrap();
    std::fs::write(secured.at("tokens.toml"), &tokens[second..]).unwrap();
    secured.broker.signal(Signal::HUP);
    eventually("the token to be unknown", PATIENCE, || async {
        let ended = call().await;
        (ended.code == Some(6) && ended.err.contains("TOKEN_UNKNOWN")).then_some(())
    })
    .await;
    std::fs::write(secured.at("tokens.toml"), &tokens).unwrap();
    let mode = |mode| std::fs::set_permissions(secured.at("tokens.toml"), PermissionsExt::from_mode(mode));
    mode(0o604).unwrap();
    secured.broker.signal(Signal::HUP);
    eventually("the token to be known again", PATIENCE, || async {
        (call().await.code == Some(0)).then_some(())
    })
    .await;
    let log = secured.log();
    assert!(log.contains("tokens.toml") && log.contains("chmod o= it"), "{log}");

    ok("asynqd", &["tls", "init", &secured.at("renewed")]).await;
    for file in ["server.pem", "server.key"] {
        std::fs::copy(
            secured.at("renewed").to_owned() + "/" + file,
            secured.at("certs/").to_owned() + file,
        )
        .unwrap();
    }
    secured.broker.signal(Signal::HUP);
    let renewed = with(&flags, "--ca", Some(&secured.at("renewed/ca.pem")));
    eventually("the new certificate", PATIENCE, || async {
        let ended = secured.asynq(&renewed, &["call", "echo", "1"]).await;
        // The worker has not noticed: its connection goes on.
        (ended.code == Some(0)).then_some(())
    })
    .await;
    assert_eq!(call().await.code, Some(3), "the old CA does not do any more");
}

#[tokio::test]
async fn peers_that_stopped_in_the_middle_of_tls_do_not_hold_up_the_drain() {
    let mut secured = Secured::start().await;
    let mut silent = Vec::new();
    // Nothing; the beginning of a record; a whole record with half a hello.
    for beginning in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x00\x04\x01\x00\x02\x00"] {
        let mut peer = TcpStream::connect(("127.0.0.1", secured.port)).await.unwrap();
        peer.write_all(beginning).await.unwrap();
        silent.push(peer);
    }
    // After those above were accepted.
    let listed = secured.asynq(&secured.flags("caller"), &["queue", "ls"]).await;
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let asked = Instant::now();
    secured.broker.stop(PATIENCE).await;
    let took = asked.elapsed();
    println!("with 3 peers silent in the middle of TLS: drained in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
