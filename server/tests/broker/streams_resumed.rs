//! Streams that go on where they were: over lost connections, restarts and workers.

use std::time::Duration;

use asynq_core::Place;
use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::v1::stream_frame::Frame;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self, StopCause, TaskState};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{Broker, Worker, hello, reason, soon, task};
use crate::streaming::{Emit, Rows, credit, rows};

const BYTES: u64 = 8 * 1024 * 1024;

/// A connection to the broker that can be cut.
struct Line {
    tasks: TasksClient<Channel>,
    forwarding: JoinHandle<()>,
}

impl Line {
    async fn to(broker: &Broker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, there) = (listener.local_addr().unwrap(), broker.address);
        let forwarding = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(there).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
        let channel = Endpoint::from_shared(format!("http://{here}")).unwrap().connect().await;
        Self {
            tasks: TasksClient::new(channel.unwrap()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            forwarding,
        }
    }

    /// Nothing is said any more, in either direction.
    fn cut(&self) {
        self.forwarding.abort();
    }
}

/// The place before item `index`, of items of `bytes` sevens each.
fn place(index: u64, bytes: usize) -> v1::StreamPosition {
    let mut place = Place::START;
    (0..index).for_each(|_| place.pass(&vec![b'7'; bytes]));
    v1::StreamPosition {
        index: place.index,
        byte: place.byte,
        digest: place.digest,
        digest_before_last: place.before,
    }
}

/// The same reader once more, from where it is.
fn again(request: &v1::IterateRequest, open_seq: u64, from: v1::StreamPosition) -> v1::IterateRequest {
    v1::IterateRequest {
        task: request.task.as_ref().map(|task| v1::EnqueueRequest {
            id: task.id.clone(),
            ..Default::default()
        }),
        attach: true,
        open_seq,
        from_index: from.index,
        from: Some(from),
        ..request.clone()
    }
}

async fn state(broker: &Broker, id: &bytes::Bytes) -> (TaskState, String) {
    let show = v1::ShowRequest { id: id.clone() };
    let shown = soon(broker.tasks().await.show(show)).await.unwrap().into_inner();
    (shown.state(), shown.reason)
}

