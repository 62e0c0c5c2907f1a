//! Listings: what tasks are now, page by page, whatever happens meanwhile.

use asynq_proto::v1;
use asynq_proto::v1::TaskState::{self, Cancelled, Dead, Ready, Running, Scheduled, Succeeded};
use bytes::Bytes;
use tonic::Code;

use crate::harness::{Broker, Worker, json, reason, soon, task};

pub(crate) fn request() -> v1::ListTasksRequest {
    v1::ListTasksRequest::default()
}

async fn list(broker: &Broker, request: v1::ListTasksRequest) -> v1::ListTasksReply {
    soon(broker.admin().await.list_tasks(request))
        .await
        .unwrap()
        .into_inner()
}

pub(crate) async fn enqueue(broker: &Broker, request: v1::EnqueueRequest) -> Bytes {
    broker.tasks().await.enqueue(request).await.unwrap().into_inner().id
}

pub(crate) fn ids(reply: &v1::ListTasksReply) -> Vec<&[u8]> {
    reply.tasks.iter().map(|task| &task.id[..]).collect()
}

/// On a disk and in memory: as `show` has each of them, at once, whether the
/// store has heard of it or not.
#[tokio::test]
async fn tasks_are_listed_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    for broker in [Broker::on_disk(dir.path()).await, Broker::start().await] {
        let mut worker = Worker::connect(&broker, 3, &["work"]).await;
        let mut enqueued = Vec::new();
        let delayed = v1::TaskOptions {
            delay_ms: 3_600_000,
            queue: "q".into(),
            series: "s".into(),
            ..Default::default()
        };
        let later = v1::EnqueueRequest {
            options: Some(delayed),
            ..task("later")
        };
        for request in [
            later,
            task("nobody"),
            task("work"),
            task("work"),
            task("work"),
            task("nobody"),
        ] {
            enqueued.push(enqueue(&broker, request).await);
        }
        let runs = [
            worker.assignment().await,
            worker.assignment().await,
            worker.assignment().await,
        ];
        worker.complete(runs[0].token.clone(), json("1")).await;
        worker.ack().await;
        worker.fail(runs[1].token.clone(), "so", false).await;
        worker.ack().await;
        let mut tasks = broker.tasks().await;
        tasks
            .cancel(v1::CancelRequest {
                id: enqueued[5].clone(),
            })
            .await
            .unwrap();

        let all = list(&broker, request()).await;
        assert_eq!((all.tasks.len(), all.next.as_str()), (6, ""));
        assert!(all.now_ms >= all.tasks[0].enqueued_at_ms);
        let states: Vec<_> = all.tasks.iter().rev().map(v1::TaskInfo::state).collect();
        assert_eq!(states, [Scheduled, Ready, Succeeded, Dead, Running, Cancelled]);
        for listed in &all.tasks {
            let shown = tasks.show(v1::ShowRequest { id: listed.id.clone() }).await.unwrap();
            assert_eq!(listed, &shown.into_inner());
        }
        assert!(ids(&all).into_iter().rev().eq(enqueued.iter().map(Bytes::as_ref)));

        let in_states = async |states: &[TaskState]| {
            let states = states.iter().map(|&state| state.into()).collect();
            let page = list(&broker, v1::ListTasksRequest { states, ..request() }).await;
            assert_eq!(page.next, "");
            let places = page
                .tasks
                .iter()
                .map(|task| enqueued.iter().position(|id| *id == task.id));
            places.map(Option::unwrap).collect::<Vec<_>>()
        };
        for (n, &state) in states.iter().enumerate() {
            assert_eq!(in_states(&[state]).await, [n], "{state:?}");
        }
        assert_eq!(in_states(&[Running, Dead, Dead]).await, [4, 3]);
        assert_eq!(in_states(&[Scheduled, Ready, Running]).await, [4, 1, 0]);
        assert_eq!(
            in_states(&[TaskState::Stopping, TaskState::Expired]).await,
            [0_usize; 0]
        );

        let some = [
            (
                v1::ListTasksRequest {
                    name: "work".into(),
                    ..request()
                },
                3,
            ),
            (
                v1::ListTasksRequest {
                    queue: "q".into(),
                    ..request()
                },
                1,
            ),
            (
                v1::ListTasksRequest {
                    queue: "none".into(),
                    ..request()
                },
                0,
            ),
            (
                v1::ListTasksRequest {
                    series: Some(String::new()),
                    ..request()
                },
                5,
            ),
            (
                v1::ListTasksRequest {
                    since_ms: all.tasks[5].enqueued_at_ms,
                    ..request()
                },
                6,
            ),
            (
                v1::ListTasksRequest {
                    since_ms: all.now_ms + 60_000,
                    ..request()
                },
                0,
            ),
            (
                v1::ListTasksRequest {
                    name: "work".into(),
                    states: vec![Running.into()],
                    ..request()
                },
                1,
            ),
            (
                v1::ListTasksRequest {
                    name: "none".into(),
                    states: vec![Running.into()],
                    ..request()
                },
                0,
            ),
        ];
        for (request, count) in some {
            assert_eq!(list(&broker, request.clone()).await.tasks.len(), count, "{request:?}");
        }
        broker.stop().await.unwrap();
    }
}

