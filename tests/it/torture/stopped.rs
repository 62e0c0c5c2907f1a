//! Workers that are stopped for longer than their lease, and go on then.

use std::path::PathBuf;
use std::time::Duration;

use asynq_client::State;
use asynq_core::LeaseToken;
use asynq_core::limits::{LEASE, RESET_GRACE};
use asynq_proto::v1;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_tests::journal::{Deed, Line, WORK, Work, now, read};
use asynq_tests::{Cluster, PATIENCE, Process, Signal, eventually, within};
use tonic::transport::Endpoint;

use super::{core_id, is_long};

/// What a run takes: it is stopped in its middle.
const RUN: Work = Work {
    ms: 3_000,
    fails: false,
};

/// A worker that keeps a journal.
struct Stopped {
    process: Process,
    journal: PathBuf,
}

impl Stopped {
    async fn start(cluster: &Cluster, name: &str, slots: usize) -> Self {
        let journal = cluster.broker.folder().join(format!("{name}.journal"));
        let (url, slots) = (cluster.broker.url(), slots.to_string());
        let args = [url.as_str(), name, &slots, journal.to_str().expect("UTF-8")];
        let log = cluster.broker.folder().join(format!("{name}.log"));
        let process = Process::start("asynq-torture-worker", args, log).await;
        let process = process.unwrap_or_else(|said| panic!("{name}: {said}"));
        Self { process, journal }
    }

    fn journal(&self) -> Vec<Line> {
        read(&self.journal)
    }

    fn begun(&self) -> usize {
        self.journal().iter().filter(|line| line.deed == Deed::Began).count()
    }
}

/// The wire's words for a completion of this run.
fn completion(token: LeaseToken) -> v1::Completion {
    v1::Completion {
        token: Some(v1::LeaseToken {
            task_id: token.task.0.to_vec().into(),
            epoch: token.grant.epoch.0,
            attempt: token.grant.attempt,
        }),
        result: Some(v1::Payload {
            content_type: String::new(),
            data: "0".into(),
        }),
        spawned: Vec::new(),
    }
}

#[tokio::test]
async fn a_worker_stopped_past_its_lease_changes_nothing_and_serves_on() {
    let count = if is_long() { 50 } else { 4 };
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let mut workers = Vec::new();
    for n in 0..count {
        workers.push(Stopped::start(&cluster, &format!("stopped-{n}"), 1).await);
    }
    let mut handles = Vec::new();
    for _ in 0..count {
        handles.push(client.enqueue(WORK, &RUN).await.unwrap());
    }
    eventually("each worker to run one", PATIENCE, || async {
        workers.iter().all(|worker| worker.begun() == 1).then_some(())
    })
    .await;
    let stopped = now();
    for worker in &workers {
        worker.process.signal(Signal::STOP);
    }
    let tokens: Vec<_> = workers.iter().map(|worker| worker.journal()[0].token).collect();
    assert!(
        workers.iter().all(|worker| worker.journal().len() == 1),
        "a run had ended already"
    );

    let spare = Stopped::start(&cluster, "spare", count).await;
    let mut ended = Vec::new();
    for handle in &handles {
        let value = within("the end elsewhere", LEASE + PATIENCE, handle.result())
            .await
            .unwrap();
        let shown = client.show(handle.id()).await.unwrap();
        assert_eq!((shown.attempt, shown.losses), (2, 1), "{shown:?}");
        assert_eq!(
            (shown.state, shown.worker.as_deref()),
            (State::Succeeded, Some("spare"))
        );
        ended.push((value, shown));
    }
    let elsewhere = spare.journal();
    let again: Vec<_> = elsewhere.iter().filter(|line| line.deed == Deed::Began).collect();
    assert_eq!(again.len(), count, "each was run once more");
    let waited = again.iter().map(|line| line.at - stopped).max().unwrap();
    let soonest = again.iter().map(|line| line.at - stopped).min().unwrap();
    assert!(soonest > RESET_GRACE, "a silent worker has its lease");

    // What the stopped ones may still have to say is refused, all of it.
    let channel = Endpoint::from_shared(cluster.broker.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut wire = WorkersClient::new(channel);
    for token in &tokens {
        let ack = wire.complete_large(completion(*token)).await.unwrap().into_inner();
        assert!(ack.stale, "{token:?}: {ack:?}");
    }
    for worker in &workers {
        worker.process.signal(Signal::CONT);
    }
    eventually("the stopped ones to serve again", PATIENCE, || async {
        let workers = client.workers().await.unwrap();
        (workers.iter().filter(|worker| worker.state == "active").count() == count + 1).then_some(())
    })
    .await;
    let mut spare = spare;
    spare.process.stop(PATIENCE).await;
    let mut more = Vec::new();
    for _ in 0..count {
        more.push(client.enqueue(WORK, &RUN).await.unwrap());
    }
    for handle in &more {
        within("a result", PATIENCE, handle.result()).await.unwrap();
    }

    let (mut dropped, mut returned) = (0, 0);
    for (worker, token) in workers.iter().zip(&tokens) {
        let journal = worker.journal();
        let of_first = journal.iter().filter(|line| line.token == *token);
        match of_first.map(|line| line.deed).collect::<Vec<_>>()[..] {
            [Deed::Began, Deed::Dropped] => dropped += 1,
            [Deed::Began, Deed::Returned(_)] => returned += 1,
            ref other => panic!("{token:?}: {other:?}"),
        }
        assert_eq!(worker.begun(), 2, "one of its own, and one after it went on");
    }
    for (handle, (value, shown)) in handles.iter().zip(&ended) {
        assert_eq!(
            handle.result().await.unwrap(),
            *value,
            "a second completion was accepted"
        );
        assert_eq!(client.show(handle.id()).await.unwrap(), *shown);
        let by_spare = |line: &&Line| line.deed == Deed::Returned(*value) && line.token.task == core_id(handle.id());
        assert_eq!(
            elsewhere.iter().filter(by_spare).count(),
            1,
            "the result is not the other worker's"
        );
    }
    println!(
        "{count} workers stopped past their lease: {count} tasks ended once, elsewhere; run again {soonest:.1?} to {waited:.1?} \
         after the stop; {count} completions of the old grants refused; {dropped} of the old runs were dropped by their \
         workers, {returned} returned a value nobody took; all {count} workers serve again",
    );
    // A lease may have been renewed just before the stop.
    if is_long() {
        let most = LEASE + Duration::from_secs(1);
        assert!(waited <= most, "given again after {waited:?}, at most {most:?}");
    }
}
