//! The log: JSON lines with stable keys, and whose call a line belongs to.

use asynq_proto::v1::ShowRequest;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_tests::{Broker, PATIENCE, Process, eventually};
use serde_json::Value;
use tonic::{Code, Request};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Asks for a task that never was.
fn unknown() -> ShowRequest {
    let mut id = vec![1; 16];
    // A UUIDv7, as every id of a task.
    (id[6], id[8]) = (0x71, 0x81);
    ShowRequest { id: id.into() }
}

fn lines(log: &str) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(read).collect()
}

#[tokio::test]
async fn a_call_that_fails_is_found_in_the_log_by_its_trace_id() {
    let mut broker = Broker::start_with(&["--log", "json"]).await;
    let mut tasks = TasksClient::connect(broker.url()).await.unwrap();
    let mut request = Request::new(unknown());
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let status = tasks.show(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.metadata().get("trace-id").unwrap(), TRACE);
    // Another one has an id of its own.
    let other = tasks.show(unknown()).await.unwrap_err();
    let other = other.metadata().get("trace-id").unwrap().to_str().unwrap().to_owned();
    assert!(other.len() == 32 && other != TRACE, "{other}");
    broker.stop().await;
    let log = broker.process().log();
    let failed: Vec<Value> = lines(&log)
        .into_iter()
        .filter(|line| line["message"] == "a call failed")
        .collect();
    assert_eq!(failed.len(), 2, "{log}");
    let (line, span) = (&failed[0], &failed[0]["spans"][0]);
    assert_eq!(
        (&line["code"], &line["reason"]),
        (&"NOT_FOUND".into(), &"TASK_NOT_FOUND".into())
    );
    assert!(line["error"].as_str().unwrap().starts_with("no task"), "{line}");
    assert_eq!((&span["name"], &span["trace_id"]), (&"rpc".into(), &TRACE.into()));
    assert_eq!(span["rpc"], "asynq.v1.Tasks/Show");
    assert!(span["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{span}");
    assert_eq!(failed[1]["spans"][0]["trace_id"], *other);
    for line in lines(&log) {
        for key in ["timestamp", "level", "message", "target"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_failures_does_not_flood_the_log() {
    let mut broker = Broker::start_with(&["--log", "json"]).await;
    let mut tasks = TasksClient::connect(broker.url()).await.unwrap();
    for _ in 0..200 {
        tasks.show(unknown()).await.unwrap_err();
    }
    broker.stop().await;
    let log = lines(&broker.process().log());
    let failed = log.iter().filter(|line| line["message"] == "a call failed").count();
    // Ten in ten seconds; a slow machine may take more than one such time.
    assert!((1..=100).contains(&failed), "{failed}");
}

#[tokio::test]
async fn what_a_run_logs_says_whose_it_is() {
    let broker = Broker::start().await;
    let log = broker.folder().join("worker.log");
    let url = broker.url();
    let args = ["--broker", &url, "--builtins", "--slots", "2", "--log", "json"];
    let debug = [("RUST_LOG", std::ffi::OsStr::new("asynq_worker=debug"))];
    let mut worker = Process::start_with_env("asynq-worker", args, &debug, log)
        .await
        .unwrap();
    let client = asynq_client::Client::connect(&url).await.unwrap();
    let panics = asynq_client::Task::<Value, Value>::new("fail");
    client
        .call(panics, &serde_json::json!({"message": "no luck"}))
        .await
        .unwrap_err();
    let told = eventually("the failure in the worker's log", PATIENCE, || {
        let found = lines(&worker.log())
            .into_iter()
            .find(|line| line["message"] == "a run failed");
        async move { found }
    });
    let (line, span) = {
        let line = told.await;
        (line.clone(), line["spans"][0].clone())
    };
    assert_eq!(line["error"], "no luck", "{line}");
    assert_eq!(
        (&span["name"], &span["task_name"]),
        (&"run".into(), &"fail".into()),
        "{span}"
    );
    assert_eq!(span["attempt"], 1);
    assert!(
        span["task"].as_str().unwrap().len() == 36 && span["epoch"].as_u64().unwrap() > 0,
        "{span}"
    );
    worker.stop(PATIENCE).await;
}
