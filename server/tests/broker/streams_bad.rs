//! Streams gone wrong: the wrong reader, the wrong worker, the wrong items.

use asynq_proto::v1::emit_frame::Frame as Emitted;
use asynq_proto::v1::{self, DeadReason, StopCause, TaskState, operation::Op};
use tonic::Code;

use crate::harness::{Broker, Session, Worker, json, new_id, reason, task};
use crate::streaming::{Emit, Rows, credit, rows};

const BYTES: u64 = 8 * 1024 * 1024;

#[tokio::test]
async fn a_stream_has_one_reader_once() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let request = rows(Some(credit(0, 5, BYTES)));
    let reader = Rows::open(&mut tasks, request.clone()).await.unwrap();
    let other = v1::IterateRequest {
        consumer_id: vec![9; 16].into(),
        ..request.clone()
    };
    let taken = tasks.iterate(other.clone()).await.unwrap_err();
    assert_eq!(
        (taken.code(), reason(&taken).as_str()),
        (Code::AlreadyExists, "BEING_READ")
    );
    let same_name = tasks.iterate(request.clone()).await.unwrap_err();
    assert_eq!(
        (same_name.code(), reason(&same_name).as_str()),
        (Code::Aborted, "STALE_READER")
    );
    let stop = v1::StopRequest {
        consumer_id: vec![9; 16].into(),
        ..reader.stop()
    };
    assert_eq!(reason(&tasks.stop(stop).await.unwrap_err()), "BEING_READ");
    let flow = v1::FlowRequest {
        consumer_id: vec![9; 16].into(),
        ..reader.flow(credit(0, 99, BYTES))
    };
    tasks.flow(flow).await.unwrap();
    // None of this has disturbed the first.
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    assert_eq!(emit.credit().await, credit(0, 5, BYTES));
    emit.items(1, 1).await;
    emit.end().await;
    emit.ack().await;
    let mut reader = reader;
    reader.items_up_to(1).await;
    reader.end().await;
    // What nobody has acknowledged is still there; other content is another task.
    let mut again = Rows::open(&mut tasks, other).await.unwrap();
    again.items_up_to(1).await;
    assert_eq!(again.end().await.count, 1);
    let different = v1::IterateRequest {
        task: Some(v1::EnqueueRequest {
            payload: Some(json("2")),
            ..request.task.clone().unwrap()
        }),
        ..request
    };
    assert_eq!(reason(&tasks.iterate(different).await.unwrap_err()), "TASK_EXISTS");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let good = rows(None);
    for (bad, part) in [
        (
            v1::IterateRequest {
                consumer_id: vec![1; 3].into(),
                ..good.clone()
            },
            "consumer_id",
        ),
        (
            v1::IterateRequest {
                task: Some(task("no spaces")),
                ..good.clone()
            },
            "name",
        ),
        (
            v1::IterateRequest {
                auto_ack: false,
                ..good.clone()
            },
            "credit",
        ),
        (
            v1::IterateRequest {
                detach_grace_ms: Some(86_400_001),
                ..good.clone()
            },
            "detach_grace_ms",
        ),
        (
            v1::IterateRequest {
                from_index: 3,
                from: Some(v1::StreamPosition::default()),
                ..good.clone()
            },
            "from.index",
        ),
    ] {
        let status = tasks.iterate(bad).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_FIELD");
        assert!(status.message().contains(part), "{part}: {status:?}");
    }
    let flow = v1::FlowRequest {
        id: new_id(),
        consumer_id: vec![1; 16].into(),
        ..Default::default()
    };
    assert_eq!(reason(&tasks.flow(flow.clone()).await.unwrap_err()), "INVALID_FIELD");
    let mut session = Session::open(&broker).await;
    session.ask([Op::Flow(flow)]).await;
    let (_, v1::answer::Of::Error(error)) = session.answer().await else {
        panic!("a malformed flow is an error")
    };
    assert_eq!(error.reason, "INVALID_FIELD");
    // A plain task has no stream to stop.
    let id = tasks.enqueue(task("echo")).await.unwrap().into_inner().id;
    let stop = v1::StopRequest {
        id,
        consumer_id: vec![1; 16].into(),
    };
    let status = tasks.stop(stop.clone()).await.unwrap_err();
    assert!(status.message().contains("Cancel"), "{status:?}");
    let unknown = v1::StopRequest { id: new_id(), ..stop };
    assert_eq!(reason(&tasks.stop(unknown).await.unwrap_err()), "TASK_NOT_FOUND");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn items_beyond_the_credit_end_the_task() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 2, BYTES)))).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(2, 1).await;
    emit.items(1, 1).await;
    assert_eq!(worker.stop_run().await.cause(), StopCause::Stale);
    reader.items_up_to(2).await;
    let end = reader.end().await;
    let finished = end.finished.unwrap();
    assert_eq!((end.count, finished.dead_reason()), (2, DeadReason::Error));
    let message = finished.error.unwrap().message;
    assert!(message.contains("beyond the credit"), "{message}");
    while emit.control().await.unwrap().is_some() {}
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_does_not_add_up_ends_its_emit_stream() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 9, BYTES)))).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(1, 3).await;
    let torn = v1::ItemBatch {
        first_index: 1,
        first_byte: 3,
        lengths: vec![2],
        data: b"777".as_slice().into(),
        content_type: String::new(),
    };
    emit.say(Emitted::Items(torn)).await;
    let status = loop {
        match emit.control().await {
            Ok(control) => assert!(control.is_some(), "ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&status), "INVALID_FIELD");
    // The worker gives up, and the reader hears of it.
    worker
        .send(v1::WorkRequest {
            ended: vec![emit.token],
            ..Default::default()
        })
        .await;
    assert_eq!(worker.ack().await.state(), TaskState::Dead);
    reader.items_up_to(1).await;
    let finished = reader.end().await.finished.unwrap();
    assert_eq!(finished.dead_reason(), DeadReason::WorkerLost);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn only_who_holds_the_run_may_emit() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 9, BYTES)))).await.unwrap();
    let run = worker.assignment().await;
    let token = run.token.unwrap();
    let other = Worker::connect(&broker, 1, &["echo"]).await;
    let ours = worker.welcome.session.clone();
    let old = v1::LeaseToken {
        attempt: token.attempt + 1,
        ..token.clone()
    };
    for (token, session) in [(token.clone(), other.welcome.session.clone()), (old, ours.clone())] {
        let emit = Emit::open(&broker, token, session).await;
        assert!(emit.ack().await.stale);
    }
    let nameless = Emit::open(&broker, token.clone(), vec![1, 2].into()).await;
    let mut nameless = nameless;
    assert_eq!(reason(&nameless.control().await.unwrap_err()), "INVALID_FIELD");
    let mut emit = Emit::open(&broker, token, ours).await;
    emit.items(1, 1).await;
    emit.end().await;
    assert_eq!(emit.ack().await.state(), TaskState::Succeeded);
    reader.items_up_to(1).await;
    reader.end().await;
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_no_success() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 9, BYTES)))).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(1, 1).await;
    emit.say(Emitted::End(v1::EmitEnd { count: 2, digest: None })).await;
    assert_eq!(emit.ack().await.state(), TaskState::Dead);
    reader.items_up_to(1).await;
    let end = reader.end().await;
    assert_eq!((end.count, end.finished.unwrap().state()), (1, TaskState::Dead));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_worker_ends_its_streams() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(None)).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(1, 1).await;
    reader.items_up_to(1).await;
    // It comes back, and has lost the run.
    let resume = v1::WorkHello {
        resume: worker.welcome.session.clone(),
        ..crate::harness::hello(1, &["rows"])
    };
    let _again = Worker::say_hello(&broker, resume).await.unwrap();
    let finished = reader.end().await.finished.unwrap();
    assert_eq!(finished.dead_reason(), DeadReason::WorkerLost);
    broker.stop().await.unwrap();
}
