//! Programs that do not do what they should: each a clear failure of that task
//! alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tokio::process::Command;

use super::{Daemon, shell};
use crate::broker::{assignment, within};

/// Bad programs, and for each the failure's kind, whether it is retryable, and
/// a part of its message.
const BAD: &[(&str, &str, &str, bool, &str)] = &[
    (
        "stdout = \"raw\"",
        "echo no such row >&2; exit 1",
        "error",
        true,
        "sh exited with code 1: no such row",
    ),
    ("stdout = \"raw\"", "exit 65", "error", false, "sh exited with code 65"),
    ("stdout = \"raw\"", "exit 75", "error", true, "sh exited with code 75"),
    ("", "echo 1; exit 2", "error", true, "sh exited with code 2"),
    ("", "kill -SEGV $$", "crash", true, "sh was killed by signal 11"),
    ("", ":", "bad_output", false, "stdout is empty"),
    ("", "exec >&-", "bad_output", false, "stdout is empty"),
    ("", "echo done", "bad_output", false, "stdout is not one JSON value"),
    (
        "",
        "echo 1; echo 2",
        "bad_output",
        false,
        "stdout is not one JSON value",
    ),
    ("", "yes", "bad_output", false, "stdout is over 4194304 bytes"),
    (
        "stdout = \"raw\"",
        "cat /dev/zero",
        "bad_output",
        false,
        "stdout is over 4194304 bytes",
    ),
    (
        "",
        "yes >&2 & yes >&2 & sleep 0.1; exit 3",
        "error",
        true,
        "sh exited with code 3: y",
    ),
    (
        "timeout = \"300ms\"",
        "sleep 3600",
        "timeout",
        true,
        "sh ran longer than 300ms",
    ),
    (
        "timeout = \"300ms\"",
        "exec >&- 2>&-; sleep 3600",
        "timeout",
        true,
        "sh ran longer than 300ms",
    ),
    (
        "stdout = \"lines\"",
        "echo a; exit 1",
        "error",
        true,
        "sh exited with code 1",
    ),
    (
        "stdout = \"lines\"",
        "cat /dev/zero",
        "bad_output",
        false,
        "line 1 of stdout makes an item of more than 4194304",
    ),
    (
        "stdout = \"lines\"",
        "yes a line that is longer than most, so that there are fewer of them",
        "error",
        false,
        "iterate the task instead",
    ),
    (
        "stdout = \"jsonl\"",
        "echo '{\"item\":1}'; echo '{\"item\":'",
        "bad_output",
        false,
        "line 2 of stdout",
    ),
    (
        "stdout = \"jsonl\"",
        "echo '{\"progress\":1}'",
        "bad_output",
        false,
        "not supported yet",
    ),
    (
        "stdout = \"jsonl\"",
        "echo '{\"result\":1}'; echo; echo '{\"item\":1}'",
        "bad_output",
        false,
        "line 3 of stdout comes after the result in line 1",
    ),
];

