//! Callers' sessions: how they end, and what they may have under way.

use asynq_proto::v1::operation::Op;
use asynq_proto::v1::{self, answer::Of};
use tonic::Code;

use crate::harness::{Broker, Session, Worker, json, new_id, reason, task};

#[tokio::test]
async fn a_half_closed_session_is_answered_to_the_end() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let known = task("echo");
    let wait = Op::Wait(v1::WaitRequest { id: known.id.clone() });
    let unknown = Op::Wait(v1::WaitRequest { id: new_id() });
    session.ask([Op::Enqueue(known), wait, unknown]).await;
    let worker = tokio::spawn(async move {
        let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
        let run = worker.assignment().await;
        worker.complete(run.token, json("1")).await;
        worker.ack().await;
        broker
    });
    let mut answers = session.half_close().await;
    answers.sort_by_key(|(call, _)| *call);
    let [(1, Of::Enqueued(_)), (2, Of::Finished(_)), (3, Of::Error(error))] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(error.reason, "TASK_NOT_FOUND");
    worker.await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_forgotten_wait_is_not_answered() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let request = v1::EnqueueRequest {
        wait: true,
        ..task("echo")
    };
    let id = request.id.clone();
    let call = session.ask([Op::Enqueue(request)]).await;
    session.answer().await;
    session
        .ask([
            Op::Forget(v1::Forget { call }),
            Op::Wait(v1::WaitRequest { id: id.clone() }),
        ])
        .await;
    session.ask([Op::Cancel(v1::CancelRequest { id })]).await;
    let mut calls = [session.answer().await.0, session.answer().await.0];
    calls.sort_unstable();
    assert_eq!(calls, [call + 2, call + 3], "the wait that stayed, and the cancel");
    assert_eq!(session.half_close().await, []);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_asks_too_much_is_cut_off() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let id = broker
        .tasks()
        .await
        .enqueue(task("echo"))
        .await
        .unwrap()
        .into_inner()
        .id;
    let wait = || Op::Wait(v1::WaitRequest { id: id.clone() });
    session.ask((0..session.welcome.max_outstanding).map(|_| wait())).await;
    session.ask([wait()]).await;
    let status = session.next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "LIMIT_REACHED")
    );
    broker.stop().await.unwrap();
}
