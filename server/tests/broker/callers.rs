//! What callers can do, through a session and through unary calls.

use std::time::Duration;

use asynq_proto::v1::operation::Op;
use asynq_proto::v1::{self, TaskState, answer::Of};
use bytes::Bytes;
use tonic::{Code, Request};

use crate::harness::{Broker, Session, Worker, json, reason, soon, task};

fn state(of: &Of) -> TaskState {
    match of {
        Of::Finished(finished) => finished.state(),
        other => panic!("not finished: {other:?}"),
    }
}

#[tokio::test]
async fn a_session_sees_its_task_through() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    assert!(session.welcome.epoch > 0 && session.welcome.max_outstanding > 0);
    let request = v1::EnqueueRequest {
        wait: true,
        ..task("echo")
    };
    let id = request.id.clone();
    let call = session.ask([Op::Enqueue(request)]).await;
    let (answered, Of::Enqueued(enqueued)) = session.answer().await else {
        panic!("not accepted")
    };
    assert_eq!(
        (answered, &enqueued.id, enqueued.existed, enqueued.worker_known),
        (call, &id, false, false)
    );

    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    assert_eq!(
        (run.name.as_str(), run.queue.as_str(), run.payload),
        ("echo", "default", Some(json("1")))
    );
    worker.complete(run.token.clone(), json("2")).await;
    let ack = worker.ack().await;
    assert_eq!(
        (ack.token, ack.stale, ack.state),
        (run.token, false, TaskState::Succeeded as i32)
    );

    let (answered, Of::Finished(finished)) = session.answer().await else {
        panic!("not finished")
    };
    assert_eq!(
        (answered, &finished.id, finished.state()),
        (call, &id, TaskState::Succeeded)
    );
    assert_eq!((finished.result, finished.result_deferred), (Some(json("2")), false));
    assert_eq!(finished.stats.unwrap().attempts, 1);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn unary_calls_do_the_same_one_at_a_time() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let request = v1::EnqueueRequest {
        id: Bytes::new(),
        ..task("echo")
    };
    let id = tasks.enqueue(request).await.unwrap().into_inner().id;
    let shown = tasks
        .show(v1::ShowRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (shown.name.as_str(), shown.state(), shown.payload_bytes),
        ("echo", TaskState::Ready, 1)
    );
    let why = tasks
        .explain(v1::ExplainRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((why.reason.as_str(), why.state()), ("no_worker", TaskState::Ready));

    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    let waiting = tokio::spawn({
        let (mut tasks, id) = (tasks.clone(), id.clone());
        async move { tasks.wait(v1::WaitRequest { id }).await }
    });
    worker.fail(run.token, "no luck", true).await;
    let finished = soon(waiting).await.unwrap().unwrap().into_inner();
    assert_eq!(
        (finished.state(), finished.dead_reason()),
        (TaskState::Dead, v1::DeadReason::Error)
    );
    assert_eq!(finished.error.unwrap().message, "no luck");

    // The same once more, from the store.
    let finished = tasks
        .wait(v1::WaitRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (finished.state(), finished.error.unwrap().message.as_str()),
        (TaskState::Dead, "no luck")
    );
    let shown = tasks
        .show(v1::ShowRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (shown.state(), shown.reason.as_str(), shown.failures),
        (TaskState::Dead, "error", 1)
    );
    let why = tasks
        .explain(v1::ExplainRequest { id: id.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(why.reason, "finished");
    let cancelled = tasks.cancel(v1::CancelRequest { id }).await.unwrap().into_inner();
    assert_eq!(
        (cancelled.outcome(), cancelled.state()),
        (v1::cancelled::Outcome::Finished, TaskState::Dead)
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn the_same_id_is_the_same_task_or_a_conflict() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let first = task("echo");
    let again = v1::EnqueueRequest {
        first_send: false,
        ..first.clone()
    };
    let other = v1::EnqueueRequest {
        payload: Some(json("2")),
        ..again.clone()
    };
    assert!(!tasks.enqueue(first.clone()).await.unwrap().into_inner().existed);
    assert!(tasks.enqueue(again.clone()).await.unwrap().into_inner().existed);
    let status = tasks.enqueue(other.clone()).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "TASK_EXISTS")
    );

    // The same when it has ended, and only the store knows it.
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    worker.complete(run.token, json("true")).await;
    worker.ack().await;
    let mut session = Session::open(&broker).await;
    session
        .ask([
            Op::Enqueue(v1::EnqueueRequest { wait: true, ..again }),
            Op::Enqueue(other),
        ])
        .await;
    let mut answers = vec![session.answer().await, session.answer().await, session.answer().await];
    answers.sort_by_key(|(call, _)| *call);
    assert!(
        matches!(&answers[0], (1, Of::Enqueued(enqueued)) if enqueued.existed),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[1], (1, Of::Finished(end)) if end.result == Some(json("true"))),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[2], (2, Of::Error(error)) if error.reason == "TASK_EXISTS"),
        "{answers:?}"
    );
    // An unknown id that may have been sent before is looked up, then taken.
    let unsure = v1::EnqueueRequest {
        first_send: false,
        ..task("echo")
    };
    assert!(!tasks.enqueue(unsure).await.unwrap().into_inner().existed);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn operations_on_one_unknown_id_keep_their_order() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let request = v1::EnqueueRequest {
        first_send: false,
        ..task("echo")
    };
    let id = request.id.clone();
    let show = || Op::Show(v1::ShowRequest { id: id.clone() });
    let cancel = Op::Cancel(v1::CancelRequest { id: id.clone() });
    session
        .ask([
            show(),
            Op::Enqueue(request.clone()),
            show(),
            cancel,
            Op::Enqueue(request.clone()),
            show(),
        ])
        .await;
    let mut answers = Vec::new();
    while answers.len() < 6 {
        answers.push(session.answer().await);
    }
    answers.sort_by_key(|(call, _)| *call);
    let said: Vec<String> = answers
        .into_iter()
        .map(|(_, of)| match of {
            Of::Error(error) => error.reason,
            Of::Enqueued(enqueued) => format!("existed {}", enqueued.existed),
            Of::Shown(info) => info.state().as_str_name().to_owned(),
            Of::Cancelled(cancelled) => cancelled.outcome().as_str_name().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "TASK_NOT_FOUND",
        "existed false",
        "TASK_STATE_READY",
        "OUTCOME_CANCELLED",
        "existed true",
        "TASK_STATE_CANCELLED",
    ];
    assert_eq!(said, expected);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn cancel_ends_what_waits_and_stops_what_runs() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let waiting = tasks.enqueue(task("later")).await.unwrap().into_inner().id;
    let cancelled = tasks
        .cancel(v1::CancelRequest { id: waiting.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (cancelled.outcome(), cancelled.state()),
        (v1::cancelled::Outcome::Cancelled, TaskState::Cancelled)
    );
    let finished = tasks.wait(v1::WaitRequest { id: waiting }).await.unwrap().into_inner();
    assert_eq!(finished.state(), TaskState::Cancelled);

    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let mut session = Session::open(&broker).await;
    let request = v1::EnqueueRequest {
        wait: true,
        ..task("echo")
    };
    let id = request.id.clone();
    session.ask([Op::Enqueue(request)]).await;
    let run = worker.assignment().await;
    session.answer().await;
    session.ask([Op::Cancel(v1::CancelRequest { id: id.clone() })]).await;
    let (_, Of::Cancelled(cancelled)) = session.answer().await else {
        panic!("no answer to cancel")
    };
    assert_eq!(cancelled.outcome(), v1::cancelled::Outcome::Stopping);
    let stop = worker.stop_run().await;
    assert_eq!(
        (stop.token.clone(), stop.cause()),
        (run.token, v1::StopCause::Cancelled)
    );
    worker
        .send(v1::WorkRequest {
            ended: vec![stop.token.unwrap()],
            ..Default::default()
        })
        .await;
    assert!(!worker.ack().await.stale);
    assert_eq!(state(&session.answer().await.1), TaskState::Cancelled);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_wait_ends_with_its_deadline_and_the_task_goes_on() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let id = tasks.enqueue(task("echo")).await.unwrap().into_inner().id;
    let mut request = Request::new(v1::WaitRequest { id: id.clone() });
    request.set_timeout(Duration::from_millis(20));
    let status = tasks.wait(request).await.unwrap_err();
    // The client's own timer and the broker's race; either tells the same.
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    let shown = tasks.show(v1::ShowRequest { id }).await.unwrap().into_inner();
    assert_eq!(shown.state(), TaskState::Ready);
    broker.stop().await.unwrap();
}
