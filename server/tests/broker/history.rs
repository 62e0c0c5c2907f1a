//! What a task went through, told by a broker: by the session and by the unary
//! call, while it lives, after it has ended, after a restart.

use asynq_proto::v1::operation::Op;
use asynq_proto::v1::{self, TaskState, answer::Of};
use bytes::Bytes;
use tonic::Code;

use crate::harness::{Broker, Session, Worker, json, reason, soon, task};

async fn history(broker: &Broker, id: &Bytes) -> Vec<v1::Transition> {
    let request = v1::HistoryRequest { id: id.clone() };
    let reply = broker.tasks().await.history(request).await.unwrap().into_inner();
    assert_eq!(reply.id, id);
    reply.transitions
}

fn causes(told: &[v1::Transition]) -> Vec<&str> {
    told.iter().map(|step| step.cause.as_str()).collect()
}

#[tokio::test]
async fn a_story_outlives_the_task_and_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let mut tasks = broker.tasks().await;
    let mut request = task("echo");
    let id = request.id.clone();
    request.options = Some(v1::TaskOptions {
        max_attempts: Some(2),
        ..v1::TaskOptions::default()
    });
    tasks.enqueue(request).await.unwrap();
    assert_eq!(causes(&history(&broker, &id).await), ["enqueued"]);

    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    assert_eq!(causes(&history(&broker, &id).await), ["enqueued", "granted"]);
    worker.fail(run.token, "no luck", true).await;
    worker.ack().await;
    let told = history(&broker, &id).await;
    let failed = &told[2];
    assert_eq!(
        (failed.from(), failed.to(), failed.attempt, failed.cause.as_str()),
        (TaskState::Running, TaskState::Scheduled, 1, "failed")
    );
    assert!(failed.message.ends_with(": no luck"), "{failed:?}");
    let why = tasks.explain(v1::ExplainRequest { id: id.clone() }).await;
    let why = why.unwrap().into_inner();
    // Its back-off may be over already.
    if why.reason == "not_due" {
        assert!(why.message.starts_with("Attempt 1 failed ("), "{why:?}");
        assert!(why.details["failure"].ends_with(": no luck"), "{why:?}");
    }
    let run = worker.assignment().await;
    worker.complete(run.token, json("2")).await;
    worker.ack().await;

    let told = history(&broker, &id).await;
    let whole = ["enqueued", "granted", "failed", "due", "granted", "completed"];
    assert_eq!(causes(&told), whole);
    assert!(told.is_sorted_by_key(|step| step.at_ms), "{told:?}");
    let end = &told[5];
    assert_eq!((end.to(), end.attempt), (TaskState::Succeeded, 2));
    assert!(!end.worker.is_empty() && end.worker == told[1].worker, "{told:?}");
    let shown = tasks
        .show(v1::ShowRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.worker, end.worker, "who ran it is known afterwards");
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    assert_eq!(history(&broker, &id).await, told, "told again after a restart");
    let mut session = Session::open(&broker).await;
    session.ask([Op::History(v1::HistoryRequest { id: id.clone() })]).await;
    let (_, Of::History(reply)) = soon(session.answer()).await else {
        panic!("another answer")
    };
    assert_eq!(reply.transitions, told);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_nobody_knows_has_none() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let id = task("echo").id;
    let refused = tasks.history(v1::HistoryRequest { id }).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "TASK_NOT_FOUND")
    );
    let id = Bytes::from_static(b"short");
    let refused = tasks.history(v1::HistoryRequest { id }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    broker.stop().await.unwrap();
}
