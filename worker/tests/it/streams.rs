//! Iterators: their items streamed as their reader has room, stopped, drained,
//! broken, or collected into one result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Assignment, Credit, ItemBatch, StopCause};
use asynq_worker::{Context, Iter, OnLoss, Payload, Task, TaskError, Worker};
use futures_util::{Stream, StreamExt, stream};

use crate::broker::{Broker, Emit, Link, assignment, end_of, run, token, until, welcome};

pub(crate) const ENDLESS: Iter<(), u64> = Iter::new("endless", OnLoss::Replay);

pub(crate) fn credit(limit_index: u64) -> Credit {
    Credit {
        acked: 0,
        limit_index,
        limit_bytes: 1 << 40,
    }
}

/// An assignment somebody reads.
pub(crate) fn read(n: u8, name: &str, args: &str, limit_index: u64) -> Assignment {
    Assignment {
        stream: Some(credit(limit_index)),
        ..assignment(n, name, args)
    }
}

pub(crate) fn split(batch: &ItemBatch) -> Vec<String> {
    let mut rest = &batch.data[..];
    let mut item = |length: &u32| {
        let (item, behind) = rest.split_at(*length as usize);
        rest = behind;
        String::from_utf8(item.to_vec()).unwrap()
    };
    batch.lengths.iter().map(&mut item).collect()
}

/// Items until there are this many.
pub(crate) async fn items(emit: &mut Emit, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        match emit.next().await.unwrap() {
            Frame::Items(batch) => all.extend(split(&batch)),
            other => panic!("{other:?} after {} items", all.len()),
        }
    }
    all
}

/// Says how far it has come, and that it is dropped.
#[derive(Default)]
pub(crate) struct Probe {
    pub(crate) yielded: AtomicU64,
}

fn probed(probe: &Arc<Probe>) -> impl Iterator<Item = Result<u64, TaskError>> + Send + use<> {
    let probe = probe.clone();
    (0..).map(move |i| {
        probe.yielded.store(i + 1, Ordering::SeqCst);
        Ok(i)
    })
}

pub(crate) fn alive(probe: &Arc<Probe>) -> bool {
    // The test's own, and the handler's.
    Arc::strong_count(probe) > 2
}

pub(crate) fn endless(broker: &Broker, probe: &Arc<Probe>, blocking: bool) -> asynq_worker::WorkerBuilder {
    let worker = Worker::builder(&broker.url()).slots(1).builtins();
    let probe = probe.clone();
    if blocking {
        worker.blocking_iter(ENDLESS, move |_, ()| probed(&probe))
    } else {
        worker.iter(ENDLESS, move |_, ()| stream::iter(probed(&probe)))
    }
}

/// The one slot is free again, and nothing was said of the runs before.
pub(crate) async fn runs_on(link: &mut Link) {
    link.assign(assignment(99, "echo", "1")).await;
    let said = link.next().await;
    assert_eq!(said.completions[0].token, Some(token(99)), "{said:?}");
    assert_eq!(said.completions.len() + said.ended.len() + said.released.len(), 1);
    link.ack(99).await;
}

