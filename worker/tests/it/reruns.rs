//! Iterators that run again: what was sent before is left out, and must be the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_proto::Place;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Assignment, StopCause};
use asynq_worker::{Context, Iter, OnLoss, Worker, WorkerBuilder};
use futures_util::{StreamExt, stream};

use crate::broker::{self, Broker, end_of, token};
use crate::streams::{Probe, alive, credit, endless, items, read, runs_on};

const ASYNC: Iter<u64, u64> = Iter::new("async", OnLoss::Replay);
const BLOCKING: Iter<u64, u64> = Iter::new("blocking", OnLoss::Replay);
const SEEKING: Iter<u64, u64> = Iter::new("seeking", OnLoss::Replay);
const BLOCKING_SEEKING: Iter<u64, u64> = Iter::new("blocking.seeking", OnLoss::Replay);

const ALL: [&str; 4] = ["async", "blocking", "seeking", "blocking.seeking"];

/// Iterators that count, and how many items they have made.
fn counting(broker: &Broker) -> (WorkerBuilder, Arc<AtomicU64>) {
    let made = Arc::<AtomicU64>::default();
    let count = {
        let made = made.clone();
        move |range: std::ops::Range<u64>| {
            let made = made.clone();
            range.map(move |i| {
                made.fetch_add(1, Ordering::SeqCst);
                Ok(i)
            })
        }
    };
    let counts = [count.clone(), count.clone(), count.clone(), count];
    let [one, two, three, four] = counts;
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .builtins()
        .iter(ASYNC, move |_, n| stream::iter(one(0..n)))
        .blocking_iter(BLOCKING, move |_, n| two(0..n))
        // Asked with the first poll …
        .iter(SEEKING, move |context: Context, n| {
            let count = three.clone();
            stream::once(async move { stream::iter(count(context.start_index()..n)) }).flatten()
        })
        // … and on the generator's thread.
        .blocking_iter(BLOCKING_SEEKING, move |context, n| four(context.start_index()..n));
    (worker, made)
}

fn behind(n: u64) -> Place {
    let mut place = Place::START;
    (0..n).for_each(|i| place.pass(i.to_string().as_bytes()));
    place
}

/// An assignment that goes on where an attempt before came to its end.
fn rerun(n: u8, name: &str, args: &str, start: Place, limit_index: u64) -> Assignment {
    Assignment {
        start: Some(start.into()),
        ..read(n, name, args, limit_index)
    }
}

#[tokio::test]
async fn only_the_items_behind_the_seam_are_sent() {
    let mut broker = Broker::start().await;
    let (worker, made) = counting(&broker);
    let _running = broker::run(worker);
    let mut link = broker.accept().await;
    let mut run = 0;
    for name in ALL {
        for sent in [0, 1, 600, 1_000] {
            made.store(0, Ordering::SeqCst);
            run += 1;
            link.assign(rerun(run, name, "1000", behind(sent), 1_001)).await;
            let mut emit = broker.emit().await;
            let resume = emit.hello.resume.expect("it says where it stands");
            assert_eq!(
                resume.floor.map(|floor| floor.index),
                Some(resume.head),
                "it has sent nothing"
            );
            let rest = items(&mut emit, 1_000 - sent as usize).await;
            assert!((sent..).zip(&rest).all(|(i, item)| *item == i.to_string()), "{name}");
            assert_eq!(emit.next().await, end_of((0..1_000).map(|i| i.to_string())), "{name}");
            emit.ack().await;
            let skipped = if name.ends_with("seeking") {
                sent.saturating_sub(1)
            } else {
                0
            };
            assert_eq!(made.load(Ordering::SeqCst), 1_000 - skipped, "{name}");
            runs_on(&mut link).await;
        }
        // Of a place that nobody knows the digest of, the end has none.
        let unknown = Place {
            digest: None,
            before: None,
            ..behind(600)
        };
        run += 1;
        link.assign(rerun(run, name, "1000", unknown, 1_001)).await;
        let mut emit = broker.emit().await;
        assert_eq!(items(&mut emit, 400).await[0], "600");
        match emit.next().await {
            Some(Frame::End(end)) => assert_eq!((end.count, end.digest), (1_000, None)),
            other => panic!("{name}: {other:?}"),
        }
        emit.ack().await;
        runs_on(&mut link).await;
    }
}

#[tokio::test]
async fn other_items_than_before_are_a_failure() {
    let mut broker = Broker::start().await;
    let (worker, _) = counting(&broker);
    let _running = broker::run(worker);
    let mut link = broker.accept().await;
    let mut other = behind(600);
    other.digest = other.digest.map(|digest| digest + 1);
    let mut run = 0;
    for name in ALL {
        for (args, start, said) in [
            ("1000", other, "item 599"),
            ("599", behind(600), "it ended before item 599, and 600 had been sent"),
        ] {
            // It needs no credit.
            run += 1;
            link.assign(rerun(run, name, args, start, 0)).await;
            let mut emit = broker.emit().await;
            match emit.next().await {
                Some(Frame::Failure(failure)) => {
                    assert_eq!((failure.kind.as_str(), failure.retryable), ("non_deterministic", false));
                    assert!(failure.message.contains(said), "{name}: {}", failure.message);
                }
                other => panic!("{name}: {other:?}"),
            }
            emit.ack().await;
            runs_on(&mut link).await;
        }
    }
}

#[tokio::test]
async fn a_rerun_is_cut_and_goes_on() {
    let mut broker = Broker::start().await;
    let (worker, _) = counting(&broker);
    let _running = broker::run(worker);
    let mut link = broker.accept().await;
    let mut run = 0;
    for name in ALL {
        run += 1;
        link.assign(rerun(run, name, "1000", behind(600), 700)).await;
        // Once while it may still be at what it leaves out, once behind that.
        drop(broker.emit().await);
        let mut emit = broker.emit().await;
        let resume = emit.hello.resume.unwrap();
        assert_eq!(resume.floor.map(Place::from), Some(behind(600)), "{name}");
        emit.go_on_from(600).await;
        assert_eq!(items(&mut emit, 100).await[0], "600", "{name}");
        drop(emit);
        let mut emit = broker.emit().await;
        assert_eq!(emit.hello.resume.unwrap().head, 700);
        emit.go_on_from(650).await;
        assert_eq!(items(&mut emit, 50).await[0], "650", "{name}");
        emit.grant(credit(1_001)).await;
        assert_eq!(items(&mut emit, 300).await[0], "700", "{name}");
        assert_eq!(emit.next().await, end_of((0..1_000).map(|i| i.to_string())), "{name}");
        emit.ack().await;
        runs_on(&mut link).await;
    }
}

#[tokio::test]
async fn a_stop_ends_what_is_left_out() {
    for blocking in [false, true] {
        let mut broker = Broker::start().await;
        let probe = Arc::<Probe>::default();
        let _running = broker::run(endless(&broker, &probe, blocking));
        let mut link = broker.accept().await;
        let far = Place {
            index: u64::MAX,
            ..behind(1)
        };
        link.assign(rerun(1, "endless", "null", far, u64::MAX)).await;
        let mut emit = broker.emit().await;
        assert_eq!(emit.next_within(Duration::from_millis(50)).await, None);
        link.stop(1, StopCause::Cancelled).await;
        assert_eq!(link.next().await.ended, [token(1)]);
        assert!(!alive(&probe));
        emit.cut_by_the_worker().await;
        link.ack(1).await;
        runs_on(&mut link).await;
    }
}
