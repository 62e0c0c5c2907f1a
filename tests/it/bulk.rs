//! `asynq enqueue --jsonl` at length: in bounded memory, and over a kill of the broker.
//!
//! `ASYNQ_TORTURE=1` (`make torture`) takes a million lines.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::process::Stdio;

use asynq_tests::{Cluster, PATIENCE, eventually, program};
use tokio::process::{Child, Command};

/// What the command may take at its peak. A line and its answer take some hundred
/// bytes, so a fifth of the lines kept would not fit.
const MOST_MEMORY: u64 = 48 * 1024 * 1024;

fn lines() -> usize {
    let torture = std::env::var_os("ASYNQ_TORTURE").is_some_and(|yes| yes == "1");
    if torture { 1_000_000 } else { 100_000 }
}

/// The most memory a process has had in use, in bytes.
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn begin(cluster: &Cluster, input: &str, output: &str) -> Child {
    Command::new(program("asynq"))
        .args(["enqueue", "later", "--jsonl", input])
        .env_clear()
        .env("ASYNQ_BROKER", cluster.broker.url())
        .stdin(Stdio::null())
        .stdout(File::create(output).expect("a file"))
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .expect("asynq starts")
}

/// Each line is one task with an id of its own on a line of its own, also of those that
/// were on their way when the broker was killed: they are sent again under their ids.
#[tokio::test]
async fn many_lines_take_little_memory_and_survive_a_kill_of_the_broker() {
    let lines = lines();
    let mut cluster = Cluster::start().await;
    let at = |file: &str| cluster.broker.folder().join(file).display().to_string();
    let (input, output) = (at("in.jsonl"), at("ids"));
    let mut file = BufWriter::new(File::create(&input).unwrap());
    (0..lines).for_each(|n| writeln!(file, r#"{{"n":{n},"pad":"{n:0>150}"}}"#).unwrap());
    file.into_inner().unwrap().sync_all().unwrap();

    let mut command = begin(&cluster, &input, &output);
    let printed = || fs::read(&output).map_or(0, |ids| ids.iter().filter(|&&byte| byte == b'\n').count());
    eventually("some ids are printed", PATIENCE, || async {
        (printed() > lines / 10).then_some(())
    })
    .await;
    cluster.broker.kill9().await;
    let before = printed();
    assert!(before < lines, "the broker was killed too late: all {lines} were in");
    cluster.broker.restart().await;
    let mut most = 0;
    let status = eventually("the command ends", 10 * PATIENCE, || {
        most = most.max(command.id().and_then(peak).unwrap_or_default());
        let ended = command.try_wait().expect("it is ours");
        async move { ended }
    })
    .await;
    let ids = fs::read_to_string(&output).unwrap();
    assert!(status.success(), "{status} after {} ids", ids.lines().count());
    let different: HashSet<&str> = ids.lines().collect();
    assert_eq!((ids.lines().count(), different.len()), (lines, lines));
    assert!(most > 0 && most < MOST_MEMORY, "{most} bytes");

    // As many tasks as lines, and the last line is the last id's.
    let queues = cluster.json(&["queue", "ls"]).await;
    assert_eq!(queues[0]["ready"], lines, "{queues}");
    let last = ids.lines().last().unwrap();
    let shown = cluster.json(&["task", "show", last]).await;
    assert_eq!(
        shown["payload_bytes"],
        format!(r#"{{"n":{},"pad":"{:0>150}"}}"#, lines - 1, 0).len()
    );
}
