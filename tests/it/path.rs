//! The user's path: the command against a broker and a worker.

use asynq_tests::{Cluster, Ended, PATIENCE, eventually, interrupt};
use serde_json::{Value, json};

const HOUR: &str = r#"{"ms":3600000}"#;

#[tokio::test]
async fn a_value_comes_back_as_it_went() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    assert_eq!(cluster.ok(&["call", "echo", r#"{"a":1}"#]).await, r#"{"a":1}"#);
    let ordered = r#"{"b":1,"a":1.10,"n":12345678901234567890}"#;
    assert_eq!(cluster.ok(&["call", "echo", ordered]).await, ordered);
    assert_eq!(cluster.ok(&["call", "echo"]).await, "null");

    let large = format!("\"{}\"", "x".repeat(3_000_000));
    let file = cluster.broker.folder().join("large.json");
    std::fs::write(&file, &large).unwrap();
    let back = cluster.ok(&["call", "echo", &format!("@{}", file.display())]).await;
    assert!(back == large, "{} bytes came back, and not the same", back.len());
}

#[tokio::test]
async fn a_failure_says_what_failed() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let failed = cluster
        .run(&["call", "fail", r#"{"message":"no disk in drive A"}"#])
        .await;
    assert_eq!((failed.code, failed.out.as_str()), (Some(1), ""));
    assert!(
        failed.err.starts_with("asynq: ERROR: no disk in drive A"),
        "{}",
        failed.err
    );
    // Once failed, it may be tried again.
    assert_eq!(
        cluster.ok(&["call", "fail", r#"{"times":1}"#, "--retries", "1"]).await,
        "null"
    );
    let rejected = cluster
        .run(&["call", "sleep", r#"{"hours":1}"#, "--retries", "5"])
        .await;
    assert_eq!(rejected.code, Some(1));
    assert!(
        rejected.err.starts_with("asynq: REJECTED: ") && rejected.err.contains("hours"),
        "{}",
        rejected.err
    );
}

#[tokio::test]
async fn enqueue_wait_show() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let options = ["--series", "s", "--niceness", "-3", "--queue", "q"];
    let id = cluster.ok(&[&["enqueue", "echo", "[1]"][..], &options].concat()).await;
    assert_eq!(cluster.ok(&["task", "wait", &id]).await, "[1]");
    assert_eq!(cluster.ok(&["task", "wait", &id]).await, "[1]", "results are kept");
    let mut shown = cluster.json(&["task", "show", &id]).await;
    let task = shown.as_object_mut().unwrap();
    let mut times = Vec::new();
    for field in ["enqueued_at", "started_at", "finished_at"] {
        times.push(task.remove(field).unwrap().as_str().unwrap().to_owned());
    }
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        shown,
        json!({
            "id": id, "name": "echo", "queue": "q", "series": "s", "niceness": -3, "state": "succeeded",
            "reason": "finished", "cancel_requested": false, "attempt": 1, "failures": 0, "timeouts": 0, "crashes": 0,
            "losses": 0, "releases": 0, "start_at": null, "worker": "worker-1", "labels": [], "error": null,
            "payload_bytes": 3, "result_bytes": 3, "content_type": "application/json", "key": null, "checkpoint": null,
        })
    );

    let id = cluster.ok(&["enqueue", "fail", r#"{"message":"so"}"#]).await;
    let waited = cluster.run(&["task", "wait", &id, "-o", "json"]).await;
    assert_eq!(waited.code, Some(1));
    let dead: Value = serde_json::from_str(&waited.out).unwrap();
    assert_eq!(
        (
            &dead["state"],
            &dead["reason"],
            &dead["failures"],
            &dead["result_bytes"]
        ),
        (&json!("dead"), &json!("error"), &json!(1), &json!(0))
    );
    assert_eq!(dead["error"], json!({"kind": "error", "message": "so", "trace": null}));
}

#[tokio::test]
async fn cancel_ends_what_waits_and_what_runs() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let running = cluster.ok(&["enqueue", "sleep", HOUR]).await;
    reason(&cluster, &running, "running").await;
    let queued = cluster.ok(&["enqueue", "sleep", HOUR]).await;
    let shown = cluster.json(&["task", "show", &running]).await;
    assert_eq!(
        (&shown["worker"], &shown["reason"]),
        (&json!("worker-1"), &json!("running"))
    );
    let waiters = [&running, &queued].map(|id| cluster.spawn(&["task", "wait", id]));

    let cancelled = cluster.json(&["task", "cancel", &queued]).await;
    assert_eq!(
        cancelled,
        json!({"id": queued, "outcome": "cancelled", "state": "cancelled"})
    );
    let cancelled = cluster.json(&["task", "cancel", &running]).await;
    assert_eq!(
        cancelled,
        json!({"id": running, "outcome": "stopping", "state": "stopping"})
    );
    for (waiter, id) in waiters.into_iter().zip([&running, &queued]) {
        let Ended { code, out, err } = Ended::of(waiter).await;
        assert_eq!((code, out.as_str()), (Some(5), ""));
        assert!(err.starts_with(&format!("asynq: CANCELLED: the task {id}")), "{err}");
    }
    let again = cluster.json(&["task", "cancel", &running]).await;
    assert_eq!(
        (&again["outcome"], &again["state"]),
        (&json!("finished"), &json!("cancelled"))
    );
    // Its slot is free.
    assert_eq!(cluster.ok(&["call", "echo", "1"]).await, "1");
}

/// What a task went through: from, to, attempt, worker and cause of each step.
fn steps(told: &Value) -> Vec<Value> {
    let keys = ["from", "to", "attempt", "worker", "cause"];
    let of = |step: &Value| keys.iter().map(|key| step[key].clone()).collect();
    told.as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn a_task_tells_what_it_went_through() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let arguments = r#"{"times":1,"message":"no disk in drive A"}"#;
    let id = cluster.ok(&["enqueue", "fail", arguments, "--retries", "1"]).await;
    assert_eq!(cluster.ok(&["task", "wait", &id]).await, "null");
    let told = cluster.json(&["task", "history", &id]).await;
    assert_eq!(
        steps(&told),
        [
            json!([null, "ready", 0, null, "enqueued"]),
            json!(["ready", "running", 1, "worker-1", "granted"]),
            json!(["running", "scheduled", 1, "worker-1", "failed"]),
            json!(["scheduled", "ready", 1, null, "due"]),
            json!(["ready", "running", 2, "worker-1", "granted"]),
            json!(["running", "succeeded", 2, "worker-1", "completed"]),
        ]
    );
    assert_eq!(told[2]["message"], "error: no disk in drive A");
    let times: Vec<_> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted() && times.iter().all(|at| at.len() == 24), "{times:?}");
    let text = cluster.ok(&["task", "history", &id]).await;
    assert_eq!(text.lines().count(), 7, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(cluster.json(&["task", "show", &id]).await["worker"], "worker-1");
}

/// Waits until `explain` gives this reason, and gives all it says.
async fn reason(cluster: &Cluster, id: &str, reason: &str) -> Value {
    eventually(&format!("{id} to be {reason}"), PATIENCE, || async move {
        let explained = cluster.json(&["task", "explain", id]).await;
        (explained["reason"] == reason).then_some(explained)
    })
    .await
}

#[tokio::test]
async fn explain_says_why_each_task_is_where_it_is() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let enqueue = async |args: &[&str]| cluster.ok(&[&["enqueue"], args].concat()).await;
    let first = enqueue(&["sleep", HOUR]).await;
    let running = reason(&cluster, &first, "running").await;
    let mut fields: Vec<_> = running.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["details", "id", "message", "reason", "state"]);
    assert_eq!((&running["id"], &running["state"]), (&json!(first), &json!("running")));
    assert_eq!(running["details"]["worker"], "worker-1");

    let next = enqueue(&["sleep", HOUR]).await;
    let explained = reason(&cluster, &next, "no_free_slot").await;
    assert_eq!(explained["details"], json!({"busy_slots": "1", "slots": "1"}));

    let third = enqueue(&["sleep", HOUR]).await;
    let behind = reason(&cluster, &third, "behind").await;
    assert_eq!(behind["details"]["ahead_in_series"], "1");
    assert_eq!(behind["details"]["at_most_ahead"], "1");

    let later = enqueue(&["sleep", HOUR, "--delay", "1h"]).await;
    let not_due = reason(&cluster, &later, "not_due").await;
    assert_eq!(not_due["state"], "scheduled");
    assert_eq!(not_due["details"]["failure"], Value::Null);

    let unknown = enqueue(&["transcode"]).await;
    let no_worker = reason(&cluster, &unknown, "no_worker").await;
    assert!(
        no_worker["message"].as_str().unwrap().contains("transcode"),
        "{no_worker}"
    );
    // It holds up nobody: what can run still comes to its turn.
    for id in [&first, &next, &third] {
        cluster.ok(&["task", "cancel", id]).await;
    }
    assert_eq!(cluster.ok(&["call", "echo", "2"]).await, "2");
    let text = cluster.ok(&["task", "explain", &unknown]).await;
    assert!(text.starts_with("ready, no_worker: "), "{text}");
    reason(&cluster, &first, "finished").await;
}

#[tokio::test]
async fn queues_and_workers_are_listed() {
    let (mut cluster, _worker) = Cluster::with_worker(1).await;
    assert_eq!(cluster.ok(&["queue", "ls", "-o", "json"]).await, "[]");
    let _second = cluster.worker(3).await;
    let busy = cluster.ok(&["enqueue", "transcode"]).await;
    cluster.ok(&["enqueue", "echo", "--delay", "1h"]).await;
    cluster.ok(&["call", "echo"]).await;
    cluster.ok(&["task", "cancel", &busy]).await;
    cluster.ok(&["enqueue", "transcode"]).await;
    cluster.run(&["call", "fail"]).await;
    let mut queues = cluster.json(&["queue", "ls"]).await;
    assert!(
        queues[0]
            .as_object_mut()
            .unwrap()
            .remove("oldest_ready_ms")
            .unwrap()
            .is_u64()
    );
    assert_eq!(
        queues,
        json!([{
            "name": "default", "policy": "fair", "durability": "sync", "paused": false, "scheduled": 1, "ready": 1,
            "running": 0, "succeeded": 1, "dead": 1, "cancelled": 1, "expired": 0,
        }])
    );
    let mut workers = cluster.json(&["worker", "ls"]).await;
    for worker in workers.as_array_mut().unwrap() {
        let worker = worker.as_object_mut().unwrap();
        assert_eq!(worker.remove("session").unwrap().as_str().unwrap().len(), 32);
        assert!(worker.remove("connected_at").unwrap().is_string());
    }
    let tasks = ["count", "echo", "fail", "mandelbrot", "scan", "sha256", "sleep"];
    let expected = |name: &str, slots: u32| {
        json!({
            "name": name, "state": "active", "slots": slots, "busy": 0, "leaked": 0, "tasks": tasks, "labels": [],
            "series": [],
        })
    };
    assert_eq!(workers, json!([expected("worker-1", 1), expected("worker-2", 3)]));
}

#[tokio::test]
async fn a_call_nobody_can_run_is_warned_of_and_waits() {
    let cluster = Cluster::start().await;
    let ended = cluster.run(&["call", "transcode", "--wait", "3s"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(4), ""));
    let lines: Vec<&str> = ended.err.lines().collect();
    assert_eq!(
        lines[0],
        "asynq: NO_WORKER: no worker has registered transcode; the task waits for one"
    );
    assert!(lines[1].starts_with("asynq: WAIT_PASSED: "), "{lines:?}");
}

#[tokio::test]
async fn times_are_kept() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let shown = cluster.ok(&["call", "echo", "--delay", "400ms", "-o", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let time = |field: &str| shown[field].as_str().unwrap().to_owned();
    assert!(
        time("enqueued_at") < time("start_at") && time("start_at") <= time("started_at"),
        "{shown}"
    );

    let late = cluster.run(&["call", "sleep", HOUR, "--timeout", "200ms"]).await;
    assert_eq!(late.code, Some(4), "{}", late.err);
    assert!(late.err.starts_with("asynq: TIMEOUT: "), "{}", late.err);
    let late = cluster.run(&["call", "sleep", HOUR, "--deadline", "1s"]).await;
    assert_eq!(late.code, Some(5), "{}", late.err);
    assert!(late.err.starts_with("asynq: EXPIRED: "), "{}", late.err);
    let late = cluster.run(&["call", "transcode", "--deadline", "1s"]).await;
    assert_eq!(late.code, Some(5), "{}", late.err);
    // --wait ends the waiting, not the task.
    let left = cluster.run(&["call", "sleep", r#"{"ms":2000}"#, "--wait", "1s"]).await;
    assert_eq!(left.code, Some(4), "{}", left.err);
    let id = left
        .err
        .split_whitespace()
        .find(|word| word.len() == 36)
        .expect("it names the task");
    assert_eq!(cluster.ok(&["task", "wait", id]).await, "null");
}

#[tokio::test]
async fn ctrl_c_cancels_a_call() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let call = cluster.spawn(&["call", "sleep", HOUR]);
    eventually("the task to run", PATIENCE, || async {
        (cluster.json(&["queue", "ls"]).await[0]["running"] == 1).then_some(())
    })
    .await;
    interrupt(&call);
    let Ended { code, out, err } = Ended::of(call).await;
    assert_eq!((code, out.as_str()), (Some(5), ""), "{err}");
    let id = err
        .split_whitespace()
        .find(|word| word.len() == 36)
        .expect("it names the task");
    let waited = cluster.run(&["task", "wait", id]).await;
    assert_eq!(waited.code, Some(5), "{}", waited.err);
    assert_eq!(cluster.json(&["task", "show", id]).await["state"], "cancelled");
}

#[tokio::test]
async fn refusals_have_their_exit_codes() {
    let cluster = Cluster::start().await;
    let huge = cluster.broker.folder().join("huge.json");
    std::fs::write(&huge, format!("\"{}\"", "x".repeat(5_000_000))).unwrap();
    let huge = format!("@{}", huge.display());
    let unknown = "019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1";
    let nowhere = format!("http://{}", closed_port());
    for (args, code, words) in [
        (&["call", "echo", &huge][..], 2, &["PAYLOAD_TOO_LARGE", "4194304"][..]),
        (&["call", "a task"], 2, &["INVALID_FIELD", "name"]),
        (
            &["call", "echo", "--start-before", "2020-01-01T00:00:00Z"],
            2,
            &["INVALID_FIELD", "start_before"],
        ),
        (&["task", "show", unknown], 6, &["TASK_NOT_FOUND", unknown]),
        (&["task", "wait", unknown], 6, &["TASK_NOT_FOUND", unknown]),
        (&["task", "cancel", unknown], 6, &["TASK_NOT_FOUND", unknown]),
        (&["task", "explain", unknown], 6, &["TASK_NOT_FOUND", unknown]),
        (&["task", "history", unknown], 6, &["TASK_NOT_FOUND", unknown]),
        (&["--broker", &nowhere, "queue", "ls"], 3, &["NO_BROKER", &nowhere]),
    ] {
        let ended = cluster.run(args).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(code), ""),
            "{args:?}: {}",
            ended.err
        );
        assert!(
            words.iter().all(|word| ended.err.contains(word)),
            "{args:?}: {}",
            ended.err
        );
    }
    assert_eq!(
        cluster.ok(&["queue", "ls", "-o", "json"]).await,
        "[]",
        "nothing was stored"
    );
}

/// An address where nobody listens.
fn closed_port() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