#[tokio::test]
async fn items_stream_within_their_credit_and_the_end_is_acknowledged_there() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    let declared = |name: &str| {
        let task = link.hello.tasks.iter().find(|task| task.name == name).unwrap();
        (task.iterator, task.on_loss())
    };
    for name in ["count", "mandelbrot", "scan"] {
        assert_eq!(declared(name), (true, OnLoss::Replay.to_wire()));
    }
    assert_eq!(declared("echo"), (false, OnLoss::Fail.to_wire()));

    link.assign(read(1, "count", r#"{"n":1000,"bytes":3}"#, 10)).await;
    let mut emit = broker.emit().await;
    assert_eq!(emit.hello.token, Some(token(1)));
    assert_eq!(emit.hello.session, welcome().session);
    let mut all = items(&mut emit, 10).await;
    assert_eq!((all.len(), all[9].as_str()), (10, r#"{"i":9,"pad":"xxx"}"#));
    assert_eq!(emit.next_within(Duration::from_millis(50)).await, None);
    emit.grant(credit(400)).await;
    emit.grant(credit(200)).await; // late: means nothing
    all.extend(items(&mut emit, 390).await);
    assert_eq!(all.len(), 400);
    emit.grant(credit(2_000)).await;
    all.extend(items(&mut emit, 600).await);
    assert_eq!(all.last().unwrap(), r#"{"i":999,"pad":"xxx"}"#);
    assert_eq!(all.len(), 1_000);
    assert_eq!(emit.next().await, end_of(all));
    emit.ack().await;
    runs_on(&mut link).await;
}

#[tokio::test]
async fn count_does_as_it_is_documented() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    for (n, args, result) in [
        (1, r#"{"n":0}"#, Ok("[]")),
        (2, r#"{"n":2,"delay_us":1}"#, Ok(r#"[{"i":0},{"i":1}]"#)),
        (3, r#"{"n":1,"bytes":2}"#, Ok(r#"[{"i":0,"pad":"xx"}]"#)),
        (4, r#"{"n":1,"bytes":4194305}"#, Err(("rejected", "4194304"))),
        (
            5,
            r#"{"n":1,"bytes":4194304}"#,
            Err(("error", "the item is 4194320 bytes long")),
        ),
        (6, r#"{"count":1}"#, Err(("rejected", "unknown field `count`"))),
    ] {
        link.assign(assignment(n, "count", args)).await;
        let mut said = link.next().await;
        match result {
            Ok(result) => assert_eq!(said.completions.remove(0).result.unwrap().data, result),
            Err((kind, part)) => {
                let failure = said.failures.remove(0).failure.unwrap();
                assert_eq!((failure.kind.as_str(), failure.retryable), (kind, false));
                assert!(failure.message.contains(part), "{}", failure.message);
            }
        }
        link.ack(n).await;
    }
}

#[tokio::test]
async fn a_plain_task_that_is_iterated_yields_its_result() {
    let mut broker = Broker::start().await;
    let double = |_: Context, n: u32| Ok(2 * n);
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .builtins()
        .blocking(Task::<u32, u32>::new("double"), double);
    let _running = run(worker);
    let mut link = broker.accept().await;
    for (n, name, args, result) in [(1, "echo", " [1] ", " [1] "), (2, "double", "21", "42")] {
        link.assign(read(n, name, args, 10)).await;
        let mut emit = broker.emit().await;
        assert_eq!(items(&mut emit, 1).await, [result]);
        assert_eq!(emit.next().await, end_of([result]));
        emit.ack().await;
    }
    for (n, name, args, kind) in [(3, "fail", "null", "error"), (4, "double", "[]", "rejected")] {
        link.assign(read(n, name, args, 10)).await;
        let mut emit = broker.emit().await;
        match emit.next().await {
            Some(Frame::Failure(failure)) => assert_eq!(failure.kind, kind),
            other => panic!("{other:?}"),
        }
        emit.ack().await;
    }
    runs_on(&mut link).await;
}

#[tokio::test]
async fn an_iterator_may_tell_a_call_from_a_reader() {
    let mut broker = Broker::start().await;
    let worker = Worker::builder(&broker.url()).slots(1).builtins().raw_iter_or_call(
        "either",
        |_, args: Payload| stream::iter([Ok(args.clone()), Ok(args)]),
        |_, _| async { Ok(Payload::json("called").expect("JSON")) },
    );
    let _running = run(worker);
    let mut link = broker.accept().await;
    assert!(
        link.hello
            .tasks
            .iter()
            .any(|task| task.name == "either" && task.iterator)
    );
    link.assign(read(1, "either", "7", 10)).await;
    let mut emit = broker.emit().await;
    assert_eq!(items(&mut emit, 2).await, ["7", "7"]);
    assert_eq!(emit.next().await, end_of(["7", "7"]));
    emit.ack().await;
    link.assign(assignment(2, "either", "7")).await;
    assert_eq!(
        link.next().await.completions[0].result.as_ref().unwrap().data,
        "\"called\""
    );
    link.ack(2).await;
    runs_on(&mut link).await;
}

#[tokio::test]
async fn a_stop_drops_the_generator_and_ended_is_said() {
    for blocking in [false, true] {
        let mut broker = Broker::start().await;
        let probe = Arc::<Probe>::default();
        let _running = run(endless(&broker, &probe, blocking));
        let mut link = broker.accept().await;
        for (n, limit) in [(1, 100), (2, u64::MAX)] {
            link.assign(read(n, "endless", "null", limit)).await;
            let mut emit = broker.emit().await;
            assert!(items(&mut emit, 100).await.len() >= 100);
            assert!(alive(&probe));
            link.beats(3).await; // however many items want to go out
            link.stop(n, StopCause::Cancelled).await;
            assert_eq!(link.next().await.ended, [token(n)]);
            assert!(!alive(&probe));
            let yielded = probe.yielded.load(Ordering::SeqCst);
            assert!(yielded <= limit);
            emit.cut_by_the_worker().await;
            link.ack(n).await;
        }
        runs_on(&mut link).await;
    }
}

#[tokio::test]
async fn a_failure_comes_after_the_items_and_the_worker_lives() {
    fn two_then_panic(_: Context, (): ()) -> impl Stream<Item = Result<u8, TaskError>> + Send + use<> {
        stream::iter(0..3).map(|i| if i < 2 { Ok(i) } else { panic!("ouch") })
    }
    let mut broker = Broker::start().await;
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .builtins()
        .iter(Iter::new("async", OnLoss::Fail), two_then_panic)
        .iter(
            Iter::new("at.once", OnLoss::Fail),
            |_, ()| -> stream::Empty<Result<u8, TaskError>> { panic!("ouch") },
        )
        .raw_iter("raw", |_, args: Payload| {
            stream::iter([Ok(args.clone()), Ok(args), panicking()])
        })
        .blocking_iter(Iter::new("blocking", OnLoss::Fail), |_, ()| {
            (0..3_u8).map(|i| if i < 2 { Ok(i) } else { panic!("ouch") })
        });
    let _running = run(worker);
    let mut link = broker.accept().await;
    for (n, name, before) in [(1, "async", 2), (2, "at.once", 0), (3, "blocking", 2), (4, "raw", 2)] {
        link.assign(read(n, name, "null", 10)).await;
        let mut emit = broker.emit().await;
        assert_eq!(items(&mut emit, before).await.len(), before);
        match emit.next().await {
            Some(Frame::Failure(failure)) => {
                let expected = if name == "raw" { "error" } else { "panic" };
                assert_eq!((failure.kind.as_str(), failure.message.as_str()), (expected, "ouch"));
            }
            other => panic!("{name}: {other:?}"),
        }
        emit.ack().await;
    }
    runs_on(&mut link).await;
}

fn panicking() -> Result<Payload, TaskError> {
    Err(TaskError::retryable("ouch"))
}

#[tokio::test]
async fn while_its_reader_has_no_room_a_run_lends_its_slot() {
    for blocking in [false, true] {
        let mut broker = Broker::start().await;
        let probe = Arc::<Probe>::default();
        let _running = run(endless(&broker, &probe, blocking));
        let mut link = broker.accept().await;
        link.assign(read(1, "endless", "null", 7)).await;
        let mut emit = broker.emit().await;
        assert_eq!(items(&mut emit, 7).await.len(), 7);
        assert_eq!(emit.next().await, Some(Frame::Blocked(credit(7))));
        assert_eq!(probe.yielded.load(Ordering::SeqCst), 7);

        // Another has the slot, and one more than that is too much.
        link.assign(assignment(2, "sleep", r#"{"ms":3600000}"#)).await;
        link.assign(assignment(3, "sleep", r#"{"ms":3600000}"#)).await;
        assert_eq!(link.next().await.released, [token(3)]);
        link.ack(3).await;
        // The first goes on without one.
        emit.grant(credit(9)).await;
        assert_eq!(items(&mut emit, 2).await, ["7", "8"]);
        link.stop(2, StopCause::Cancelled).await;
        assert_eq!(link.next().await.ended, [token(2)]);
        link.ack(2).await;
        link.stop(1, StopCause::Cancelled).await;
        assert_eq!(link.next().await.ended, [token(1)]);
        link.ack(1).await;
        runs_on(&mut link).await;
    }
}

#[tokio::test]
async fn a_cut_session_leaves_streams_alone() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let link = broker.accept().await;
    link.assign(read(1, "count", r#"{"n":20}"#, 10)).await;
    let mut emit = broker.emit().await;
    assert_eq!(items(&mut emit, 10).await.len(), 10);
    drop(link);
    let mut link = broker.accept().await;
    assert_eq!(link.hello.held, [token(1)]);
    emit.grant(credit(100)).await;
    assert_eq!(items(&mut emit, 10).await.len(), 10);
    assert_eq!(emit.next().await, end_of((0..20).map(|i| format!("{{\"i\":{i}}}"))));
    emit.ack().await;
    runs_on(&mut link).await;
}

#[tokio::test]
async fn a_stream_that_outlasts_the_drain_is_dropped_and_not_given_back() {
    let mut broker = Broker::start().await;
    let probe = Arc::<Probe>::default();
    let mut running = run(endless(&broker, &probe, false).drain_timeout(Duration::from_millis(800)));
    let mut link = broker.accept().await;
    link.assign(read(1, "endless", "null", 7)).await;
    let mut emit = broker.emit().await;
    assert_eq!(items(&mut emit, 7).await.len(), 7);
    running.shut_down();
    assert!(link.next().await.draining);
    emit.grant(credit(14)).await; // it goes on as long as there is time
    assert_eq!(items(&mut emit, 7).await.len(), 7);
    let said = link.next().await;
    assert_eq!((said.ended.as_slice(), said.released.len()), (&[token(1)][..], 0));
    link.ack(1).await;
    link.closed().await;
    drop(link);
    running.ended().await.unwrap();
    until(|| !alive(&probe)).await;
}
