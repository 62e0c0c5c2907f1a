//! `asynq bench` measures what there is, and says what it could not.

use asynq_tests::{Cluster, Ended, PATIENCE, eventually, interrupt};
use serde_json::Value;

#[tokio::test]
async fn what_is_measured_is_reported_under_stable_names() {
    let (mut cluster, worker) = Cluster::with_worker(4).await;
    let (broker, worker) = (cluster.broker.process().pid().to_string(), worker.pid().to_string());
    let bench = async |mode: &str, args: &[&str]| {
        let all = [&["bench", "-o", "json", "--mode", mode, "--tasks", "300"], args].concat();
        let Ended { code, out, err } = cluster.run(&all).await;
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<Value>(&out).expect("JSON")
    };
    let measured = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);

    let call = bench(
        "call",
        &["--in-flight", "7", "--broker-pid", &broker, "--worker-pid", &worker],
    )
    .await;
    assert_eq!(
        (&call["mode"], &call["tasks"], &call["in_flight"]),
        (&"call".into(), &300.into(), &7.into())
    );
    assert_eq!(call["payload_bytes"], 100);
    assert!(
        measured(&call["tasks_per_s"]) && call["items_per_s"].is_null(),
        "{call}"
    );
    let (p50, p99) = (&call["latency_us"]["p50"], &call["latency_us"]["p99"]);
    assert!(measured(p50) && p99.as_f64() >= p50.as_f64(), "{call}");
    for who in ["client", "broker", "worker"] {
        assert!(call["cpu_us_per_task"][who].is_number(), "{who}: {call}");
    }

    let enqueue = bench("enqueue", &["--queue", "apart"]).await;
    assert!(measured(&enqueue["tasks_per_s"]), "{enqueue}");
    assert!(enqueue["cpu_us_per_task"]["broker"].is_null(), "{enqueue}");
    let queues = cluster.json(&["queue", "ls"]).await;
    let apart = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "apart");
    let states = ["scheduled", "ready", "running", "succeeded"].map(|state| apart.unwrap()[state].as_u64().unwrap());
    assert_eq!(states.iter().sum::<u64>(), 300);

    let iterate = bench("iterate", &[]).await;
    assert!(
        measured(&iterate["items_per_s"]) && iterate["tasks_per_s"].is_null(),
        "{iterate}"
    );
    assert!(iterate["latency_us"]["p50"].is_null(), "{iterate}");
}

#[tokio::test]
async fn a_process_that_is_not_there_is_said() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let Ended { code, out, err } = cluster
        .run(&["bench", "--tasks", "1", "--broker-pid", "4294967295"])
        .await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("there is no process 4294967295"), "{err}");
}

#[tokio::test]
async fn ctrl_c_leaves_no_call_behind() {
    let cluster = Cluster::start().await;
    let bench = cluster.spawn(&["bench", "--in-flight", "20"]);
    let client = cluster.client().await;
    eventually("the calls to be queued", PATIENCE, || async {
        let queue = client.queues().await.ok()?.pop()?;
        (queue.ready == 20).then_some(())
    })
    .await;
    interrupt(&bench);
    let Ended { code, err, .. } = Ended::of(bench).await;
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("20 tasks"), "{err}");
    let queue = client.queues().await.unwrap().pop().unwrap();
    assert_eq!((queue.ready, queue.cancelled), (0, 20));
}