#[tokio::test]
async fn bad_programs_fail_alone() {
    let tasks: String = (0..)
        .zip(BAD)
        .map(|(i, (more, script, ..))| shell(&format!("bad{i}"), more, script))
        .collect();
    let mut daemon = Daemon::start(&(tasks + &shell("good", "", "echo 1"))).await;
    // Good ones in between, and all more than once.
    for round in 0..5 {
        for (i, (more, script, kind, retryable, said)) in (0..).zip(BAD) {
            let failure = daemon.failure(2 * i + 1, &format!("bad{i}"), "null").await;
            let context = format!("{more} {script}, round {round}: {failure:?}");
            assert_eq!(
                (failure.kind.as_str(), failure.retryable),
                (*kind, *retryable),
                "{context}"
            );
            assert!(failure.message.contains(said), "{context}");
            assert!(
                failure.message.len() < 1_000 && failure.trace.len() <= 8 * 1024,
                "{context}"
            );
            assert_eq!(daemon.result(2 * i + 2, "good", "null").await, b"1");
        }
    }
    let children = daemon.children();
    assert_eq!(children.len(), 1, "all but the guard are gone: {children:?}");
    let statm = fs::read_to_string(format!("/proc/{}/statm", daemon.child.id().unwrap())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(pages * 4096 < 128 << 20, "floods stay outside: {pages} pages");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_fails_its_task_and_can_be_mended() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mode, text) in [
        ("plain", 0o644, "#!/bin/sh\necho 1\n"),
        ("orphan", 0o755, "#!/no/such/interpreter\n"),
        ("garbage", 0o755, "\x7fELF"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
        fs::set_permissions(folder.path().join(name), Permissions::from_mode(mode)).unwrap();
    }
    let tasks: String = ["./none", "no-such-program", "./plain", "./orphan", "./garbage", "/"]
        .iter()
        .enumerate()
        .map(|(i, program)| format!("[task.t{i}]\nkind = \"exec\"\ncmd = [\"{program}\"]\n"))
        .collect();
    let tasks = tasks + "[task.long]\nkind = \"exec\"\ncmd = [\"printf\", \"{}\"]\n";
    let mut daemon = Daemon::start_in(folder, &tasks).await;
    for (i, said) in (0..).zip([
        "none does not exist",
        "\"no-such-program\" is in no folder of PATH, which is /usr/local/bin:/usr/bin:/bin",
        "plain is not executable for this worker; chmod +x ",
        "the interpreter its first line names does not exist",
        "it is no program of this machine",
        "is no file that could be run",
    ]) {
        let failure = daemon.failure(i + 1, &format!("t{i}"), "null").await;
        assert_eq!(
            (failure.kind.as_str(), failure.retryable),
            ("spawn", true),
            "{failure:?}"
        );
        assert!(failure.message.contains(said), "{failure:?}");
    }
    let long = format!("[{}1]", "1,".repeat(25_000));
    let long = format!("[{long},{long},{long}]");
    assert!(long.len() > 128 * 1024);
    let mut assignment = assignment(50, "long", "");
    assignment.payload.as_mut().unwrap().data = long.into();
    daemon.link.assign(assignment).await;
    let said = daemon.over(50).await;
    let failure = said.failures[0].failure.clone().unwrap();
    assert_eq!(
        (failure.kind.as_str(), failure.retryable),
        ("rejected", false),
        "{failure:?}"
    );
    assert!(failure.message.contains("stdin = \"json\""), "{failure:?}");

    fs::set_permissions(daemon.path("plain"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(daemon.result(60, "t2", "null").await, b"1");
}

async fn refused(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_asynq-worker"))
        .args(["--broker", "http://127.0.0.1:9", "--config", file.to_str().unwrap()])
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(output).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_bad_file_is_refused_with_its_name_and_its_line() {
    let task = |more: &str| format!("[task.t]\nkind = \"exec\"\ncmd = [\"true\"]\n{more}");
    for (text, said) in [
        (
            task("wtach = 1"),
            &["worker.toml", "line 4", "unknown field `wtach`"][..],
        ),
        (task("[task.t]"), &["worker.toml", "duplicate key"]),
        (
            "[task.t]\nkind = \"pool\"\ncmd = [\"true\"]".into(),
            &["line 2", "kind \"pool\" is not supported yet"],
        ),
        (
            "[task.t]\nkind = \"exec\"\ncmd = [\"ls\", \"{a\"]".into(),
            &["line 3", "a { without its }"],
        ),
        (task("timeout = \"0s\""), &["timeout of task \"t\" must be"]),
        (
            "[task.\"a b\"]\nkind = \"exec\"\ncmd = [\"true\"]".into(),
            &["the task name \"a b\""],
        ),
        (
            "builtins = true\n[task.echo]\nkind = \"exec\"\ncmd = [\"true\"]".into(),
            &["\"echo\" has two handlers"],
        ),
        ("slots = 1".into(), &["no tasks", "[task.NAME]", "--builtins"]),
    ] {
        let (code, stderr) = refused(&text).await;
        assert_eq!(code, Some(2), "{text}: {stderr}");
        for said in said {
            assert!(stderr.contains(said), "{text}: {stderr}");
        }
    }
}
