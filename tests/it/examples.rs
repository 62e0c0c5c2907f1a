//! The examples of client and worker do what they say, on a real broker.

use std::process::Stdio;

use asynq_tests::{Cluster, Ended, PATIENCE, Process, example, within};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const POEM: &str = "To be,   or not TO BE\n\nthat is\n";

/// A broker and the example worker, with the poem in a file.
async fn cluster() -> (Cluster, Process) {
    let cluster = Cluster::start().await;
    std::fs::write(cluster.broker.folder().join("poem.txt"), POEM).unwrap();
    let log = cluster.broker.folder().join("texts.log");
    // A daemon is started with nothing of our environment, so its broker comes by `env`.
    let broker = format!("ASYNQ_BROKER={}", cluster.broker.url());
    let args = [broker.into(), example("texts").into_os_string()];
    let worker = Process::start_at("/usr/bin/env".as_ref(), args, log).await;
    let worker = worker.unwrap_or_else(|said| panic!("texts: {said}"));
    assert_eq!(worker.ready(), "ready with 3 tasks");
    (cluster, worker)
}

async fn run(cluster: &Cluster, name: &str, args: &[&str], input: &str) -> Ended {
    let mut child = Command::new(example(name))
        .args(args)
        .env("ASYNQ_BROKER", cluster.broker.url())
        .current_dir(cluster.broker.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that does not read it may have ended.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    within(name, PATIENCE, Ended::of(child)).await
}

async fn prints(cluster: &Cluster, name: &str, args: &[&str], input: &str) -> String {
    let ended = run(cluster, name, args, input).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{name}: {}", ended.out);
    ended.out
}

#[tokio::test]
async fn hello_says_it() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    assert_eq!(prints(&cluster, "hello", &[], "").await, "hello, world\n");
}

#[tokio::test]
async fn a_task_is_one_however_often_it_is_enqueued() {
    let (cluster, _worker) = cluster().await;
    let args = ["id.txt", "Some   TEXT"];
    let first = prints(&cluster, "enqueue_and_wait", &args, "").await;
    let id = std::fs::read_to_string(cluster.broker.folder().join("id.txt")).unwrap();
    assert_eq!(first, format!("{id}: some text\n"));
    assert_eq!(prints(&cluster, "enqueue_and_wait", &args, "").await, first);
    let tasks = cluster.json(&["task", "ls"]).await;
    let tasks = tasks["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["attempt"]), (1, &Value::from(1)));
    // Another task under the same id is refused.
    let other = run(&cluster, "enqueue_and_wait", &["id.txt", "other"], "").await;
    assert_eq!(other.code, Some(1), "{other:?}");
}

#[tokio::test]
async fn a_file_is_mapped_in_order() {
    let (cluster, _worker) = cluster().await;
    let printed = prints(&cluster, "map_file", &["poem.txt"], "").await;
    assert_eq!(printed, "6\n0\n2\n8 words\n");
}

#[tokio::test]
async fn an_iterator_is_stopped_when_its_reader_has_enough() {
    let (cluster, _worker) = cluster().await;
    let printed = prints(&cluster, "iterate_and_stop", &[POEM, "not"], "").await;
    assert_eq!(printed, "not is word 4; the task is cancelled\n");
    let printed = prints(&cluster, "iterate_and_stop", &[POEM, "bee"], "").await;
    assert_eq!(printed, "bee is not there\n");
    let tasks = cluster.json(&["task", "ls"]).await;
    let states: Vec<_> = tasks["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["state"])
        .collect();
    assert_eq!(states, ["succeeded", "cancelled"]);
}

#[tokio::test]
async fn two_tasks_in_a_row() {
    let (cluster, _worker) = cluster().await;
    let printed = prints(&cluster, "pipeline", &[], POEM).await;
    assert_eq!(printed, "6 to be, or not to be\n0 \n2 that is\n");
    let queues = cluster.json(&["queue", "ls"]).await;
    let done: Vec<_> = queues
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| &queue["succeeded"])
        .collect();
    assert_eq!(done, [3, 3]);
}

#[tokio::test]
async fn a_task_calls_itself_on_one_slot_and_leaves_one_behind() {
    let cluster = Cluster::start().await;
    let log = cluster.broker.folder().join("fibonacci.log");
    let broker = format!("ASYNQ_BROKER={}", cluster.broker.url());
    let args = [broker.into(), example("fibonacci").into_os_string()];
    let worker = Process::start_at("/usr/bin/env".as_ref(), args, log).await;
    let worker = worker.unwrap_or_else(|said| panic!("fibonacci: {said}"));
    assert_eq!(worker.ready(), "ready with 3 tasks");
    assert_eq!(cluster.ok(&["call", "fibonacci.report", "10"]).await, "55");
    let note = cluster.json(&["task", "ls", "--name", "fibonacci.note"]).await;
    let note = note["tasks"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(cluster.ok(&["task", "wait", &note]).await, "null");
    let queues = cluster.json(&["queue", "ls"]).await;
    // 177 calls, the report and the note.
    assert_eq!(
        (&queues[0]["succeeded"], &queues[0]["cancelled"]),
        (&179.into(), &0.into())
    );
}
