//! Bad input: refused with code and reason, naming the field; nothing is stored.

use std::time::Duration;

use asynq_proto::limits::MAX_PAYLOAD_BYTES;
use asynq_proto::v1::{self, answer::Of, operation::Op};
use asynqd::clock::{Clock, SystemClock};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::harness::{Broker, Session, Worker, hello, id_at, new_id, reason, soon, task};

#[tokio::test]
async fn malformed_tasks_are_refused_the_same_in_calls_and_sessions() {
    let broker = Broker::start().await;
    let (mut tasks, mut session) = (broker.tasks().await, Session::open(&broker).await);
    let with = |options: v1::TaskOptions| v1::EnqueueRequest {
        options: Some(options),
        ..task("echo")
    };
    let options = v1::TaskOptions::default;
    let large = v1::Payload {
        data: vec![b'1'; MAX_PAYLOAD_BYTES + 1].into(),
        ..Default::default()
    };
    let ahead = SystemClock::new().now() + Duration::from_mins(6);
    for (bad, expected, part) in [
        (
            v1::EnqueueRequest {
                name: String::new(),
                ..task("")
            },
            "INVALID_FIELD",
            "name",
        ),
        (task("no spaces"), "INVALID_FIELD", "name"),
        (
            v1::EnqueueRequest {
                id: vec![1, 2, 3].into(),
                ..task("echo")
            },
            "INVALID_FIELD",
            "id",
        ),
        (
            v1::EnqueueRequest {
                id: vec![9; 16].into(),
                ..task("echo")
            },
            "INVALID_FIELD",
            "UUIDv7",
        ),
        (
            v1::EnqueueRequest {
                id: id_at(ahead),
                ..task("echo")
            },
            "ID_IN_FUTURE",
            "clock",
        ),
        (
            v1::EnqueueRequest {
                payload: Some(large),
                ..task("echo")
            },
            "PAYLOAD_TOO_LARGE",
            "4194304",
        ),
        (
            with(v1::TaskOptions {
                niceness: 21,
                ..options()
            }),
            "INVALID_FIELD",
            "-20 to 20",
        ),
        (
            with(v1::TaskOptions {
                delay_ms: 1,
                start_at_ms: 1,
                ..options()
            }),
            "INVALID_FIELD",
            "delay_ms",
        ),
        (
            with(v1::TaskOptions {
                timeout_ms: u64::MAX,
                ..options()
            }),
            "INVALID_FIELD",
            "timeout_ms",
        ),
        (
            with(v1::TaskOptions {
                max_attempts: Some(0),
                ..options()
            }),
            "INVALID_FIELD",
            "1 to 1000",
        ),
        (
            with(v1::TaskOptions {
                deadline_ms: 1,
                ..options()
            }),
            "INVALID_FIELD",
            "deadline",
        ),
    ] {
        let status = tasks.enqueue(bad.clone()).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, expected),
            "{status:?}"
        );
        assert!(status.message().contains(part), "{part}: {status:?}");
        session
            .ask([Op::Enqueue(v1::EnqueueRequest { wait: true, ..bad })])
            .await;
        let (_, Of::Error(error)) = session.answer().await else {
            panic!("{part} was accepted")
        };
        assert_eq!(
            (error.code, error.reason.as_str()),
            (Code::InvalidArgument as i32, expected)
        );
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    let queues = broker
        .admin()
        .await
        .list_queues(v1::ListQueuesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .queues;
    assert!(
        queues
            .iter()
            .all(|queue| queue.ready + queue.scheduled + queue.dead == 0),
        "{queues:?}"
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_told_apart() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    for (id, code, expected) in [
        (new_id(), Code::NotFound, "TASK_NOT_FOUND"),
        (vec![].into(), Code::InvalidArgument, "INVALID_FIELD"),
        (vec![0; 16].into(), Code::InvalidArgument, "INVALID_FIELD"),
    ] {
        for status in [
            tasks.show(v1::ShowRequest { id: id.clone() }).await.unwrap_err(),
            tasks.explain(v1::ExplainRequest { id: id.clone() }).await.unwrap_err(),
            tasks.wait(v1::WaitRequest { id: id.clone() }).await.unwrap_err(),
            tasks.cancel(v1::CancelRequest { id: id.clone() }).await.unwrap_err(),
        ] {
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
        }
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_operation_of_no_kind_is_refused_alone() {
    let broker = Broker::start().await;
    let (requests, outgoing) = mpsc::channel(4);
    let hello = Some(v1::SessionHello::default());
    let operations = vec![v1::Operation { call: 5, op: None }];
    requests.send(v1::SessionRequest { hello, operations }).await.unwrap();
    let mut replies = broker
        .tasks()
        .await
        .session(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    assert!(soon(replies.message()).await.unwrap().unwrap().welcome.is_some());
    let reply = soon(replies.message()).await.unwrap().unwrap();
    assert!(matches!(&reply.answers[0], v1::Answer { call: 5, of: Some(Of::Error(e)) } if e.reason == "INVALID_FIELD"));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn streams_begin_with_hello() {
    let broker = Broker::start().await;
    let (requests, outgoing) = mpsc::channel(4);
    requests.send(v1::SessionRequest::default()).await.unwrap();
    let mut replies = broker
        .tasks()
        .await
        .session(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let status = loop {
        match soon(replies.message()).await {
            Ok(reply) => assert!(reply.unwrap().answers.is_empty()),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "SESSION_EXPECTED_HELLO")
    );

    let (requests, outgoing) = mpsc::channel(4);
    requests
        .send(v1::WorkRequest {
            heartbeat: 1,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut replies = broker
        .workers()
        .await
        .work(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let status = soon(replies.message()).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "SESSION_EXPECTED_HELLO")
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn malformed_workers_are_turned_away() {
    let broker = Broker::start().await;
    for (bad, part) in [
        (
            v1::WorkHello {
                slots: 0,
                ..hello(1, &["echo"])
            },
            "hello.slots",
        ),
        (
            v1::WorkHello {
                worker: "a b".into(),
                ..hello(1, &["echo"])
            },
            "hello.worker",
        ),
        (hello(1, &["no spaces"]), "hello.tasks.name"),
        (
            v1::WorkHello {
                resume: vec![1].into(),
                ..hello(1, &[])
            },
            "hello.resume",
        ),
    ] {
        let status = Worker::say_hello(&broker, bad).await.err().unwrap();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        assert!(status.message().contains(part), "{part}: {status:?}");
    }
    // A bad message ends a good session.
    let worker = Worker::connect(&broker, 1, &["echo"]).await;
    worker
        .send(v1::WorkRequest {
            released: vec![v1::LeaseToken::default()],
            ..Default::default()
        })
        .await;
    let status = worker.end().await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    broker.stop().await.unwrap();
}
