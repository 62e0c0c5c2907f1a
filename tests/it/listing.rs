//! `asynq task ls` against a broker and a worker.

use asynq_tests::{Cluster, PATIENCE, eventually};
use serde_json::{Value, json};

const HOUR: &str = r#"{"ms":3600000}"#;

fn ids(page: &Value) -> Vec<&str> {
    let tasks = page["tasks"].as_array().expect("a page has tasks");
    tasks.iter().map(|task| task["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn tasks_are_listed_as_they_are_and_after_a_restart() {
    let (mut cluster, _worker) = Cluster::with_worker(1).await;
    let enqueue = async |cluster: &Cluster, args: &[&str]| cluster.ok(&[&["enqueue"], args].concat()).await;
    let done = enqueue(&cluster, &["echo", "1"]).await;
    cluster.ok(&["task", "wait", &done]).await;
    let dead = enqueue(&cluster, &["fail", r#"{"message":"so"}"#, "--series", "s"]).await;
    cluster.run(&["task", "wait", &dead]).await;
    let running = enqueue(&cluster, &["sleep", HOUR]).await;
    let later = enqueue(&cluster, &["sleep", HOUR, "--delay", "1h", "--niceness", "-3"]).await;
    let unknown = enqueue(&cluster, &["transcode", "--queue", "q"]).await;
    let cancelled = enqueue(&cluster, &["transcode"]).await;
    cluster.ok(&["task", "cancel", &cancelled]).await;
    // It may still be on its way to the worker.
    let is_running = async || {
        let shown = cluster.json(&["task", "show", &running]).await;
        (shown["state"] == "running").then_some(())
    };
    eventually("the task to run", PATIENCE, is_running).await;

    let all = cluster.json(&["task", "ls"]).await;
    assert_eq!(ids(&all), [&cancelled, &unknown, &later, &running, &dead, &done]);
    assert_eq!(all["next"], Value::Null);
    for task in all["tasks"].as_array().unwrap() {
        let shown = cluster.json(&["task", "show", task["id"].as_str().unwrap()]).await;
        assert_eq!(task, &shown);
    }
    for (args, expected) in [
        (&["--state", "running"][..], &[&running][..]),
        (&["--state", "ready"], &[&unknown]),
        (&["--state", "succeeded,dead"], &[&dead, &done]),
        (&["--state", "scheduled", "--name", "sleep"], &[&later]),
        (&["--name", "sleep"], &[&later, &running]),
        (&["--queue", "q"], &[&unknown]),
        (&["--series", "s"], &[&dead]),
        (&["--since", "1h", "--state", "cancelled"], &[&cancelled]),
        (&["--since", "2100-01-01T00:00:00Z"], &[]),
    ] {
        let page = cluster.json(&[&["task", "ls"], args].concat()).await;
        assert_eq!(ids(&page), expected, "{args:?}");
    }

    // Page by page, and on over a restart of the broker.
    let first = cluster.json(&["task", "ls", "--limit", "2"]).await;
    let next = first["next"].as_str().expect("there are more").to_owned();
    let text = cluster.run(&["task", "ls", "--limit", "2"]).await;
    assert_eq!(
        (text.code, text.err),
        (Some(0), format!("There are more: go on with --page {next}\n"))
    );
    let head: Vec<_> = text.out.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "NAME", "STATE", "REASON", "QUEUE", "AGE"]);
    assert!(text.out.contains("no_worker"), "{}", text.out);
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    enqueue(&cluster, &["transcode"]).await;
    let rest = cluster.json(&["task", "ls", "--page", &next]).await;
    assert_eq!(ids(&rest), [&later, &running, &dead, &done]);
    let states: Vec<_> = rest["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["state"])
        .collect();
    assert_eq!(states[2..], [&json!("dead"), &json!("succeeded")]);
}

#[tokio::test]
async fn what_cannot_be_listed_is_named() {
    let cluster = Cluster::start().await;
    for (args, words) in [
        (&["--page", "3e8-0000"][..], &["INVALID_FIELD", "page"][..]),
        (&["--name", "a b"], &["INVALID_FIELD", "name", "A-Z"]),
        (&["--queue", "ü"], &["INVALID_FIELD", "queue"]),
        (&["--state", "done"], &["USAGE", "--state"]),
        (&["--limit", "10001"], &["USAGE", "--limit", "1..=10000"]),
    ] {
        let ended = cluster.run(&[&["task", "ls"], args].concat()).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.err
        );
        assert!(
            words.iter().all(|word| ended.err.contains(word)),
            "{args:?}: {}",
            ended.err
        );
    }
    assert_eq!(cluster.ok(&["task", "ls"]).await, "ID  NAME  STATE  AGE");
}
