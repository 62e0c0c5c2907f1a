//! The daemon as a process: its ready line, its signals, its exit codes.

use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::broker::{Broker, assignment, within};

fn daemon(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asynq-worker"));
    command
        .args(args)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn output(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = within(daemon(args).output()).await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn it_says_when_it_is_ready_runs_tasks_and_drains_on_sigterm() {
    let mut broker = Broker::start().await;
    let mut child = daemon(&["--broker", &broker.url(), "--builtins", "--slots", "2"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut link = broker.accept().await;
    assert_eq!(link.hello.slots, 2);
    let ready = within(lines.next_line()).await.unwrap().unwrap();
    assert_eq!(ready, format!("registered 7 tasks with {}", broker.url()));

    link.assign(assignment(1, "echo", "[1, 2]")).await;
    assert_eq!(link.next().await.completions[0].result.as_ref().unwrap().data, "[1, 2]");
    link.ack(1).await;
    signal(&child, Signal::TERM);
    assert!(link.next().await.draining);
    link.closed().await;
    drop(link);
    assert!(within(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let mut broker = Broker::start().await;
    let mut child = daemon(&["--broker", &broker.url(), "--builtins"]).spawn().unwrap();
    let mut link = broker.accept().await;
    link.assign(assignment(1, "sleep", r#"{"ms":3600000}"#)).await;
    link.beats(2).await;
    signal(&child, Signal::INT);
    assert!(link.next().await.draining);
    signal(&child, Signal::INT);
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_hangup_is_ignored() {
    let mut broker = Broker::start().await;
    let mut child = daemon(&["--broker", &broker.url(), "--builtins"]).spawn().unwrap();
    let mut link = broker.accept().await;
    signal(&child, Signal::HUP);
    link.assign(assignment(1, "echo", "1")).await;
    assert_eq!(link.next().await.completions[0].result.as_ref().unwrap().data, "1");
    link.ack(1).await;
    signal(&child, Signal::TERM);
    assert!(link.next().await.draining, "the hangup was no first signal");
    link.closed().await;
    drop(link);
    assert!(within(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn bad_settings_exit_with_2_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    std::fs::write(&file, "[task.resize]\nkind = \"exec\"\n").unwrap();
    for (args, named) in [
        (&["--slotz", "3"][..], "--slotz"),
        (&["--slots", "0", "--builtins"], "slots must be 1 to 65536, not 0"),
        (&["--broker", "nowhere", "--builtins"], "\"nowhere\""),
        (&["--drain-timeout", "soon"], "'soon' for '--drain-timeout"),
        (&["--config", file.to_str().unwrap()], "missing field `cmd`"),
        (&["--files", "/"], "give --builtins, too"),
        (&["--builtins", "--files", "/no/such"], "\"/no/such\" cannot be used"),
        (&[], "no tasks"),
    ] {
        let (code, said) = output(args).await;
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(named), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn the_environment_counts_and_flags_beat_it() {
    let mut broker = Broker::start().await;
    let mut command = daemon(&["--slots", "5"]);
    command.envs([
        ("ASYNQ_BROKER", broker.url()),
        ("ASYNQ_BUILTINS", "true".into()),
        ("ASYNQ_SLOTS", "4".into()),
    ]);
    command.env("ASYNQ_NAME", "of-the-environment");
    let _child = command.spawn().unwrap();
    let link = broker.accept().await;
    assert_eq!(
        (link.hello.slots, link.hello.worker.as_str()),
        (5, "of-the-environment")
    );
}