/// Each once, whatever is enqueued, ends or starts between the pages.
#[tokio::test]
async fn pages_follow_one_another() {
    let broker = Broker::start().await;
    let mut enqueued = Vec::new();
    for _ in 0..20 {
        enqueued.push(enqueue(&broker, task("work")).await);
    }
    enqueued.reverse();
    let page = |limit, page: &str| v1::ListTasksRequest {
        limit,
        page: page.to_owned(),
        ..request()
    };
    let first = list(&broker, page(7, "")).await;
    assert_eq!(ids(&first), enqueued[..7]);
    // The oldest run and end, and new ones come.
    let mut worker = Worker::connect(&broker, 2, &["work"]).await;
    for _ in 0..5 {
        let run = worker.assignment().await;
        worker.complete(run.token, json("1")).await;
        worker.ack().await;
    }
    enqueue(&broker, task("work")).await;
    let second = list(&broker, page(7, &first.next)).await;
    assert_eq!(ids(&second), enqueued[7..14]);
    assert_eq!(
        ids(&list(&broker, page(7, &first.next)).await),
        enqueued[7..14],
        "again"
    );
    let third = list(&broker, page(7, &second.next)).await;
    assert_eq!((ids(&third), third.next.as_str()), (ids_of(&enqueued[14..]), ""));
    // A page that is full and the last one says so.
    let last = list(&broker, page(6, &second.next)).await;
    assert_eq!((last.tasks.len(), last.next.as_str()), (6, ""));

    // What runs is not looked for among all others; its pages are the same.
    let running = |limit, page: &str| v1::ListTasksRequest {
        states: vec![Running.into()],
        limit,
        page: page.to_owned(),
        ..request()
    };
    worker.assignment().await;
    worker.assignment().await;
    let first = list(&broker, running(1, "")).await;
    let second = list(&broker, running(1, &first.next)).await;
    assert_eq!([ids(&first), ids(&second)], [[&enqueued[13]], [&enqueued[14]]]);
    assert_eq!(second.next, "");
    broker.stop().await.unwrap();
}

fn ids_of(ids: &[Bytes]) -> Vec<&[u8]> {
    ids.iter().map(Bytes::as_ref).collect()
}

#[tokio::test]
async fn no_page_is_larger_than_a_message() {
    let broker = Broker::start().await;
    let mut worker = Worker::connect(&broker, 1, &["work"]).await;
    let trace = "x".repeat(8 * 1024);
    for _ in 0..300 {
        enqueue(&broker, task("work")).await;
        let failure = v1::Failure {
            token: worker.assignment().await.token,
            failure: Some(v1::TaskFailure {
                message: trace.clone(),
                trace: trace.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        worker
            .send(v1::WorkRequest {
                failures: vec![failure],
                ..Default::default()
            })
            .await;
        worker.ack().await;
    }
    let (mut pages, mut tasks, mut next) = (0, 0, String::new());
    loop {
        let request = v1::ListTasksRequest {
            limit: 10_000,
            page: next,
            ..request()
        };
        let page = list(&broker, request).await;
        assert!(!page.tasks.is_empty());
        (pages, tasks, next) = (pages + 1, tasks + page.tasks.len(), page.next);
        if next.is_empty() {
            break;
        }
    }
    assert_eq!(tasks, 300);
    assert!(pages > 2, "300 tasks with 16 KiB each came in {pages} pages");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn bad_requests_are_refused_naming_the_field() {
    let broker = Broker::start().await;
    let mut admin = broker.admin().await;
    for (bad, part) in [
        (
            v1::ListTasksRequest {
                limit: 10_001,
                ..request()
            },
            "limit is 10001, allowed are 1 to 10000",
        ),
        (
            v1::ListTasksRequest {
                states: vec![99],
                ..request()
            },
            "states holds 99",
        ),
        (
            v1::ListTasksRequest {
                name: "a b".into(),
                ..request()
            },
            "name holds ' '",
        ),
        (
            v1::ListTasksRequest {
                page: "7".into(),
                ..request()
            },
            "page is no token",
        ),
    ] {
        let status = admin.list_tasks(bad).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(status.message().contains(part), "{status:?}");
    }
    broker.stop().await.unwrap();
}
