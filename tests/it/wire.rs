//! The unary calls, as any gRPC client can make them, and what a refusal carries.

use std::time::Duration;

use asynq_proto::limits::{INLINE_BYTES, MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES};
use asynq_proto::v1::operation::Op;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self, cancelled::Outcome};
use asynq_tests::{Cluster, PATIENCE, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

type Tasks = TasksClient<Channel>;

async fn tasks(cluster: &Cluster) -> Tasks {
    let connected = within("a connection", PATIENCE, Tasks::connect(cluster.broker.url())).await;
    connected
        .unwrap()
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(2 * MAX_MESSAGE_BYTES)
}

fn task(name: &str, json: impl Into<String>) -> v1::EnqueueRequest {
    v1::EnqueueRequest {
        name: name.into(),
        payload: Some(v1::Payload {
            content_type: String::new(),
            data: json.into().into(),
        }),
        ..Default::default()
    }
}

async fn enqueue(tasks: &mut Tasks, task: v1::EnqueueRequest) -> v1::Enqueued {
    within("an enqueue", PATIENCE, tasks.enqueue(task))
        .await
        .unwrap()
        .into_inner()
}

async fn wait(tasks: &mut Tasks, id: &[u8]) -> v1::Finished {
    let request = v1::WaitRequest { id: id.to_vec().into() };
    within("the end", PATIENCE, tasks.wait(request))
        .await
        .unwrap()
        .into_inner()
}

#[track_caller]
fn refused(status: &Status, code: Code, reason: &str, part: &str) {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "asynq"),
        "{status:?}"
    );
    assert!(status.message().contains(part), "{part}: {status:?}");
}

#[tokio::test]
async fn a_task_without_an_id_gets_one_and_goes_round() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let mut tasks = tasks(&cluster).await;
    let enqueued = enqueue(&mut tasks, task("echo", "[1]")).await;
    assert_eq!((enqueued.id.len(), enqueued.id[6] >> 4), (16, 7), "it is a UUIDv7");
    assert!(!enqueued.existed && enqueued.worker_known);

    let finished = wait(&mut tasks, &enqueued.id).await;
    assert_eq!(finished.state(), v1::TaskState::Succeeded);
    assert_eq!(finished.result.as_ref().unwrap().data, "[1]");
    assert_eq!(finished.stats.unwrap().attempts, 1);
    assert_eq!(
        wait(&mut tasks, &enqueued.id).await,
        finished,
        "by any reader, any time"
    );

    let id = enqueued.id;
    let shown = tasks
        .show(v1::ShowRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((shown.name.as_str(), shown.state()), ("echo", v1::TaskState::Succeeded));
    let explained = tasks
        .explain(v1::ExplainRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(explained.reason, "finished");
    let cancelled = tasks.cancel(v1::CancelRequest { id }).await.unwrap().into_inner();
    assert_eq!(cancelled.outcome(), Outcome::Finished);
}

#[tokio::test]
async fn the_same_id_is_the_same_task() {
    let cluster = Cluster::start().await;
    let mut tasks = tasks(&cluster).await;
    let first = enqueue(&mut tasks, task("transcode", "1")).await;
    assert!(!first.worker_known, "nobody has registered it");
    let again = |json: &str| v1::EnqueueRequest {
        id: first.id.clone(),
        ..task("transcode", json)
    };
    let second = enqueue(&mut tasks, again("1")).await;
    assert!(second.existed && second.id == first.id);
    let other = tasks.enqueue(again("2")).await.unwrap_err();
    refused(&other, Code::AlreadyExists, "TASK_EXISTS", "");

    let id = first.id.clone();
    let cancelled = tasks.cancel(v1::CancelRequest { id }).await.unwrap().into_inner();
    assert_eq!(
        (cancelled.outcome(), cancelled.state()),
        (Outcome::Cancelled, v1::TaskState::Cancelled)
    );
    // Ended or not.
    let third = enqueue(&mut tasks, again("1")).await;
    assert!(third.existed);
    assert_eq!(wait(&mut tasks, &first.id).await.state(), v1::TaskState::Cancelled);
}

#[tokio::test]
async fn every_refusal_has_its_reason() {
    let cluster = Cluster::start().await;
    let mut tasks = tasks(&cluster).await;
    let options = |options: v1::TaskOptions| v1::EnqueueRequest {
        options: Some(options),
        ..task("echo", "1")
    };
    let ahead = uuid::Timestamp::from_unix(uuid::NoContext, 4_000_000_000, 0);
    let with_id = |id: Vec<u8>| v1::EnqueueRequest {
        id: id.into(),
        ..task("echo", "1")
    };
    for (bad, reason, part) in [
        (task("", "1"), "INVALID_FIELD", "name"),
        (task("a b", "1"), "INVALID_FIELD", "name"),
        (with_id(vec![1]), "INVALID_FIELD", "id"),
        (with_id(uuid::Uuid::new_v7(ahead).into()), "ID_IN_FUTURE", "clock"),
        (
            task("echo", "x".repeat(MAX_PAYLOAD_BYTES + 1)),
            "PAYLOAD_TOO_LARGE",
            "4194304",
        ),
        (
            options(v1::TaskOptions {
                niceness: -21,
                ..Default::default()
            }),
            "INVALID_FIELD",
            "niceness",
        ),
        (
            options(v1::TaskOptions {
                max_timeouts: Some(1001),
                ..Default::default()
            }),
            "INVALID_FIELD",
            "max_timeouts",
        ),
        (
            options(v1::TaskOptions {
                queue: "ä".into(),
                ..Default::default()
            }),
            "INVALID_FIELD",
            "queue",
        ),
    ] {
        let status = tasks.enqueue(bad).await.unwrap_err();
        refused(&status, Code::InvalidArgument, reason, part);
    }

    let id = vec![
        1, 0x9a, 0xab, 0x6c, 0x7d, 0x3e, 0x7c, 0x41, 0x9f, 0x0e, 0x3b, 0x5d, 0x2a, 0x64, 0xe8, 0xf1,
    ];
    for status in [
        tasks.wait(v1::WaitRequest { id: id.clone().into() }).await.unwrap_err(),
        tasks.show(v1::ShowRequest { id: id.clone().into() }).await.unwrap_err(),
        tasks
            .cancel(v1::CancelRequest { id: id.clone().into() })
            .await
            .unwrap_err(),
        tasks
            .explain(v1::ExplainRequest { id: id.clone().into() })
            .await
            .unwrap_err(),
    ] {
        refused(&status, Code::NotFound, "TASK_NOT_FOUND", "019aab6c");
    }
}

#[tokio::test]
async fn large_values_go_round_in_unary_calls() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let mut tasks = tasks(&cluster).await;
    for bytes in [INLINE_BYTES, INLINE_BYTES + 1, MAX_PAYLOAD_BYTES] {
        let value = format!("\"{}\"", "x".repeat(bytes - 2));
        let enqueued = enqueue(&mut tasks, task("echo", value.clone())).await;
        let finished = wait(&mut tasks, &enqueued.id).await;
        assert!(!finished.result_deferred);
        let result = finished.result.unwrap().data;
        assert!(result == value, "{bytes} bytes went, {} came back", result.len());
    }
}

