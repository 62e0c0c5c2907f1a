//! Items stream back: their order, their credit, their end.

use asynq_proto::limits::MAX_PAYLOAD_BYTES;
use asynq_proto::v1::emit_frame::Frame as Emitted;
use asynq_proto::v1::{self, DeadReason, StopCause, TaskState, operation::Op};
use asynqd::limits::{AUTO_ACK_ITEMS, STREAM_BACKLOG_BYTES, STREAM_BACKLOG_ITEMS};
use futures_util::FutureExt;

use crate::harness::{Broker, Session, Worker, new_id, reason, soon, task};
use crate::streaming::{Emit, Gate, Rows, credit, produce, rows};

const BYTES: u64 = 8 * 1024 * 1024;

#[tokio::test]
async fn items_come_in_order_and_the_end_last() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 4, BYTES)))).await.unwrap();
    let (mut emit, room) = Emit::next_run(&broker, &mut worker).await;
    assert_eq!(room, credit(0, 4, BYTES));
    emit.items(3, 2).await;
    let first = reader.items().await;
    assert_eq!((&first.lengths[..], &first.data[..]), (&[2, 2, 2][..], &b"777777"[..]));
    emit.items(1, 0).await;
    assert_eq!(reader.items().await.lengths, [0]);
    let mut session = Session::open(&broker).await;
    session.ask([Op::Flow(reader.flow(credit(4, 8, BYTES)))]).await;
    assert_eq!(emit.credit_up_to(8).await, credit(4, 8, BYTES));
    emit.items(2, 1).await;
    emit.end().await;
    let ack = emit.ack().await;
    assert_eq!((ack.stale, ack.state()), (false, TaskState::Succeeded));
    reader.items_up_to(6).await;
    let end = reader.end().await;
    assert_eq!((end.count, end.finished.unwrap().state()), (6, TaskState::Succeeded));
    assert_eq!(session.half_close().await, [], "a flow is not answered");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_run_that_opens_emit_late_is_told_the_latest_credit_at_once() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let reader = Rows::open(&mut tasks, rows(Some(credit(0, 1, BYTES)))).await.unwrap();
    let run = worker.assignment().await;
    for limit in [5, 9, 7] {
        tasks.flow(reader.flow(credit(0, limit, BYTES))).await.unwrap();
    }
    assert_eq!(run.stream, Some(credit(0, 1, BYTES)));
    let mut emit = Emit::open(&broker, run.token.unwrap(), worker.welcome.session.clone()).await;
    assert_eq!(emit.credit().await, credit(0, 9, BYTES), "totals only rise");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_takes_nothing_bounds_what_the_broker_holds() {
    const ITEM: usize = 100 * 1024;
    const COUNT: u64 = 200;
    // What this client's HTTP/2 window (2 MiB) and the broker's buffers for it
    // may hold besides.
    const SLACK: u64 = 3 * 1024 * 1024;
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    // It says that it has room for everything, and then does not read.
    let endless = credit(0, u64::MAX, u64::MAX);
    let mut reader = Rows::open(&mut tasks, rows(Some(endless))).await.unwrap();
    let (mut emit, room) = Emit::next_run(&broker, &mut worker).await;
    assert_eq!(room, credit(0, STREAM_BACKLOG_ITEMS, STREAM_BACKLOG_BYTES));
    let mut limit = room.limit_bytes;
    while emit.sent < COUNT {
        if emit.bytes + ITEM as u64 <= limit {
            emit.items(1, ITEM).await;
            continue;
        }
        // Only reading makes room again.
        reader.items().await;
        if let Some(Ok(Some(control))) = emit.control().now_or_never() {
            limit = control.credit.unwrap().limit_bytes;
        }
        assert!(limit <= reader.bytes + STREAM_BACKLOG_BYTES + SLACK);
    }
    assert!(emit.bytes > 2 * STREAM_BACKLOG_BYTES);
    emit.end().await;
    reader.items_up_to(COUNT).await;
    assert_eq!(reader.end().await.count, COUNT);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_comes_beyond_the_credit_and_the_slot_is_lent_meanwhile() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows", "echo"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 2, BYTES)))).await.unwrap();
    let (mut emit, room) = Emit::next_run(&broker, &mut worker).await;
    emit.items(2, 10).await;
    tasks.enqueue(task("echo")).await.unwrap();
    emit.say(Emitted::Blocked(room)).await;
    let other = worker.assignment().await;
    assert_eq!((other.name.as_str(), other.stream), ("echo", None));
    reader.items_up_to(2).await;
    tasks.flow(reader.flow(credit(2, 3, BYTES))).await.unwrap();
    emit.credit_up_to(3).await;
    emit.items(1, 10).await;
    emit.end().await;
    assert_eq!(emit.ack().await.state(), TaskState::Succeeded);
    reader.items_up_to(3).await;
    reader.end().await;
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn stop_ends_the_run_and_then_the_stream() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut session = Session::open(&broker).await;
    for by_session in [false, true] {
        let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 9, BYTES)))).await.unwrap();
        let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
        emit.items(2, 1).await;
        reader.items_up_to(2).await;
        let answer = if by_session {
            session.ask([Op::Stop(reader.stop())]).await;
            let (_, v1::answer::Of::Cancelled(cancelled)) = session.answer().await else {
                panic!("a stop is answered as a cancel")
            };
            cancelled
        } else {
            tasks.stop(reader.stop()).await.unwrap().into_inner()
        };
        assert_eq!(answer.outcome(), v1::cancelled::Outcome::Stopping);
        let stop = worker.stop_run().await;
        assert_eq!(
            (stop.token.as_ref(), stop.cause()),
            (Some(&emit.token), StopCause::Cancelled)
        );
        // What was on its way is not handed on any more.
        emit.items(3, 1).await;
        worker
            .send(v1::WorkRequest {
                ended: vec![emit.token.clone()],
                ..Default::default()
            })
            .await;
        assert_eq!(worker.ack().await.state(), TaskState::Cancelled);
        while let Some(control) = emit.control().await.unwrap() {
            assert_eq!(control.ack, None, "the session was told");
        }
        let again = tasks.stop(reader.stop()).await.unwrap().into_inner();
        assert_eq!(again.outcome(), v1::cancelled::Outcome::Finished);
        let end = reader.end().await;
        assert_eq!((end.count, end.finished.unwrap().state()), (2, TaskState::Cancelled));
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_its_task() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let reader = Rows::open(&mut tasks, rows(None)).await.unwrap();
    let (emit, _) = Emit::next_run(&broker, &mut worker).await;
    let id = reader.id.clone();
    drop(reader);
    let stop = worker.stop_run().await;
    assert_eq!(
        (stop.token.as_ref(), stop.cause()),
        (Some(&emit.token), StopCause::Cancelled)
    );
    // The last item was just being sent: that is as good an end.
    emit.end().await;
    assert_eq!(emit.ack().await.state(), TaskState::Cancelled);
    // One whose task has not begun is gone at once.
    let waiting = v1::IterateRequest {
        task: Some(task("nobody")),
        ..rows(None)
    };
    let waiting = Rows::open(&mut tasks, waiting).await.unwrap();
    let other = waiting.id.clone();
    drop(waiting);
    for id in [id, other] {
        let finished = soon(tasks.wait(v1::WaitRequest { id })).await.unwrap().into_inner();
        assert_eq!(finished.state(), TaskState::Cancelled);
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_failure_comes_after_the_items_before_it() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 3, BYTES)))).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    // All credit is used up: the failure needs none.
    emit.items(3, 1).await;
    let failure = v1::TaskFailure {
        kind: "error".into(),
        message: "row 4 is torn".into(),
        trace: String::new(),
        retryable: true,
        crashed: false,
    };
    emit.say(Emitted::Failure(failure)).await;
    assert_eq!(emit.ack().await.state(), TaskState::Dead);
    reader.items_up_to(3).await;
    let end = reader.end().await;
    let finished = end.finished.unwrap();
    assert_eq!((end.count, finished.state()), (3, TaskState::Dead));
    assert_eq!(finished.dead_reason(), DeadReason::Error);
    assert_eq!(finished.error.unwrap().message, "row 4 is torn");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn items_do_not_overtake_the_acceptance_nor_the_end_its_commit() {
    let gate = Gate::default();
    let broker = Broker::on(gate.backing()).await;
    let mut worker = Worker::connect(&broker, 1, &["replayed", "echo"]).await;
    let mut tasks = broker.tasks().await;
    // An unknown id is looked up once all before it is durable.
    let unknown = v1::ShowRequest { id: new_id() };
    tasks.show(unknown).await.unwrap_err();
    gate.shut();
    let mut opening = tokio::spawn({
        let mut tasks = tasks.clone();
        // One that may not run again would wait for its claim.
        let request = v1::IterateRequest {
            task: Some(task("replayed")),
            ..rows(Some(credit(0, 2, BYTES)))
        };
        async move { Rows::open(&mut tasks, request).await.unwrap() }
    });
    // The run begins, and its items are taken in, before the task is durable.
    let (mut emit, room) = Emit::next_run(&broker, &mut worker).await;
    gate.holds().await;
    assert_eq!(emit.credit().await, room);
    emit.items(2, 5).await;
    emit.say(Emitted::Blocked(room)).await;
    let enqueue = tokio::spawn(async move { tasks.enqueue(task("echo")).await });
    // Its slot is lent: so the broker has seen the items.
    assert_eq!(worker.assignment().await.name, "echo");
    assert!((&mut opening).now_or_never().is_none(), "the task is not durable yet");
    gate.open();
    let mut reader = soon(opening).await.unwrap();
    reader.items_up_to(2).await;
    soon(enqueue).await.unwrap().unwrap();

    gate.shut();
    emit.end().await;
    gate.holds().await;
    assert!(reader.next().now_or_never().is_none(), "the end is not durable yet");
    assert!(emit.control().now_or_never().is_none(), "nor is the worker told");
    gate.open();
    assert_eq!(emit.ack().await.state(), TaskState::Succeeded);
    assert_eq!(reader.end().await.count, 2);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn the_broker_keeps_the_window_for_a_plain_client() {
    const COUNT: u64 = 20 * AUTO_ACK_ITEMS;
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(None)).await.unwrap();
    let (emit, room) = Emit::next_run(&broker, &mut worker).await;
    assert_eq!(room, credit(0, AUTO_ACK_ITEMS, STREAM_BACKLOG_BYTES));
    let producing = tokio::spawn(produce(emit, room, COUNT, 100));
    reader.items_up_to(COUNT).await;
    assert_eq!(soon(producing).await.unwrap().state(), TaskState::Succeeded);
    assert_eq!(reader.end().await.count, COUNT);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn the_largest_items_fit_one_after_the_other() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(None)).await.unwrap();
    let (emit, room) = Emit::next_run(&broker, &mut worker).await;
    let producing = tokio::spawn(produce(emit, room, 5, MAX_PAYLOAD_BYTES));
    reader.items_up_to(5).await;
    soon(producing).await.unwrap();
    reader.end().await;
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_stalled_stream_does_not_hold_up_another_on_its_connection() {
    const COUNT: u64 = 5_000;
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 2, &["rows"]).await;
    // Both share the connection of `tasks`; the first is not read.
    let mut stalled = Rows::open(&mut tasks, rows(Some(credit(0, 1_000, BYTES))))
        .await
        .unwrap();
    let (mut full, _) = Emit::next_run(&broker, &mut worker).await;
    for _ in 0..1_000 {
        full.items(1, 40).await;
    }
    let mut lively = Rows::open(&mut tasks, rows(None)).await.unwrap();
    let (emit, room) = Emit::next_run(&broker, &mut worker).await;
    let producing = tokio::spawn(produce(emit, room, COUNT, 100));
    lively.items_up_to(COUNT).await;
    soon(producing).await.unwrap();
    lively.end().await;
    stalled.items_up_to(1_000).await;
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn both_ends_are_told_of_the_shutdown() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 5, BYTES)))).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(1, 1).await;
    reader.items_up_to(1).await;
    broker.ask_to_stop();
    let told = loop {
        match emit.control().await {
            Ok(control) => assert!(control.is_some(), "ended without a word"),
            Err(status) => break status,
        }
    };
    for status in [reader.next().await.unwrap_err(), told] {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (tonic::Code::Unavailable, "SHUTTING_DOWN")
        );
    }
    broker.stop().await.unwrap();
}
