//! What operators ask of tasks that have ended: run again, or be forgotten.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use asynq_core::limits::DEAD_TTL;
use asynq_proto::v1::{self, TaskState};
use asynqd::Backing;
use asynqd::clock::{Clock, ManualClock, SystemClock};
use asynqd::limits::DRAIN_TIMEOUT;
use bytes::Bytes;
use tonic::Code;

use crate::harness::{Broker, Worker, json, new_id, reason, soon, task};
use crate::listing::{enqueue, ids, request};

async fn retry(broker: &Broker, ids: &[Bytes]) -> Vec<v1::Retried> {
    let ids = ids.to_vec();
    let request = v1::RetryTasksRequest { ids };
    let reply = soon(broker.admin().await.retry_tasks(request)).await;
    reply.unwrap().into_inner().tasks
}

async fn purge(broker: &Broker, ids: &[Bytes], states: &[TaskState]) -> Vec<v1::Purged> {
    let request = v1::PurgeTasksRequest {
        ids: ids.to_vec(),
        states: states.iter().map(|&state| state.into()).collect(),
    };
    let reply = soon(broker.admin().await.purge_tasks(request)).await;
    reply.unwrap().into_inner().tasks
}

async fn show(broker: &Broker, id: &Bytes) -> Result<v1::TaskInfo, String> {
    let shown = broker.tasks().await.show(v1::ShowRequest { id: id.clone() }).await;
    shown.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

/// Enqueues it and has it fail for good.
async fn dead(broker: &Broker, worker: &mut Worker, request: v1::EnqueueRequest) -> (Bytes, Option<v1::LeaseToken>) {
    let id = enqueue(broker, request).await;
    let token = worker.assignment().await.token;
    worker.fail(token.clone(), "so", false).await;
    worker.ack().await;
    (id, token)
}

fn refusal(error: Option<v1::OperationError>) -> (Code, String) {
    let error = error.expect("a refusal");
    assert!(!error.message.is_empty());
    (Code::from_i32(error.code), error.reason)
}

async fn counts(broker: &Broker) -> (u64, u64, u64) {
    let queues = broker
        .admin()
        .await
        .list_queues(v1::ListQueuesRequest::default())
        .await
        .unwrap();
    let queues = queues.into_inner().queues;
    queues.first().map_or((0, 0, 0), |queue| {
        (queue.ready + queue.running, queue.succeeded, queue.dead)
    })
}

/// On a disk and in memory; the first life's arguments, small and large, come again.
#[tokio::test]
async fn dead_tasks_run_again_with_their_arguments() {
    let dir = tempfile::tempdir().unwrap();
    for broker in [Broker::on_disk(dir.path()).await, Broker::start().await] {
        let mut worker = Worker::connect(&broker, 1, &["work"]).await;
        let large = json(&format!("\"{}\"", "x".repeat(300_000)));
        let mut tasks = Vec::new();
        for payload in [json("1"), large.clone()] {
            let request = v1::EnqueueRequest {
                payload: Some(payload),
                ..task("work")
            };
            tasks.push(dead(&broker, &mut worker, request).await);
        }
        assert_eq!(counts(&broker).await, (0, 0, 2));
        for ((id, before), payload) in tasks.into_iter().zip([json("1"), large]) {
            let retried = retry(&broker, &[id.clone(), id.clone()]).await;
            let lives = |revived| v1::Retried {
                id: id.clone(),
                revived,
                state: if revived { TaskState::Ready } else { TaskState::Running }.into(),
                error: None,
            };
            assert_eq!(retried, [lives(true), lives(false)]);
            let run = worker.assignment().await;
            let token = run.token.clone().unwrap();
            assert_eq!((&token.task_id, token.attempt), (&id, 2));
            let arguments = if run.fetch_payload {
                let request = v1::FetchPayloadRequest {
                    token: run.token.clone(),
                };
                broker
                    .workers()
                    .await
                    .fetch_payload(request)
                    .await
                    .unwrap()
                    .into_inner()
            } else {
                run.payload.unwrap()
            };
            assert!(arguments == payload, "the arguments come again");
            // What the first run has to say is of no interest any more.
            worker.complete(before, json("0")).await;
            assert!(worker.ack().await.stale);
            let shown = show(&broker, &id).await.unwrap();
            assert_eq!((shown.state(), shown.failures), (TaskState::Running, 0));
            assert_eq!(shown.error.unwrap().message, "so");
            worker.complete(run.token, json("2")).await;
            worker.ack().await;
            let end = broker.tasks().await.wait(v1::WaitRequest { id }).await.unwrap();
            assert_eq!(end.into_inner().result, Some(json("2")));
        }
        assert_eq!(counts(&broker).await, (0, 2, 0));
        drop(worker);
        broker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_retried_is_refused_one_by_one() {
    let broker = Broker::start().await;
    let mut worker = Worker::connect(&broker, 1, &["work"]).await;
    let (dead, _) = dead(&broker, &mut worker, task("work")).await;
    let succeeded = enqueue(&broker, task("work")).await;
    let run = worker.assignment().await;
    worker.complete(run.token, json("1")).await;
    worker.ack().await;
    let ready = enqueue(&broker, task("nobody")).await;
    let all = retry(&broker, &[succeeded.clone(), new_id(), ready, dead]).await;
    let not_dead = refusal(all[0].error.clone());
    assert_eq!(not_dead, (Code::FailedPrecondition, "NOT_DEAD".to_owned()));
    assert!(all[0].error.as_ref().unwrap().message.contains("succeeded"));
    assert_eq!(
        refusal(all[1].error.clone()),
        (Code::NotFound, "TASK_NOT_FOUND".to_owned())
    );
    assert_eq!(
        (all[2].error.as_ref(), all[2].revived, all[2].state()),
        (None, false, TaskState::Ready)
    );
    assert_eq!(
        (all[3].error.as_ref(), all[3].revived, all[3].state()),
        (None, true, TaskState::Ready)
    );

    let mut admin = broker.admin().await;
    for (ids, part) in [
        (vec![], "1 to 1000"),
        (vec![succeeded.clone(); 1_001], "1 to 1000"),
        (vec![Bytes::from_static(b"x")], "16"),
    ] {
        let status = admin.retry_tasks(v1::RetryTasksRequest { ids }).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(status.message().contains(part), "{status:?}");
    }
    for states in [
        vec![],
        vec![TaskState::Dead.into(), TaskState::Running.into()],
        vec![99],
    ] {
        let ids = vec![succeeded.clone()];
        let status = admin
            .purge_tasks(v1::PurgeTasksRequest { ids, states })
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(status.message().contains("states"), "{status:?}");
    }
    broker.stop().await.unwrap();
}

/// Gone before the answer: from listings, look-ups and counts, and after a restart.
#[tokio::test]
async fn purged_tasks_are_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let mut worker = Worker::connect(&broker, 1, &["work"]).await;
    let (first, _) = dead(&broker, &mut worker, task("work")).await;
    let (second, _) = dead(&broker, &mut worker, task("work")).await;
    let ready = enqueue(&broker, task("nobody")).await;
    let asked = [first.clone(), ready.clone(), new_id(), first.clone()];
    let purged = purge(&broker, &asked, &[TaskState::Dead]).await;
    assert_eq!((purged[0].error.as_ref(), purged[0].state()), (None, TaskState::Dead));
    let other = (Code::FailedPrecondition, "OTHER_STATE".to_owned());
    assert_eq!(refusal(purged[1].error.clone()), other);
    for twice in [&purged[2], &purged[3]] {
        assert_eq!(
            refusal(twice.error.clone()),
            (Code::NotFound, "TASK_NOT_FOUND".to_owned())
        );
    }
    assert_eq!(show(&broker, &first).await, Err("TASK_NOT_FOUND".to_owned()));
    assert_eq!(
        retry(&broker, slice::from_ref(&first)).await[0]
            .error
            .as_ref()
            .unwrap()
            .code,
        5
    );
    let listed = broker.admin().await.list_tasks(request()).await.unwrap().into_inner();
    assert_eq!(ids(&listed), [&ready[..], &second]);
    assert_eq!(counts(&broker).await, (1, 0, 1));
    // In another state than the one that is purged it stays.
    let purged = purge(&broker, slice::from_ref(&second), &[TaskState::Cancelled]).await;
    assert_eq!(refusal(purged[0].error.clone()), other);
    drop(worker);
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    assert_eq!(counts(&broker).await, (1, 0, 1));
    assert_eq!(show(&broker, &first).await, Err("TASK_NOT_FOUND".to_owned()));
    assert_eq!(retry(&broker, slice::from_ref(&second)).await[0].error, None);
    assert_eq!(show(&broker, &second).await.unwrap().state(), TaskState::Ready);
    broker.stop().await.unwrap();
}

/// A resend that comes after the purge is of a task that has been. On a disk and in
/// memory, and after a restart, for as long as ids are remembered.
#[tokio::test]
async fn a_purged_task_does_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    for on_disk in [true, false] {
        let open = || {
            if on_disk {
                Backing::sqlite(dir.path()).unwrap()
            } else {
                Backing::memory()
            }
        };
        let mut broker = Broker::with(open(), clock.clone(), DRAIN_TIMEOUT).await;
        let mut worker = Worker::connect(&broker, 1, &["work"]).await;
        let first = v1::EnqueueRequest {
            id: crate::harness::id_at(clock.now()),
            ..task("work")
        };
        let (id, _) = dead(&broker, &mut worker, first.clone()).await;
        let purged = purge(&broker, slice::from_ref(&id), &[TaskState::Dead]).await;
        assert_eq!(purged[0].error, None);
        let again = v1::EnqueueRequest {
            first_send: false,
            ..first
        };
        for restarted in [false, true] {
            if restarted && !on_disk {
                break;
            }
            if restarted {
                drop(worker);
                broker.stop().await.unwrap();
                broker = Broker::with(open(), clock.clone(), DRAIN_TIMEOUT).await;
                worker = Worker::connect(&broker, 1, &["work"]).await;
            }
            let mut tasks = broker.tasks().await;
            let enqueued = tasks.enqueue(again.clone()).await.unwrap().into_inner();
            assert_eq!((enqueued.id, enqueued.existed), (id.clone(), true));
            let other = v1::EnqueueRequest {
                payload: Some(json("2")),
                ..again.clone()
            };
            assert_eq!(reason(&tasks.enqueue(other).await.unwrap_err()), "TASK_EXISTS");
            // How it ended is gone.
            let wait = v1::WaitRequest { id: id.clone() };
            assert_eq!(reason(&tasks.wait(wait).await.unwrap_err()), "RESULT_EXPIRED");
            assert_eq!(show(&broker, &id).await, Err("TASK_NOT_FOUND".to_owned()));
            let cancel = v1::CancelRequest { id: id.clone() };
            assert_eq!(reason(&tasks.cancel(cancel).await.unwrap_err()), "TASK_NOT_FOUND");
            assert_eq!(counts(&broker).await, (0, 0, 0));
            let listed = broker.admin().await.list_tasks(request()).await.unwrap();
            assert!(listed.into_inner().tasks.is_empty());
        }
        // The worker's one slot is free: another task is the next it gets.
        let next = enqueue(&broker, task("work")).await;
        assert_eq!(worker.assignment().await.token.unwrap().task_id, next);
        drop(worker);
        broker.stop().await.unwrap();
    }
}

/// Whether it has been swept away by then or not: that must not show, nor hurt.
#[tokio::test]
async fn a_task_whose_time_is_over_is_gone_for_operators() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let mut worker = Worker::connect(&broker, 1, &["work"]).await;
    let (retried, _) = dead(&broker, &mut worker, task("work")).await;
    let (purged, _) = dead(&broker, &mut worker, task("work")).await;
    clock.advance(DEAD_TTL - Duration::from_millis(1));
    let lives = retry(&broker, slice::from_ref(&retried)).await;
    assert_eq!((lives[0].error.as_ref(), lives[0].revived), (None, true));
    clock.advance(Duration::from_millis(1));
    for id in [&retried, &purged] {
        let error = purge(&broker, slice::from_ref(id), &[TaskState::Dead])
            .await
            .remove(0)
            .error;
        let reason = if id == &retried {
            "OTHER_STATE"
        } else {
            "TASK_NOT_FOUND"
        };
        assert_eq!(refusal(error).1, reason);
    }
    assert_eq!(retry(&broker, &[purged]).await[0].error.as_ref().unwrap().code, 5);
    assert_eq!(show(&broker, &retried).await.unwrap().state(), TaskState::Ready);
    broker.stop().await.unwrap();
}
