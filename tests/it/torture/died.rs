//! Programs that die under their task: it begins again at once.

use std::fs;
use std::time::Duration;

use asynq_client::{Payload, Transition};
use asynq_tests::{Cluster, PATIENCE, Process, within};

use super::{Spread, is_long};

/// From the death of a task's process to its next attempt, where its worker lives.
const AGAIN_WITHIN: Duration = Duration::from_millis(500);

/// The times from each crash to the grant after it.
fn gaps(steps: &[Transition]) -> impl Iterator<Item = Duration> {
    let crashes = steps.windows(2).filter(|pair| pair[0].cause == "crashed");
    crashes.map(|pair| {
        assert_eq!(pair[1].cause, "granted", "{pair:?}");
        let [crashed, granted] = [&pair[0], &pair[1]].map(|step| step.at.expect("each step has its time"));
        granted.duration_since(crashed).expect("time goes on")
    })
}

/// Each dies twice, by SIGKILL, and is done at its third attempt.
#[tokio::test]
async fn a_task_whose_process_dies_begins_again_at_once() {
    let tasks = if is_long() { 250 } else { 5 };
    let cluster = Cluster::start().await;
    let file = cluster.broker.folder().join("worker.toml");
    let script = "[ $ASYNQ_ATTEMPT -lt 3 ] && kill -KILL $$; echo 1";
    let toml = format!(
        "broker = \"{}\"\nslots = 1\n[task.dies]\nkind = \"exec\"\ncmd = [\"sh\", \"-c\", \"{script}\"]\n",
        cluster.broker.url()
    );
    fs::write(&file, toml).expect("it can be written");
    let log = cluster.broker.folder().join("worker.log");
    let worker = Process::start("asynq-worker", ["--config".as_ref(), file.as_os_str()], log).await;
    let _worker = worker.unwrap_or_else(|said| panic!("asynq-worker: {said}"));
    let client = cluster.client().await;
    let mut again = Vec::new();
    for _ in 0..tasks {
        let handle = client
            .enqueue_raw("dies", Payload::null())
            .await
            .expect("it is accepted");
        let result = within("the third attempt", PATIENCE, handle.result()).await;
        assert_eq!(result.expect("it succeeds").data(), &b"1"[..]);
        let steps = client.history(handle.id()).await.expect("it is kept");
        let before = again.len();
        again.extend(gaps(&steps));
        assert_eq!(again.len(), before + 2, "{steps:?}");
    }
    println!(
        "{} deaths of {tasks} tasks' processes; begun again after {}",
        again.len(),
        Spread(again.clone())
    );
    let slowest = again.iter().max().expect("there are some");
    assert!(!is_long() || *slowest <= AGAIN_WITHIN, "{slowest:?}");
}