#[tokio::test]
async fn a_session_that_asks_for_too_much_at_once_is_ended() {
    let cluster = Cluster::start().await;
    let mut tasks = tasks(&cluster).await;
    let waited_for = enqueue(&mut tasks, task("transcode", "1")).await.id;
    let (requests, outgoing) = mpsc::channel(1);
    let send = async |request| drop(requests.send(request).await); // the end of the session is seen below
    send(v1::SessionRequest {
        hello: Some(v1::SessionHello {
            client: "it".into(),
            ..Default::default()
        }),
        operations: Vec::new(),
    })
    .await;
    let mut replies = tasks.session(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let first = within("welcome", PATIENCE, replies.message()).await.unwrap().unwrap();
    let most = u64::from(first.welcome.unwrap().max_outstanding);
    let waits = |calls: std::ops::Range<u64>| {
        let wait = |call| v1::Operation {
            call,
            op: Some(Op::Wait(v1::WaitRequest { id: waited_for.clone() })),
        };
        v1::SessionRequest {
            hello: None,
            operations: calls.map(wait).collect(),
        }
    };
    let all = async {
        for call in (0..most).step_by(512) {
            send(waits(call..(call + 512).min(most))).await;
        }
        // That was as many as it may have unanswered.
        send(waits(most..most + 1)).await;
    };
    let ended = async {
        loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => break status,
            }
        }
    };
    let ((), status) = within("the end of the session", PATIENCE, async { tokio::join!(all, ended) }).await;
    refused(&status, Code::ResourceExhausted, "LIMIT_REACHED", &most.to_string());
    // Others do not notice.
    let quick = Duration::from_secs(10);
    within("another caller", quick, tasks.show(v1::ShowRequest { id: waited_for }))
        .await
        .unwrap();
}
