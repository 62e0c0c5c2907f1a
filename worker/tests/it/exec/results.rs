//! What programs are given, and results they give.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use asynq_proto::v1::Assignment;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::{Daemon, shell};
use crate::broker::{assignment, token};

#[tokio::test]
async fn tasks_are_declared_as_the_file_says() {
    let tasks = [
        shell("plain", "timeout = \"5m\"\nmax_attempts = 3", "true"),
        shell("lines", "stdout = \"lines\"\non_loss = \"fail\"", "true"),
        shell("\"a.b\"", "stdout = \"jsonl\"", "true"),
        shell("raw", "stdout = \"raw\"", "true"),
    ];
    let daemon = Daemon::start(&tasks.concat()).await;
    let declared = |name: &str| daemon.link.hello.tasks.iter().find(|task| task.name == name).unwrap();
    assert_eq!(daemon.link.hello.slots, 4);
    assert_eq!(
        (declared("plain").timeout_ms, declared("plain").max_attempts),
        (300_000, 3)
    );
    assert_eq!((declared("raw").timeout_ms, declared("raw").max_attempts), (0, 0));
    let iterators = ["plain", "lines", "a.b", "raw"].map(|name| declared(name).iterator);
    assert_eq!(iterators, [false, true, true, false]);
}

#[tokio::test]
async fn a_result_is_json_or_bytes() {
    let tasks = [
        shell("json", "", r#"echo ' {"a" : 1.50} '; echo noise >&2"#),
        shell("raw", "stdout = \"raw\"", r"printf '\000\377\n'"),
        shell("nothing", "stdout = \"raw\"", ":"),
        shell("cat", "stdin = \"json\"", "cat"),
        shell("deaf", "stdin = \"json\"", "exec <&-; echo 1"),
        shell("none", "stdout = \"raw\"", "cat; echo end"),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    assert_eq!(daemon.result(1, "json", "null").await, br#"{"a" : 1.50}"#);
    let said = daemon.run(2, "raw", "null").await;
    let result = said.completions[0].result.as_ref().unwrap();
    assert_eq!(result.content_type, "application/octet-stream");
    assert_eq!(result.data, &b"\0\xff\n"[..]);
    assert_eq!(daemon.result(3, "nothing", "null").await, b"");
    let args = r#"{"b" : 1e400, "a":"\u00e4"}"#;
    assert_eq!(daemon.result(4, "cat", args).await, args.as_bytes());
    // More than a pipe holds, to a program that does not read.
    let large = format!("\"{}\"", "x".repeat(60_000));
    assert_eq!(daemon.result(5, "deaf", &large).await, b"1");
    assert_eq!(daemon.result(6, "none", "7").await, b"end\n");
}

/// More than the pipe holds goes in and comes out at the same time.
#[tokio::test]
async fn large_values_go_through_both_pipes() {
    let daemon = Daemon::start(&shell("cat", "stdin = \"json\"", "cat")).await;
    let large = format!("\"{}\"", "x".repeat(3_000_000));
    let payload = asynq_proto::v1::Payload {
        content_type: String::new(),
        data: large.clone().into(),
    };
    let id = token(1).task_id;
    daemon.broker.bulk.arguments.lock().unwrap().insert(id, payload);
    let assignment = Assignment {
        payload: None,
        fetch_payload: true,
        ..assignment(1, "cat", "")
    };
    daemon.link.assign(assignment).await;
    let bulk = daemon.broker.bulk.clone();
    crate::broker::until(|| !bulk.results.lock().unwrap().is_empty()).await;
    let results = bulk.results.lock().unwrap();
    assert!(results[0].result.as_ref().unwrap().data == large.as_bytes());
}

#[tokio::test]
async fn injections_reach_the_program_byte_for_byte() {
    let tasks = "[task.args]\nkind = \"exec\"\nstdout = \"raw\"\n\
        cmd = [\"printf\", '%s\\0', \"{a}\", \"x{a}y\", \"{}\", \"{n}\", \"{{a}}\"]\n";
    let mut daemon = Daemon::start(tasks).await;
    for (n, nasty) in (1..).zip([
        "plain",
        "",
        "a b\tc\nd",
        "$(touch owned) `touch owned` ; touch owned & | > owned",
        "'\"\\'\\\"",
        "{n} {} {{ }} {a}",
        "--help",
        "%s%n%x",
        "*?[a-z]~",
        "\u{1}\u{7f}\u{fffd}ä€😀\u{202e}",
        "\r\n.\r\n",
        "../../etc/passwd",
    ]) {
        let args = serde_json::json!({ "a": nasty, "n": [1, { "b": nasty }] });
        let got = daemon.result(n, "args", &args.to_string()).await;
        let got: Vec<&str> = std::str::from_utf8(&got).unwrap().split_terminator('\0').collect();
        let expected = [
            nasty.to_owned(),
            format!("x{nasty}y"),
            args.to_string(),
            args["n"].to_string(),
            "{a}".to_owned(),
        ];
        assert_eq!(got, expected);
    }
    assert!(!daemon.path("owned").exists());
    let refused = daemon.failure(100, "args", r#"{"a":"x\u0000y","n":1}"#).await;
    assert_eq!((refused.kind.as_str(), refused.retryable), ("rejected", false));
    assert!(refused.message.contains("\"a\" holds a NUL"), "{}", refused.message);
    let refused = daemon.failure(101, "args", r#"{"a":"x"}"#).await;
    assert!(refused.message.contains("no member \"n\""), "{}", refused.message);
    let refused = daemon.failure(102, "args", r#""x""#).await;
    assert_eq!(refused.kind, "rejected");
}

#[tokio::test]
async fn any_string_reaches_the_program_byte_for_byte() {
    let tasks = "[task.args]\nkind = \"exec\"\nstdout = \"raw\"\n\
        cmd = [\"printf\", '%s\\0%s\\0', \"{a}\", \"<{b.c}>{}\"]\n";
    let mut daemon = Daemon::start(tasks).await;
    let mut runner = TestRunner::deterministic();
    let strings = "\\PC{0,30}|[^\u{0}]{0,30}|[-{}$`'\"\\\\;&|<>()*?\\[\\]~#!%= \t\r\n\u{1b}ab]{0,30}";
    for _ in 0..200 {
        let mut string = || strings.new_tree(&mut runner).unwrap().current();
        let args = serde_json::json!({ "a": string(), "b.c": string() });
        let (a, b) = (args["a"].as_str().unwrap(), args["b.c"].as_str().unwrap());
        let got = daemon.result(1, "args", &args.to_string()).await;
        assert_eq!(String::from_utf8(got).unwrap(), format!("{a}\0<{b}>{args}\0"));
    }
}

#[tokio::test]
async fn the_environment_is_the_tasks_own_and_the_folder_worker_tomls() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bin")).unwrap();
    let program = folder.path().join("bin/show");
    fs::write(&program, "#!/bin/sh\npwd\nenv\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let tasks = "[task.show]\nkind = \"exec\"\ncmd = [\"bin/show\"]\nstdout = \"raw\"\n\
        env = { MODE = \"a b\", LANG = \"C\" }\n";
    let mut daemon = Daemon::start_in(folder, tasks).await;
    let assignment = Assignment {
        timeout_ms: 60_000,
        ..assignment(7, "show", "null")
    };
    daemon.link.assign(assignment).await;
    let said = daemon.over(7).await;
    let shown = said.completions[0].result.clone().unwrap().data.to_vec();
    let shown = String::from_utf8(shown).unwrap();
    let (folder, variables) = shown.split_once('\n').unwrap();
    assert_eq!(folder, daemon.folder.path().canonicalize().unwrap().to_str().unwrap());
    let mut variables: BTreeMap<&str, &str> = variables.lines().map(|line| line.split_once('=').unwrap()).collect();
    let deadline = variables.remove("ASYNQ_DEADLINE").unwrap();
    assert!(
        deadline.starts_with("20") && deadline.ends_with('Z') && deadline.len() == 24,
        "{deadline}"
    );
    // A shell adds some of its own.
    for own in ["PWD", "OLDPWD", "SHLVL", "_"] {
        variables.remove(own);
    }
    let expected = [
        ("ASYNQ_ATTEMPT", "1"),
        ("ASYNQ_EPOCH", "1"),
        ("ASYNQ_TASK_ID", "00000000-0000-0000-0000-000000000007"),
        ("LANG", "C"),
        ("MODE", "a b"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ];
    assert_eq!(variables, expected.into());
}
