//! Runs that call and spawn, message by message.

use asynq_core::limits::MIN_DEDUP_TTL;
use asynq_proto::limits::INLINE_BYTES;
use asynq_proto::v1::call_answer::Of;
use asynq_proto::v1::{self, TaskState};
use asynqd::clock::{Clock, SystemClock};
use bytes::Bytes;
use tonic::Code;

use crate::harness::{Broker, Worker, hello, id_at, json, reason, task};

const NAMES: &[&str] = &["parent", "child"];

/// A worker with one slot, which runs a task that may call.
async fn running(broker: &Broker) -> (Worker, v1::LeaseToken) {
    broker.tasks().await.enqueue(task("parent")).await.unwrap();
    let mut worker = Worker::connect(broker, 1, NAMES).await;
    let token = worker.assignment().await.token.unwrap();
    (worker, token)
}

fn call(token: &v1::LeaseToken, n: u32) -> v1::RunCall {
    v1::RunCall {
        call: 10 + u64::from(n),
        token: Some(token.clone()),
        n,
        name: "child".into(),
        payload: Some(json("[1]")),
        ..v1::RunCall::default()
    }
}

fn end(answer: v1::CallAnswer, call: u64) -> v1::Finished {
    assert_eq!(answer.call, call);
    match answer.of {
        Some(Of::Finished(finished)) => finished,
        other => panic!("{other:?}"),
    }
}