#[tokio::test]
async fn a_reader_whose_connection_is_cut_goes_on_and_finds_the_end_too() {
    let broker = Broker::start().await;
    let mut line = Line::to(&broker).await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let request = rows(Some(credit(0, 4, BYTES)));
    let mut reader = Rows::open(&mut line.tasks, request.clone()).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(3, 2).await;
    reader.items_up_to(3).await;
    line.cut();
    reader.next().await.unwrap_err();
    emit.items(1, 2).await;

    let mut tasks = broker.tasks().await;
    let old = tasks.iterate(again(&request, 1, place(2, 2))).await.unwrap_err();
    assert_eq!((old.code(), reason(&old).as_str()), (Code::Aborted, "STALE_READER"));
    let wrong = tasks.iterate(again(&request, 2, place(2, 1))).await.unwrap_err();
    assert_eq!(reason(&wrong), "READ_OTHER_ITEMS");
    let line = Line::to(&broker).await;
    let mut tasks = line.tasks.clone();
    let more = v1::IterateRequest {
        credit: Some(credit(2, 6, BYTES)),
        ..again(&request, 2, place(2, 2))
    };
    let mut reader = Rows::open(&mut tasks, more.clone()).await.unwrap();
    assert_eq!((reader.got, reader.bytes), (2, 4), "from the item it wanted");
    reader.items_up_to(4).await;
    emit.credit_up_to(6).await;
    emit.items(2, 2).await;
    line.cut();
    emit.end().await;
    assert_eq!(emit.ack().await.state(), TaskState::Succeeded);

    // The task is over, its worker free; what nobody has acknowledged is kept.
    let mut tasks = broker.tasks().await;
    let below = tasks.iterate(again(&request, 3, place(1, 2))).await.unwrap_err();
    assert_eq!(
        (below.code(), reason(&below).as_str()),
        (Code::OutOfRange, "BELOW_FLOOR")
    );
    assert!(below.message().contains("ask for item 2"), "{below:?}");
    let mut reader = Rows::open(&mut tasks, again(&more, 3, place(3, 2))).await.unwrap();
    reader.items_up_to(6).await;
    let end = reader.end().await;
    assert_eq!((end.count, end.finished.unwrap().state()), (6, TaskState::Succeeded));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_cut_leaves_the_task_its_grace_and_the_end_of_the_call_does_not() {
    let broker = Broker::start().await;
    let line = Line::to(&broker).await;
    let mut worker = Worker::connect(&broker, 2, &["rows"]).await;
    let mut tasks = line.tasks.clone();
    let hasty = v1::IterateRequest {
        detach_grace_ms: Some(0),
        ..rows(Some(credit(0, 4, BYTES)))
    };
    let hasty = Rows::open(&mut tasks, hasty).await.unwrap();
    let patient = Rows::open(&mut tasks, rows(Some(credit(0, 4, BYTES)))).await.unwrap();
    let runs = [worker.assignment().await, worker.assignment().await];
    line.cut();
    let stop = worker.stop_run().await;
    assert_eq!(stop.token.unwrap().task_id, hasty.id);
    assert_eq!(state(&broker, &patient.id).await.0, TaskState::Running);
    drop(runs);

    // One that is not begun waits for its reader.
    let line = Line::to(&broker).await;
    let mut tasks = line.tasks.clone();
    let waiting = v1::IterateRequest {
        task: Some(task("nobody")),
        ..rows(Some(credit(0, 4, BYTES)))
    };
    let waiting = Rows::open(&mut tasks, waiting).await.unwrap();
    line.cut();
    soon(async {
        while state(&broker, &waiting.id).await.1 != "waiting_reader" {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // Who ends the call stops the task, and who says so leaves it to its grace.
    let mut tasks = broker.tasks().await;
    for (detach_on_reset, ends) in [(true, false), (false, true)] {
        let request = v1::IterateRequest {
            task: Some(task("nobody")),
            detach_on_reset,
            ..rows(Some(credit(0, 4, BYTES)))
        };
        let reader = Rows::open(&mut tasks, request).await.unwrap();
        let id = reader.id.clone();
        drop(reader);
        soon(async {
            loop {
                match state(&broker, &id).await {
                    (TaskState::Cancelled, _) => break assert!(ends, "detached, not stopped"),
                    (_, reason) if reason == "waiting_reader" => break assert!(!ends, "stopped, not detached"),
                    _ => tokio::task::yield_now().await,
                }
            }
        })
        .await;
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_emit_that_breaks_goes_on_from_where_the_broker_is() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let mut reader = Rows::open(&mut tasks, rows(Some(credit(0, 9, BYTES)))).await.unwrap();
    let (mut emit, room) = Emit::next_run(&broker, &mut worker).await;
    emit.items(2, 3).await;
    reader.items_up_to(2).await;
    let (token, session) = (emit.token.clone(), worker.welcome.session.clone());
    drop(emit);
    let resume = v1::EmitResume {
        floor: Some(place(0, 3)),
        head: 5,
        credit: Some(room),
    };
    let mut emit = Emit::resume(&broker, token, session, Some(resume)).await;
    let told = emit.control().await.unwrap().unwrap();
    assert_eq!((told.from, told.credit), (Some(2), Some(room)));
    (emit.sent, emit.bytes) = (2, 6);
    emit.items(3, 3).await;
    emit.end().await;
    assert_eq!(emit.ack().await.state(), TaskState::Succeeded);
    reader.items_up_to(5).await;
    assert_eq!(reader.end().await.count, 5);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_is_a_gap_and_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let request = rows(Some(credit(0, 4, BYTES)));
    let mut reader = Rows::open(&mut broker.tasks().await, request.clone()).await.unwrap();
    let (mut emit, room) = Emit::next_run(&broker, &mut worker).await;
    emit.items(3, 2).await;
    reader.items_up_to(3).await;
    let (token, session) = (emit.token.clone(), worker.welcome.session.clone());
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    let resume = v1::EmitResume {
        floor: Some(place(0, 2)),
        head: 4,
        credit: Some(room),
    };
    // An Emit that comes before its session is to try again.
    let mut early = Emit::resume(&broker, token.clone(), session.clone(), Some(resume)).await;
    let told = early.control().await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "WORKER_AWAY")
    );
    let back = v1::WorkHello {
        resume: session.clone(),
        held: vec![token.clone()],
        ..hello(1, &["rows"])
    };
    let _worker = Worker::say_hello(&broker, back).await.unwrap();
    let mut tasks = broker.tasks().await;
    let mut reader = Rows::open(&mut tasks, again(&request, 2, place(3, 2))).await.unwrap();
    let mut emit = Emit::resume(&broker, token, session, Some(resume)).await;
    let told = emit.control().await.unwrap().unwrap();
    assert_eq!(told.from, Some(0), "the broker has nothing any more");
    emit.items(4, 2).await;
    emit.end().await;
    assert_eq!(emit.ack().await.state(), TaskState::Succeeded);
    reader.items_up_to(4).await;
    assert_eq!(reader.end().await.count, 4);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn without_broker_and_worker_the_reader_knows_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let mut worker = Worker::connect(&broker, 1, &["replayed"]).await;
    let request = v1::IterateRequest {
        task: Some(task("replayed")),
        ..rows(Some(credit(0, 4, BYTES)))
    };
    let mut reader = Rows::open(&mut broker.tasks().await, request.clone()).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(3, 2).await;
    reader.items_up_to(3).await;
    broker.stop().await.unwrap();

    let broker = Broker::on_disk(dir.path()).await;
    // Its session comes back without the run: it is another process.
    let back = v1::WorkHello {
        resume: worker.welcome.session.clone(),
        ..hello(1, &["replayed"])
    };
    let mut worker = Worker::say_hello(&broker, back).await.unwrap();
    let mut tasks = broker.tasks().await;
    let mut reader = Rows::open(&mut tasks, again(&request, 2, place(3, 2))).await.unwrap();
    let run = worker.assignment().await;
    assert_eq!(run.start, Some(place(3, 2)));
    let mut emit = Emit::open(&broker, run.token.unwrap(), worker.welcome.session.clone()).await;
    (emit.sent, emit.bytes) = (3, 6);
    emit.items(1, 2).await;
    emit.end().await;
    emit.ack().await;
    reader.items_up_to(4).await;
    reader.end().await;
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn another_process_takes_a_stream_over_and_the_first_is_told() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let request = rows(Some(credit(0, 3, BYTES)));
    let mut first = Rows::open(&mut tasks, request.clone()).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(3, 2).await;
    first.items_up_to(3).await;
    let other = v1::IterateRequest {
        consumer_id: vec![9; 16].into(),
        from: None,
        // In bytes from the item it wants.
        credit: Some(credit(0, 5, 6)),
        take_over: true,
        ..again(&request, 1, place(2, 2))
    };
    let mut second = Rows::open(&mut tasks, other).await.unwrap();
    assert_eq!((second.got, second.bytes), (2, 4));
    second.items_up_to(3).await;
    let told = first.next().await.unwrap_err();
    assert_eq!((told.code(), reason(&told).as_str()), (Code::Aborted, "STALE_READER"));
    drop(first);
    let room = emit.credit_up_to(5).await;
    assert!(room.limit_bytes >= 10);
    emit.items(2, 2).await;
    second.items_up_to(5).await;
    let stop = tasks.stop(second.stop()).await.unwrap().into_inner();
    assert_eq!(stop.outcome(), v1::cancelled::Outcome::Stopping);
    assert_eq!(worker.stop_run().await.cause(), StopCause::Cancelled);
    // Nothing is heard within a while of what the first one did.
    let quiet = tokio::time::timeout(Duration::from_millis(1), worker.stop_run()).await;
    assert!(quiet.is_err());
    drop(second);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_plain_task_is_no_stream_and_an_unknown_one_is_not_made() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let plain = task("echo");
    let request = v1::IterateRequest {
        task: Some(plain.clone()),
        ..rows(Some(credit(0, 3, BYTES)))
    };
    let unknown = tasks.iterate(again(&request, 1, place(0, 1))).await.unwrap_err();
    assert_eq!(reason(&unknown), "TASK_NOT_FOUND");
    tasks.enqueue(plain).await.unwrap();
    let plain = tasks.iterate(again(&request, 1, place(0, 1))).await.unwrap_err();
    assert_eq!(
        (plain.code(), reason(&plain).as_str()),
        (Code::FailedPrecondition, "NOT_A_STREAM")
    );
    let mut frames = soon(tasks.iterate(rows(None))).await.unwrap().into_inner();
    let first = soon(frames.message()).await.unwrap().unwrap();
    assert!(matches!(first.frame, Some(Frame::Opened(_))) && first.at.unwrap().index == 0);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_was_read_to_its_end_is_not_whole_from_its_middle_on() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 1, &["rows"]).await;
    let request = rows(Some(credit(0, 4, BYTES)));
    let mut reader = Rows::open(&mut tasks, request.clone()).await.unwrap();
    let (mut emit, _) = Emit::next_run(&broker, &mut worker).await;
    emit.items(4, 2).await;
    reader.items_up_to(4).await;
    tasks.flow(reader.flow(credit(4, 8, BYTES))).await.unwrap();
    emit.credit_up_to(8).await;
    emit.end().await;
    emit.ack().await;
    reader.end().await;
    let of_other = |from| v1::IterateRequest {
        consumer_id: vec![9; 16].into(),
        ..again(&request, 1, place(from, 2))
    };
    for (from, due) in [(1, "BELOW_FLOOR"), (5, "BEYOND_HEAD")] {
        let refused = tasks.iterate(of_other(from)).await.unwrap_err();
        assert_eq!(reason(&refused), due);
        assert!(refused.message().contains("item 4"), "{refused:?}");
    }
    let at_the_end = Rows::open(&mut tasks, of_other(4)).await.unwrap();
    assert_eq!(at_the_end.end().await.count, 4);
    let show = v1::ShowRequest {
        id: reader_id(&request),
    };
    let shown = soon(tasks.show(show)).await.unwrap().into_inner();
    assert_eq!(shown.result_bytes, 0, "items are no result");
    broker.stop().await.unwrap();
}

fn reader_id(request: &v1::IterateRequest) -> bytes::Bytes {
    request.task.as_ref().expect("a task").id.clone()
}
