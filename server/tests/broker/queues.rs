//! Queues are told how to serve.

use asynq_proto::v1;
use tonic::Code;

use crate::harness::{Broker, Worker, reason, soon, task};

async fn set(broker: &Broker, queue: &str, fast_requeue: bool) -> v1::QueueInfo {
    let request = v1::SetQueueRequest {
        queue: queue.to_owned(),
        fast_requeue: Some(fast_requeue),
    };
    let reply = broker.admin().await.set_queue(request).await.unwrap();
    reply.into_inner().queue.unwrap()
}

async fn shown(broker: &Broker, name: &str) -> Vec<v1::QueueInfo> {
    let request = v1::ListQueuesRequest { name: name.to_owned() };
    let reply = broker.admin().await.list_queues(request).await.unwrap();
    reply.into_inner().queues
}

/// A worker whose connection breaks loses what it ran for a fast queue at once: the
/// other one has it before a grace could be over, for a session that has nothing left.
#[tokio::test]
async fn a_queue_is_fast_from_one_moment_to_the_next_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    assert!(shown(&broker, "default").await.is_empty());
    assert!(set(&broker, "default", true).await.fast_requeue);
    assert!(set(&broker, "default", true).await.fast_requeue, "twice is no harm");
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    let found = shown(&broker, "default").await;
    assert!(
        found.len() == 1 && found[0].fast_requeue && found[0].ready == 0,
        "{found:?}"
    );
    broker.tasks().await.enqueue(task("echo")).await.unwrap();
    let mut first = Worker::connect(&broker, 1, &["echo"]).await;
    let run = first.assignment().await;
    let mut second = Worker::connect(&broker, 1, &["echo"]).await;
    drop(first);
    let again = second.assignment().await;
    assert_eq!(again.token.as_ref().unwrap().attempt, run.token.unwrap().attempt + 1);
    let workers = broker.admin().await.list_workers(v1::ListWorkersRequest {}).await;
    assert_eq!(
        workers.unwrap().into_inner().workers.len(),
        1,
        "no grace was waited for"
    );
    assert!(!set(&broker, "default", false).await.fast_requeue);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let broker = Broker::start().await;
    let mut admin = broker.admin().await;
    for (queue, fast_requeue, field) in [
        ("", Some(true), "queue"),
        ("a b", Some(true), "queue"),
        ("q", None, "fast_requeue"),
    ] {
        let request = v1::SetQueueRequest {
            queue: queue.to_owned(),
            fast_requeue,
        };
        let status = soon(admin.set_queue(request)).await.unwrap_err();
        assert_eq!(
            (status.code(), &*reason(&status)),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(status.message().starts_with(field), "{status:?}");
    }
    broker.stop().await.unwrap();
}
