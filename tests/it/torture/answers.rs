//! Answers to enqueues that are lost on their way.

use std::collections::BTreeSet;

use asynq_client::Client;
use asynq_tests::{Cluster, PATIENCE, Proxy, WorkerHere, within};
use tokio::task::JoinSet;

use super::{ALL_DONE, dice, is_long};

/// Callers, each with a connection of its own and one enqueue at a time.
const CALLERS: usize = 40;
/// Of a thousand answers, so many are lost.
const LOST: u64 = 330;

#[tokio::test]
async fn with_answers_lost_there_are_as_many_tasks_as_ids() {
    let tasks = if is_long() { 10_000 } else { 640 };
    let mut dice = dice("answers");
    let cluster = Cluster::start().await;
    let mut callers = JoinSet::new();
    let mut proxies = Vec::new();
    for _ in 0..CALLERS {
        let proxy = Proxy::losing(cluster.broker.address(), LOST, dice.fork()).await;
        let url = proxy.url();
        proxies.push(proxy);
        callers.spawn(async move {
            let client = Client::connect(&url).await.expect("the broker is there");
            let mut handles = Vec::new();
            for _ in 0..tasks / CALLERS {
                let enqueue = client.enqueue(WorkerHere::QUICK, &0);
                handles.push(enqueue.await.expect("the SDK sends it again").id());
            }
            handles
        });
    }
    let ids = within("all enqueues", ALL_DONE, callers.join_all()).await;
    let ids: Vec<_> = ids.into_iter().flatten().collect();
    let lost: u64 = proxies.iter().map(Proxy::lost).sum();
    let share = lost as f64 / (lost as f64 + ids.len() as f64);

    let client = cluster.client().await;
    let (mut known, mut page) = (Vec::new(), Some(String::new()));
    while let Some(next) = page {
        let listed = client.tasks().limit(10_000).page(next).await.expect("a page of tasks");
        known.extend(listed.tasks.iter().map(|task| task.id));
        page = listed.next;
    }
    let set: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!((ids.len(), set.len(), known.len()), (ids.len(), ids.len(), ids.len()));
    assert!(
        known.iter().all(|id| set.contains(id)),
        "a task has an id nobody was told"
    );

    let worker = WorkerHere::start(&cluster.broker.url(), 64).await;
    worker.has_ended(ids.len() as u64, PATIENCE).await;
    for id in &ids {
        client.handle::<u64>(*id).result().await.expect("it succeeds");
    }
    assert_eq!(worker.begun(), ids.len() as u64, "each was run once");
    println!(
        "{} enqueues, {lost} answers lost on their way ({:.0} %): {} tasks, as many as ids, each run once",
        ids.len(),
        100.0 * share,
        known.len()
    );
    assert!((0.25..0.5).contains(&share), "{share}");
    worker.stop().await;
}