fn refusal(answer: v1::CallAnswer) -> v1::OperationError {
    match answer.of {
        Some(Of::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_runs_in_the_slot_of_who_waits_for_it() {
    let broker = Broker::start().await;
    let (mut worker, parent) = running(&broker).await;
    worker.call(call(&parent, 1)).await;
    let child = worker.assignment().await;
    assert_eq!((child.name.as_str(), child.payload), ("child", Some(json("[1]"))));
    worker.complete(child.token, json("2")).await;
    let end = end(worker.call_answer().await, 11);
    assert_eq!((end.state(), end.result), (TaskState::Succeeded, Some(json("2"))));
    worker.complete(Some(parent.clone()), json("3")).await;
    while worker.ack().await.token.as_ref() != Some(&parent) {}
    // Its run is over: it calls nothing more.
    worker.call(call(&parent, 2)).await;
    let refused = refusal(worker.call_answer().await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition as i32, "STALE_LEASE")
    );
}

/// It has ended while the worker was away, and its result was not to be kept.
#[tokio::test]
async fn an_answer_that_was_missed_is_given_again() {
    for on_disk in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let broker = if on_disk {
            Broker::on_disk(folder.path()).await
        } else {
            Broker::start().await
        };
        let names = &["parent"];
        broker.tasks().await.enqueue(task("parent")).await.unwrap();
        let mut worker = Worker::connect(&broker, 1, names).await;
        let parent = worker.assignment().await.token.unwrap();
        let mut other = Worker::connect(&broker, 1, &["child"]).await;
        let mut first = call(&parent, 1);
        first.options = Some(v1::TaskOptions {
            result_ttl_ms: Some(0),
            ..v1::TaskOptions::default()
        });
        worker.call(first.clone()).await;
        let child = other.assignment().await;
        let again = v1::WorkHello {
            resume: worker.welcome.session.clone(),
            held: vec![parent.clone()],
            ..hello(1, names)
        };

        other.complete(child.token, json("2")).await;
        other.ack().await;
        let mut worker = Worker::say_hello(&broker, again).await.unwrap();
        assert!(worker.welcome.resumed);
        first.again = true;
        worker.call(first.clone()).await;
        assert_eq!(end(worker.call_answer().await, 11).result, Some(json("2")));
        // By its number alone, too.
        let waits = v1::RunCall {
            call: 77,
            token: first.token,
            n: 1,
            enqueued: true,
            ..v1::RunCall::default()
        };
        worker.call(waits).await;
        assert_eq!(end(worker.call_answer().await, 77).result, Some(json("2")));
    }
}

#[tokio::test]
async fn large_values_go_apart() {
    let broker = Broker::start().await;
    let (mut worker, parent) = running(&broker).await;
    let mut bulk = broker.workers().await;
    let large = v1::Payload {
        data: Bytes::from(vec![b'7'; INLINE_BYTES + 1]),
        ..json("")
    };
    let mut sent = call(&parent, 1);
    sent.payload = Some(large.clone());
    for existed in [false, true] {
        let enqueued = bulk.call_large(sent.clone()).await.unwrap().into_inner();
        assert_eq!(enqueued.existed, existed);
    }
    sent.enqueued = true;
    worker.call(sent).await;
    let child = worker.assignment().await;
    assert!(child.fetch_payload);
    let done = v1::Completion {
        token: child.token,
        result: Some(large.clone()),
        spawned: Vec::new(),
    };
    bulk.complete_large(done).await.unwrap();
    let end = end(worker.call_answer().await, 11);
    assert!(end.result_deferred && end.result.is_none());
    let fetch = v1::FetchResultRequest {
        token: Some(parent),
        n: 1,
    };
    let fetched = bulk.fetch_result(fetch).await.unwrap().into_inner();
    assert_eq!(fetched.result, Some(large));
}

/// The id of what it calls has the time of its own.
#[tokio::test]
async fn the_run_of_a_task_of_long_ago_calls_too() {
    let broker = Broker::start().await;
    let long_ago = SystemClock::new().now() - 2 * MIN_DEDUP_TTL;
    let parent = v1::EnqueueRequest {
        id: id_at(long_ago),
        first_send: true,
        ..task("parent")
    };
    broker.tasks().await.enqueue(parent).await.unwrap();
    let mut worker = Worker::connect(&broker, 1, NAMES).await;
    let parent = worker.assignment().await.token.unwrap();
    // Sent again, so it is looked up.
    let again = v1::RunCall {
        again: true,
        ..call(&parent, 1)
    };
    worker.call(again).await;
    let child = worker.assignment().await;
    worker.complete(child.token, json("2")).await;
    assert_eq!(end(worker.call_answer().await, 11).result, Some(json("2")));
}

#[tokio::test]
async fn what_a_run_makes_has_no_key() {
    let broker = Broker::start().await;
    let (mut worker, parent) = running(&broker).await;
    let options = v1::TaskOptions {
        key: Some("k".into()),
        ..v1::TaskOptions::default()
    };
    let keyed = v1::RunCall {
        options: Some(options),
        ..call(&parent, 1)
    };
    worker.call(keyed).await;
    let refused = refusal(worker.call_answer().await);
    assert!(refused.message.starts_with("options.key"), "{refused:?}");
}

#[tokio::test]
async fn a_bad_call_is_told_to_its_run_and_one_of_nobody_ends_the_session() {
    let broker = Broker::start().await;
    let (mut worker, parent) = running(&broker).await;
    let mut bad = call(&parent, 1);
    bad.name = "no name".into();
    worker.call(bad).await;
    let refused = refusal(worker.call_answer().await);
    assert!(refused.message.starts_with("name holds ' '"), "{refused:?}");
    // Nothing was made of it, and its number is free.
    let mut once = call(&parent, 1);
    once.options = Some(v1::TaskOptions {
        at_most_once: true,
        ..v1::TaskOptions::default()
    });
    worker.call(once).await;
    let refused = refusal(worker.call_answer().await);
    assert!(refused.message.contains("needs a store that is durable"), "{refused:?}");
    for (bad, said) in [
        (
            v1::RunCall {
                n: 0,
                ..call(&parent, 1)
            },
            "calls.n is 0",
        ),
        (
            v1::RunCall {
                token: None,
                ..call(&parent, 1)
            },
            "token is missing",
        ),
    ] {
        let worker = Worker::connect(&broker, 1, NAMES).await;
        worker.call(bad).await;
        let status = worker.end().await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(status.message().starts_with(said), "{status:?}");
    }
}

#[tokio::test]
async fn what_is_withdrawn_is_cancelled_and_answered() {
    let broker = Broker::start().await;
    let (mut worker, parent) = running(&broker).await;
    worker.call(call(&parent, 1)).await;
    let child = worker.assignment().await;
    worker
        .send(v1::WorkRequest {
            withdrawn: vec![call(&parent, 1)],
            ..Default::default()
        })
        .await;
    assert_eq!(worker.stop_run().await.token, child.token);
    worker
        .send(v1::WorkRequest {
            ended: child.token.into_iter().collect(),
            ..Default::default()
        })
        .await;
    assert_eq!(end(worker.call_answer().await, 11).state(), TaskState::Cancelled);
}

#[tokio::test]
async fn spawned_tasks_come_with_the_completion() {
    let broker = Broker::start().await;
    let (mut worker, parent) = running(&broker).await;
    let done = v1::Completion {
        token: Some(parent.clone()),
        result: Some(json("1")),
        spawned: vec![call(&parent, 1), call(&parent, 2)],
    };
    for _ in 0..2 {
        worker
            .send(v1::WorkRequest {
                completions: vec![done.clone()],
                ..Default::default()
            })
            .await;
    }
    assert!(!worker.ack().await.stale);
    assert!(worker.ack().await.stale);
    for _ in 0..2 {
        let child = worker.assignment().await;
        assert_eq!(child.name, "child");
        worker.complete(child.token, json("null")).await;
        worker.ack().await;
    }
    let list = v1::ListQueuesRequest::default();
    let queues = broker
        .admin()
        .await
        .list_queues(list)
        .await
        .unwrap()
        .into_inner()
        .queues;
    assert_eq!((queues[0].succeeded, queues[0].ready, queues[0].running), (3, 0, 0));
}

/// The worker is not to blame for what its handlers want.
#[tokio::test]
async fn spawned_tasks_that_cannot_be_fail_their_run_only() {
    for (what, said) in [
        (
            v1::TaskOptions {
                niceness: 99,
                ..v1::TaskOptions::default()
            },
            "options.niceness is 99",
        ),
        (
            v1::TaskOptions {
                at_most_once: true,
                ..v1::TaskOptions::default()
            },
            "a store that is durable",
        ),
    ] {
        let broker = Broker::start().await;
        let (mut worker, parent) = running(&broker).await;
        let mut child = call(&parent, 1);
        child.options = Some(what);
        let done = v1::Completion {
            token: Some(parent.clone()),
            result: Some(json("1")),
            spawned: vec![call(&parent, 2), child],
        };
        worker
            .send(v1::WorkRequest {
                completions: vec![done],
                ..Default::default()
            })
            .await;
        let ack = worker.ack().await;
        assert_eq!((ack.stale, ack.state()), (false, TaskState::Dead));
        let show = v1::ShowRequest { id: parent.task_id };
        let shown = broker.tasks().await.show(show).await.unwrap().into_inner();
        assert!(shown.error.unwrap().message.contains(said));

        // Nothing else came of it.
        let list = v1::ListQueuesRequest::default();
        let queues = broker
            .admin()
            .await
            .list_queues(list)
            .await
            .unwrap()
            .into_inner()
            .queues;
        assert_eq!((queues[0].dead, queues[0].ready, queues[0].running), (1, 0, 0));
    }
}
