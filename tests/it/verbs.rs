//! Operators' verbs over tasks, against a broker and a worker.

use std::fs;

use asynq_tests::Cluster;
use serde_json::{Value, json};

/// The ids it printed, one to a line.
fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// What is counted of the queue `default`, by state.
async fn count(cluster: &Cluster, state: &str) -> u64 {
    let queues = cluster.json(&["queue", "ls"]).await;
    queues[0][state].as_u64().expect("there is one queue")
}

#[tokio::test]
async fn dead_tasks_are_retried_and_done() {
    let (mut cluster, _worker) = Cluster::with_worker(2).await;
    let mut ids = Vec::new();
    for n in 1..=3 {
        let argument = format!(r#"{{"message":"no {n}","times":1}}"#);
        ids.push(cluster.ok(&["enqueue", "fail", &argument]).await);
        let ended = cluster.run(&["task", "wait", &ids[n - 1]]).await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
    }
    let retried = cluster.ok(&["task", "retry", &ids[0]]).await;
    assert_eq!(retried, format!("{} retried", ids[0]));
    assert_eq!(cluster.ok(&["task", "wait", &ids[0]]).await, "null");
    // One that is not dead, one that never was, and one that is: all are gone through.
    let unknown = "01900000-0000-7000-8000-000000000000";
    let ended = cluster
        .run(&["task", "retry", &ids[0], unknown, &ids[1], "-o", "json"])
        .await;
    assert_eq!(ended.code, Some(6));
    let said = lines(&ended.err);
    assert!(
        said[0].starts_with("asynq: NOT_DEAD: ") && said[0].contains("succeeded"),
        "{said:?}"
    );
    assert!(said[1].starts_with("asynq: TASK_NOT_FOUND: "), "{said:?}");
    let printed: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(printed, json!({"id": ids[1], "outcome": "retried", "state": "ready"}));
    assert_eq!(cluster.ok(&["task", "wait", &ids[1]]).await, "null");

    // The others by what they have in common, over a restart of the broker.
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    let retried = cluster
        .json(&["task", "retry", "--name", "fail", "--since", "1h"])
        .await;
    assert_eq!(retried, json!({"retried": 1, "changed": 0, "refused": 0}));
    assert_eq!(cluster.ok(&["task", "wait", &ids[2]]).await, "null");
    let shown = cluster.json(&["task", "show", &ids[2]]).await;
    assert_eq!((&shown["attempt"], &shown["failures"]), (&json!(2), &json!(0)));
    assert_eq!(cluster.ok(&["task", "retry", "--all"]).await, "0 retried");
}

#[tokio::test]
async fn a_series_is_cancelled_and_others_stay() {
    let cluster = Cluster::start().await;
    let file = cluster.broker.folder().join("arguments.jsonl");
    fs::write(&file, "1\n".repeat(2_000)).unwrap();
    let file = file.to_str().unwrap();
    cluster
        .ok(&["enqueue", "transcode", "--jsonl", file, "--series", "out"])
        .await;
    cluster.ok(&["enqueue", "transcode", "--series", "stays"]).await;
    cluster
        .ok(&["enqueue", "transcode", "--series", "out", "--queue", "other"])
        .await;
    let cancelled = cluster.ok(&["series", "cancel", "out", "--queue", "default"]).await;
    assert_eq!(cancelled, "2000 cancelled");
    assert_eq!(
        (count(&cluster, "ready").await, count(&cluster, "cancelled").await),
        (1, 2_000)
    );
    let left = cluster.json(&["task", "ls", "--state", "ready"]).await;
    let series: Vec<_> = left["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["series"])
        .collect();
    assert_eq!(series, [&json!("out"), &json!("stays")]);

    // Purged they are gone, and what was not asked for is not.
    let purged = cluster
        .json(&["task", "purge", "--state", "cancelled", "--series", "out"])
        .await;
    assert_eq!(purged, json!({"purged": 2000, "changed": 0, "refused": 0}));
    assert_eq!(count(&cluster, "cancelled").await, 0);
    let left = cluster.json(&["task", "ls", "--limit", "10000"]).await;
    assert_eq!(left["tasks"].as_array().unwrap().len(), 2);
    let cancelled = cluster.json(&["task", "cancel", "--all"]).await;
    assert_eq!(cancelled, json!({"cancelled": 2, "stopping": 0, "finished": 0}));
}

#[tokio::test]
async fn without_a_word_of_which_tasks_nothing_is_done() {
    let cluster = Cluster::start().await;
    cluster.ok(&["enqueue", "transcode"]).await;
    let id = "01900000-0000-7000-8000-000000000000";
    for (args, part) in [
        (&["task", "cancel"][..], "--all"),
        (&["task", "retry"], "--all"),
        (&["task", "cancel", id, "--all"], "one of these"),
        (&["task", "cancel", "--all", "--name", "a"], "one of these"),
        (&["task", "cancel", "--queue", ""], "--queue is empty"),
        (&["task", "cancel", "--state", "dead"], "dead"),
        (&["task", "retry", "--state", "running"], "running"),
        (&["task", "purge"], "--state"),
        (&["task", "purge", "--state", "ready"], "ready"),
        (&["series", "cancel", ""], "--series ''"),
    ] {
        let ended = cluster.run(args).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.err
        );
        assert!(
            ended.err.starts_with("asynq: USAGE: ") && ended.err.contains(part),
            "{}",
            ended.err
        );
    }
    assert_eq!(count(&cluster, "ready").await, 1);
}
