//! Streams whose Emit breaks, or whose broker starts again: their runs go on, and
//! each item comes once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use asynq_proto::Place;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Credit, StopCause, WorkWelcome};
use asynq_worker::{Iter, OnLoss, Worker};
use futures_util::stream;
use tonic::Status;

use crate::broker::{self, Broker, Emit, end_of, token, until, welcome};
use crate::streams::{Probe, alive, credit, endless, items, read, runs_on, split};

const ASYNC: Iter<u64, u64> = Iter::new("async", OnLoss::Replay);
const BLOCKING: Iter<u64, u64> = Iter::new("blocking", OnLoss::Replay);

/// How an Emit ends before its time.
#[derive(Debug, Clone, Copy)]
enum How {
    Closed,
    Unavailable,
}

impl How {
    async fn end(self, emit: Emit) {
        match self {
            Self::Closed => drop(emit),
            Self::Unavailable => emit.refuse(Status::unavailable("not now")).await,
        }
    }
}

/// The next Emit of a stream that broke after these items.
async fn resumed(broker: &mut Broker, got: &[String], granted: Credit) -> Emit {
    let emit = broker.emit().await;
    assert_eq!(emit.hello.session, welcome().session);
    let resume = emit.hello.resume.expect("one broke before");
    let floor = Place::from(resume.floor.unwrap());
    let mut place = Place::START;
    got[..floor.index as usize]
        .iter()
        .for_each(|item| place.pass(item.as_bytes()));
    assert_eq!(floor, place);
    assert!(floor.index <= granted.acked && resume.head >= got.len() as u64);
    assert!(resume.credit.unwrap().limit_index <= granted.limit_index);
    emit
}

/// Reads a stream, item by item, each in a frame of its own, and gives them. Before
/// each frame, and before the last word, the Emit may end.
async fn read_on(broker: &mut Broker, ends: impl Fn(usize) -> bool, how: How) -> Vec<String> {
    let mut emit = broker.emit().await;
    let resume = emit.hello.resume.expect("it says where it stands");
    assert_eq!((resume.floor, resume.head), (Some(Place::START.into()), 0));
    let (mut got, mut granted) = (vec![], credit(1));
    let (mut frames, mut over) = (0, false);
    loop {
        if ends(frames) {
            how.end(emit).await;
            emit = resumed(broker, &got, granted).await;
            emit.go_on_from(got.len() as u64).await;
            emit.grant(granted).await;
        } else if over {
            emit.ack().await;
            return got;
        }
        frames += 1;
        match emit.next().await.unwrap() {
            Frame::Items(batch) => {
                assert_eq!(batch.first_index, got.len() as u64);
                got.extend(split(&batch));
                granted.acked = got.len() as u64;
                granted.limit_index = granted.acked + 1;
                emit.grant(granted).await;
            }
            end => {
                assert_eq!(Some(end), end_of(&got));
                over = true;
            }
        }
    }
}

#[tokio::test]
async fn whenever_an_emit_ends_the_next_goes_on() {
    for name in ["async", "blocking"] {
        let mut broker = Broker::start().await;
        let worker = Worker::builder(&broker.url())
            .slots(1)
            .builtins()
            .iter(ASYNC, |_, n| stream::iter((0..n).map(Ok)))
            .blocking_iter(BLOCKING, |_, n| (0..n).map(Ok));
        let _running = broker::run(worker);
        let mut link = broker.accept().await;
        let numbers: Vec<_> = (0..5).map(|i| i.to_string()).collect();
        let mut run = 0;
        // Five items and the end: six frames, and what is behind them.
        for how in [How::Closed, How::Unavailable] {
            for at in 0..=6 {
                run += 1;
                link.assign(read(run, name, "5", 1)).await;
                let got = read_on(&mut broker, |frames| frames == at, how).await;
                assert_eq!(got, numbers, "{name}, {how:?} before frame {at}");
                runs_on(&mut link).await;
            }
            run += 1;
            link.assign(read(run, name, "5", 1)).await;
            assert_eq!(read_on(&mut broker, |frames| frames <= 8, how).await, numbers);
            runs_on(&mut link).await;
        }
    }
}

