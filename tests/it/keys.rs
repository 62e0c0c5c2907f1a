//! Idempotency keys as the command has them, against a broker and a worker.

use std::fs;
use std::path::Path;

use asynq_client::{Error, OnKey, Payload, Refusal, Task};
use asynq_tests::{Cluster, PATIENCE, eventually, interrupt};
use serde_json::json;
use tokio::task::JoinSet;

use crate::exec::guide::{blocks, commands, fits, typed};

const GUIDE: &str = "../docs/guides/idempotency.md";

#[tokio::test]
async fn the_guide_does_what_it_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE)).unwrap();
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let (mut run, mut last) = (0, 0);
    for block in blocks(&page) {
        assert_eq!(block.language, "console", "{}", block.text);
        for (command, printed) in commands(&block.text) {
            let (code, got) = typed(&cluster, command, last).await;
            assert!(fits(&got, &printed), "$ {command}\n{got}instead of\n{printed}");
            (run, last) = (run + 1, code);
        }
    }
    assert!(run >= 8, "only {run} commands found: has the guide's form changed?");
}

/// Ten commands at a time, before the task is there, after its end, and after the
/// broker was killed: each prints what the one task has returned.
#[tokio::test]
async fn calls_with_one_key_are_one_task() {
    let (mut cluster, _worker) = Cluster::with_worker(4).await;
    let call = ["call", "sleep", r#"{"ms":300}"#, "--key", "nap ☃", "-o", "json"];
    let mut ids = Vec::new();
    for round in 0..3 {
        if round == 2 {
            cluster.broker.kill9().await;
            cluster.broker.restart().await;
        }
        let calls: Vec<_> = (0..10).map(|_| cluster.spawn(&call)).collect();
        for call in calls {
            let ended = call.wait_with_output().await.unwrap();
            assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
            let shown: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
            assert_eq!((&shown["state"], &shown["attempt"]), (&json!("succeeded"), &json!(1)));
            assert_eq!(shown["key"], json!("nap ☃"));
            ids.push(shown["id"].as_str().unwrap().to_owned());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let text = cluster.ok(&["task", "show", &ids[0]]).await;
    assert!(
        text.lines().any(|line| line.split_whitespace().eq(["key", "nap", "☃"])),
        "{text}"
    );
    let plain = cluster.json(&["call", "echo", "1"]).await;
    assert_eq!(plain["key"], json!(null));
    let refused = cluster
        .run(&["enqueue", "sleep", r#"{"ms":1}"#, "--key", "nap ☃"])
        .await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(6), ""));
    assert!(
        refused.err.starts_with("asynq: KEY_TAKEN: ") && refused.err.contains(&ids[0]),
        "{}",
        refused.err
    );
}

/// Ctrl-C ends what a call has begun, not what another had begun before.
#[tokio::test]
async fn ctrl_c_leaves_the_first_ones_task_alone() {
    let cluster = Cluster::start().await;
    let id = cluster.ok(&["enqueue", "nobody", "--key", "k"]).await;
    for (key, code, state) in [("k", 130, "ready"), ("other", 5, "cancelled")] {
        let mut child = cluster.spawn(&["call", "nobody", "--key", key]);
        let own = eventually("the call waits", PATIENCE, || async {
            let listed = cluster.json(&["task", "ls", "--name", "nobody"]).await;
            let newest = listed["tasks"][0]["id"].as_str().unwrap().to_owned();
            (key == "k" || newest != id).then_some(newest)
        })
        .await;
        // It says that nobody runs the task, so it has its answer.
        let mut said = tokio::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line)
            .await
            .unwrap();
        assert!(line.contains("NO_WORKER"), "{line}");
        interrupt(&child);
        let status = child.wait().await.unwrap();
        assert_eq!(status.code(), Some(code));
        let shown = cluster.json(&["task", "show", &own]).await;
        assert_eq!(shown["state"], state);
    }
}

#[tokio::test]
async fn bad_keys_name_field_and_limit() {
    let cluster = Cluster::start().await;
    let long = "k".repeat(201);
    for (key, words) in [("", "empty"), (&long, "200"), ("a\u{1}b", "control")] {
        let ended = cluster.run(&["enqueue", "echo", "--key", key]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
        let said = ended.err.starts_with("asynq: INVALID_FIELD: options.key ");
        assert!(said && ended.err.contains(words), "{}", ended.err);
    }
    for args in [
        &["enqueue", "echo", "--on-key", "replace"][..],
        &["enqueue", "echo", "--key", "k", "--on-key", "forget"],
        &["enqueue", "echo", "--jsonl", "-", "--key", "k"],
        &["iterate", "count", "--key", "k"],
    ] {
        assert_eq!(cluster.run(args).await.code, Some(2), "{args:?}");
    }
    assert_eq!(cluster.json(&["queue", "ls"]).await, json!([]), "nothing was stored");
}

/// The SDK follows the key to the first one's task, with arguments too large for the
/// session as well.
#[tokio::test]
async fn the_sdk_follows_the_key() {
    const SLEEP: Task<serde_json::Value, ()> = Task::new("sleep");
    let (cluster, _worker) = Cluster::with_worker(4).await;
    let (client, other) = (cluster.client().await, cluster.client().await);
    let first = client.enqueue(SLEEP, &json!({"ms": 200})).key("nap").await.unwrap();
    let again = other.enqueue(SLEEP, &json!({"ms": 200})).key("nap").await.unwrap();
    assert_eq!(
        (first.existed(), again.existed(), again.id()),
        (false, true, first.id())
    );
    other.call(SLEEP, &json!({"ms": 200})).key("nap").await.unwrap();
    let refused = other.call(SLEEP, &json!({"ms": 1})).key("nap").await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { kind: Refusal::AlreadyExists, reason, .. } if reason == "KEY_TAKEN"),
        "{refused:?}"
    );
    let large = Payload::json(&"x".repeat(200_000)).unwrap();
    let mut calls = JoinSet::new();
    for client in [&client, &other] {
        let call = client
            .call_raw("echo", large.clone())
            .key("large")
            .on_key(OnKey::Return);
        calls.spawn(call.with_stats());
    }
    while let Some(called) = calls.join_next().await {
        let (result, stats) = called.unwrap().unwrap();
        assert!(result == large && stats.attempts == 1);
    }
    let queue = client.queues().await.unwrap().remove(0);
    assert_eq!(queue.succeeded, 2);
}
