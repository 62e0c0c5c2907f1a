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

/// A client's words that were under way on a connection it has given up come when what
/// it has sent again has run and ended already.
#[tokio::test]
async fn what_comes_late_on_an_older_connection_does_not_run_again() {
    let broker = Broker::start().await;
    let hello = |connection| v1::SessionHello {
        client_id: vec![7; 16].into(),
        connection,
        ..v1::SessionHello::default()
    };
    let mut first = Session::say_hello(&broker, hello(1)).await;
    let mut third = Session::say_hello(&broker, hello(3)).await;
    let again = v1::EnqueueRequest {
        wait: true,
        first_send: false,
        ..task("echo")
    };
    let late = v1::EnqueueRequest {
        first_send: true,
        ..again.clone()
    };
    third.ask([Op::Enqueue(again)]).await;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let run = worker.assignment().await;
    worker.complete(run.token, json("1")).await;
    assert!(matches!(third.answer().await.1, Of::Enqueued(_)));
    assert!(matches!(third.answer().await.1, Of::Finished(_)));
    // The first one is over; so is a second one whose very hello comes late.
    let mut second = Session::say_hello(&broker, hello(2)).await;
    for session in [&mut first, &mut second] {
        session.try_ask([Op::Enqueue(late.clone())]).await;
        let status = session.next().await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Aborted, "SESSION_SUPERSEDED")
        );
    }
    third.ask([Op::Show(v1::ShowRequest { id: late.id })]).await;
    let (_, Of::Shown(shown)) = third.answer().await else {
        panic!("the latest one goes on")
    };
    assert_eq!((shown.state(), shown.attempt), (v1::TaskState::Succeeded, 1));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_name_of_another_length_is_refused() {
    let broker = Broker::start().await;
    let hello = v1::SessionHello {
        client_id: vec![7; 3].into(),
        ..v1::SessionHello::default()
    };
    let status = Session::say_hello(&broker, hello).await.next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    assert!(status.message().contains("hello.client_id is 3 bytes long"), "{status}");
    broker.stop().await.unwrap();
}