#[tokio::test]
async fn a_broker_that_starts_again_is_told_where_it_was() {
    let mut broker = Broker::start().await;
    let _running = broker::run(Worker::builder(&broker.url()).slots(1).builtins());
    let link = broker.accept().await;
    link.assign(read(1, "count", r#"{"n":20}"#, 10)).await;
    let mut emit = broker.emit().await;
    let mut got = items(&mut emit, 10).await;
    let granted = Credit { acked: 4, ..credit(14) };
    emit.grant(granted).await;
    got.extend(items(&mut emit, 4).await);

    broker.cut();
    // Its Emit may come first, and again: then nobody knows its session.
    let early = resumed(&mut broker, &got, granted).await;
    early.refuse(Status::unavailable("no such session")).await;
    let again = WorkWelcome {
        session: vec![8; 16].into(),
        ..welcome()
    };
    let mut link = broker.accept_with(again.clone()).await;
    assert_eq!(link.hello.held, [token(1)]);
    let mut emit = loop {
        let emit = broker.emit().await;
        if emit.hello.session == again.session {
            break emit;
        }
        emit.refuse(Status::unavailable("no such session")).await;
    };
    let resume = emit.hello.resume.unwrap();
    assert_eq!((resume.head, resume.credit), (14, Some(granted)));
    assert_eq!(emit.next_within(Duration::from_millis(50)).await, None);
    // The caller has taken less than it was sent.
    emit.go_on_from(4).await;
    emit.grant(credit(100)).await;
    got.truncate(4);
    got.extend(items(&mut emit, 16).await);
    assert_eq!(got, (0..20).map(|i| format!("{{\"i\":{i}}}")).collect::<Vec<_>>());
    assert_eq!(emit.next().await, end_of(&got));
    emit.ack().await;
    runs_on(&mut link).await;
}

#[tokio::test]
async fn a_run_whose_emit_is_refused_ends() {
    let mut broker = Broker::start().await;
    let probe = Arc::<Probe>::default();
    let _running = broker::run(endless(&broker, &probe, false));
    let mut link = broker.accept().await;
    let refusals = [Status::invalid_argument("what?"), Status::not_found("no such run")];
    for (n, refusal) in (1..).zip(refusals) {
        link.assign(read(n, "endless", "null", 7)).await;
        let mut emit = broker.emit().await;
        assert_eq!(items(&mut emit, 7).await.len(), 7);
        emit.refuse(refusal).await;
        assert_eq!(link.next().await.ended, [token(n)]);
        assert!(!alive(&probe));
        link.ack(n).await;
    }
    // What it is to go on with is not there.
    link.assign(read(3, "endless", "null", 7)).await;
    drop(broker.emit().await);
    let emit = broker.emit().await;
    emit.go_on_from(8).await;
    assert_eq!(link.next().await.ended, [token(3)]);
    link.ack(3).await;
    // The broker may also want no more of it, at once or later.
    for (n, later) in [(4, false), (5, true)] {
        link.assign(read(n, "endless", "null", 7)).await;
        let mut emit = broker.emit().await;
        if later {
            drop(emit);
            emit = broker.emit().await;
        }
        emit.ack().await;
        until(|| !alive(&probe)).await;
        runs_on(&mut link).await;
    }
}

#[tokio::test]
async fn a_stop_is_heard_while_no_emit_is_there() {
    for blocking in [false, true] {
        let mut broker = Broker::start().await;
        let probe = Arc::<Probe>::default();
        let _running = broker::run(endless(&broker, &probe, blocking));
        let mut link = broker.accept().await;
        link.assign(read(1, "endless", "null", 7)).await;
        let mut emit = broker.emit().await;
        assert_eq!(items(&mut emit, 7).await.len(), 7);
        drop(emit);
        let unanswered = broker.emit().await;
        link.stop(1, StopCause::Cancelled).await;
        assert_eq!(link.next().await.ended, [token(1)]);
        assert!(!alive(&probe));
        unanswered.cut_by_the_worker().await;
        link.ack(1).await;
        runs_on(&mut link).await;
    }
}

#[tokio::test]
async fn one_without_credit_lends_its_slot_after_a_break_too() {
    let mut broker = Broker::start().await;
    let probe = Arc::<Probe>::default();
    let _running = broker::run(endless(&broker, &probe, false));
    let mut link = broker.accept().await;
    link.assign(read(1, "endless", "null", 7)).await;
    let mut emit = broker.emit().await;
    assert_eq!(items(&mut emit, 7).await.len(), 7);
    drop(emit);
    let mut emit = broker.emit().await;
    emit.go_on_from(7).await;
    assert_eq!(emit.next().await, Some(Frame::Blocked(credit(7))));
    runs_on(&mut link).await;
    emit.grant(credit(9)).await;
    assert_eq!(items(&mut emit, 2).await, ["7", "8"]);
}

/// Whatever has been read, no more than a window is kept.
#[tokio::test]
async fn what_is_acknowledged_is_not_kept() {
    const WINDOW: u64 = 256;
    let mut broker = Broker::start().await;
    let probe = Arc::<Probe>::default();
    let _running = broker::run(endless(&broker, &probe, true));
    let link = broker.accept().await;
    link.assign(read(1, "endless", "null", WINDOW)).await;
    let mut emit = broker.emit().await;
    let mut got = vec![];
    for _ in 0..20 {
        let until = got.len() + 1_000;
        while got.len() < until {
            got.extend(items(&mut emit, 1).await);
            let acked = got.len() as u64;
            emit.grant(Credit {
                acked,
                ..credit(acked + WINDOW)
            })
            .await;
        }
        let acked = got.len() as u64;
        drop(emit);
        emit = broker.emit().await;
        let resume = emit.hello.resume.unwrap();
        let floor = resume.floor.unwrap().index;
        // It may not have heard the last credit, and keeps the rest of a batch.
        assert!(
            acked - floor < 3 * WINDOW && resume.head <= acked + WINDOW,
            "{resume:?}"
        );
        emit.go_on_from(acked).await;
    }
    assert!(probe.yielded.load(Ordering::SeqCst) <= got.len() as u64 + WINDOW);
}
