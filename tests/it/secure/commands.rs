//! The commands that make certificates and tokens, and the guide that tells of them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use asynq_tests::{PATIENCE, Process, program, run, within};
use tokio::process::Command;

use super::{ok, path};

#[tokio::test]
async fn certificates_are_made_once_and_keys_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let certs = path(folder.path(), "a/certs");
    let args = [
        "tls",
        "init",
        &certs,
        "--name",
        "broker.example.org",
        "--name",
        "192.0.2.7",
        "--days",
        "30",
    ];
    let said = ok("asynqd", &args).await;
    for part in [
        "good until 20",
        "ca.key",
        "broker.example.org 192.0.2.7",
        "--client-ca",
        "asynq-worker --broker https://",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let content = |name: &str| std::fs::read(path(folder.path(), &format!("a/certs/{name}"))).unwrap();
    let key = content("server.key");
    for name in ["ca", "server", "worker", "caller"] {
        let file: PathBuf = path(folder.path(), &format!("a/certs/{name}.key")).into();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let again = run("asynqd", &args).await;
    assert_eq!((again.code, again.out.as_str()), (Some(1), ""));
    assert!(
        again.err.contains("exists already: nothing was written"),
        "{}",
        again.err
    );
    assert_eq!(content("server.key"), key);

    for (args, code, said) in [
        (&["tls", "init", "/proc/no/such"][..], 1, "/proc/no/such"),
        (&["tls", "init", &certs, "--name", "a b"], 2, "'a b'"),
        (&["tls", "init", &certs, "--days", "0"], 2, "'0'"),
        (&["token", "new", "a b", "--role", "caller"], 1, "\"a b\""),
        (&["token", "new", "a", "--role", "root"], 2, "'root'"),
        (&["token", "new", "a"], 2, "--role"),
        (
            &["token", "new", "a", "--role", "caller", "--namespace", "n"],
            1,
            "not supported yet",
        ),
        (
            &["--listen", "0.0.0.0:0", "--store", "memory"],
            2,
            "asynqd tls init DIR",
        ),
        (
            &["--store", "memory", "--tls-cert", "c"],
            2,
            "--tls-cert needs --tls-key",
        ),
        (
            &["--tokens", "/no/such/tokens", "--store", "memory"],
            1,
            "/no/such/tokens",
        ),
        (
            &["--tls-cert", "/no/c", "--tls-key", "/no/k", "--store", "memory"],
            1,
            "cannot use /no/c as",
        ),
    ] {
        let ended = run("asynqd", args).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(code), ""),
            "{args:?}: {}",
            ended.err
        );
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
    // Without a file to add to: the table, and the secret as the last line.
    let said = ok(
        "asynqd",
        &["token", "new", "ops", "--role", "admin", "--role", "caller"],
    )
    .await;
    assert!(
        said.contains("[[token]]\nname = \"ops\"\nsha256 = \"") && said.contains("roles = [\"admin\", \"caller\"]")
    );
    let secret = said.lines().last().unwrap();
    assert!(secret.starts_with("asynq_") && secret.len() == 6 + 64, "{said}");
    assert_eq!(said.matches(secret).count(), 1);
}

#[tokio::test]
async fn a_broker_that_is_told_to_be_insecure_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let args = [
        "--listen",
        "0.0.0.0:0",
        "--http",
        "none",
        "--store",
        "memory",
        "--insecure",
    ];
    let mut broker = Process::start("asynqd", args, log.clone()).await.unwrap();
    let url = broker.ready().replace("listening on 0.0.0.0", "http://127.0.0.1");
    assert_eq!(
        ok("asynq", &["--broker", &url, "queue", "ls", "-o", "json"]).await,
        "[]\n"
    );
    let https = url.replace("http://127.0.0.1", "https://127.0.0.1");
    ok("asynqd", &["tls", "init", &path(folder.path(), "certs")]).await;
    let ca = path(folder.path(), "certs/ca.pem");
    let ended = run("asynq", &["--broker", &https, "--ca", &ca, "queue", "ls"]).await;
    assert_eq!(ended.code, Some(3));
    assert!(
        ended.err.contains("does not speak TLS: start it with --tls-cert"),
        "{}",
        ended.err
    );
    broker.stop(PATIENCE).await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("--insecure: listening beyond this machine"), "{log}");
    assert!(log.contains("it speaks TLS, which this port does not"), "{log}");
}

/// A port that nobody is given by chance: below those the system hands out.
fn free_port() -> u16 {
    let offset = std::process::id() % 10_000;
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    (20_000..)
        .map(|port| port + u16::try_from(offset).unwrap())
        .find(free)
        .unwrap()
}

#[tokio::test]
async fn the_guide_does_what_it_says() {
    let guide = include_str!("../../../docs/guides/security.md");
    let blocks = guide
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap());
    let commands: Vec<&str> = blocks.collect();
    assert!(commands.len() >= 5, "{commands:?}");
    let script = format!(
        "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n{}\n",
        commands.join("\n").replace("7740", &free_port().to_string())
    );
    let folder = tempfile::tempdir().unwrap();
    let programs = program("asynqd").parent().unwrap().to_str().unwrap().to_owned();
    let running = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env_clear()
        .env("HOME", folder.path())
        .env("ASYNQ_HTTP", "127.0.0.1:0")
        .env("PATH", programs + ":/usr/bin:/bin")
        .stdin(Stdio::null())
        .output();
    let output = within("the commands of the guide", 2 * PATIENCE, running)
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.ends_with("{\"hello\":\"there\"}\n"), "{out}\n{said}");
}
