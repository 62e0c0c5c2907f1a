//! Lanes that break: the next goes on where the broker says.

use std::sync::atomic::AtomicU64;

use asynq_proto::limits::MAX_BATCH_OPS;

use super::*;
use crate::items::Raw;

const LOST: fn() -> Word = || Word::Lost("cut".into());

/// Items of random sizes, some of them ready at once.
fn random(items: Vec<Vec<u8>>, mut dice: fastrand::Rng) -> impl Items {
    let items = stream::iter(items).then(move |item| {
        let waits = dice.bool();
        async move {
            if waits {
                yield_now().await;
            }
            Ok(Payload::bytes("x/y", item))
        }
    });
    Raw(Box::pin(items))
}

/// Places behind each of these items, and before the first.
fn places(items: &[Vec<u8>]) -> Vec<Place> {
    let mut places = vec![Place::START];
    for item in items {
        let mut place = places[places.len() - 1];
        place.pass(item);
        places.push(place);
    }
    places
}

#[tokio::test(start_paused = true)]
async fn wherever_it_breaks_each_item_comes_once_and_in_order() {
    for seed in 0..200 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let largest = *dice.choice(&[3, 300, 30_000]).unwrap();
        let items: Vec<Vec<u8>> = (0..dice.usize(0..1_500))
            .map(|i| vec![i as u8; dice.usize(0..=largest)])
            .collect();
        let places = places(&items);
        let mut granted = Credit::default();
        let mut rig = start(random(items.clone(), dice.fork()), granted);
        let mut index = 0; // the next the broker has not
        let mut taken = false;
        while !taken {
            if dice.u8(..) < 128 {
                granted.acked = dice.u64(granted.acked..=index as u64);
                granted.limit_index = granted.limit_index.max(index as u64 + dice.u64(0..600));
                granted.limit_bytes = granted
                    .limit_bytes
                    .max(places[index].byte + dice.u64(0..200 * largest as u64));
                rig.credit.send_if_modified(|now| raise(now, granted));
            }
            if dice.u8(..) < 20 {
                let resume = rig.cut().await;
                assert_eq!(resume.credit, Some(granted), "seed {seed}");
                let floor = resume.floor.unwrap();
                assert_eq!(Place::from(floor), places[floor.index as usize], "seed {seed}");
                // Batches are forgotten as a whole.
                assert!(
                    floor.index + MAX_BATCH_OPS as u64 > granted.acked.min(resume.head),
                    "seed {seed}"
                );
                assert!(
                    floor.index <= granted.acked && index as u64 <= resume.head,
                    "seed {seed}"
                );
                assert!(resume.head <= granted.limit_index, "seed {seed}");
                // The broker may have lost some, or have got what the test has not read.
                index = dice.usize(granted.acked as usize..=resume.head as usize);
                rig.from(index as u64).await;
            }
            match rig.next_within(Duration::from_millis(1)).await {
                Some(Frame::Items(batch)) => {
                    let at = places[index];
                    assert_eq!(
                        (batch.first_index, batch.first_byte),
                        (at.index, at.byte),
                        "seed {seed}"
                    );
                    assert_eq!(batch.content_type, "x/y");
                    for item in split(&batch) {
                        assert_eq!(item, items[index], "seed {seed}");
                        index += 1;
                    }
                    assert!(places[index].index <= granted.limit_index, "seed {seed}");
                    assert!(places[index].byte <= granted.limit_bytes, "seed {seed}");
                }
                Some(Frame::End(end)) => {
                    let all = places[items.len()];
                    assert_eq!((end.count, end.digest), (all.index, all.digest), "seed {seed}");
                    assert_eq!(index, items.len(), "seed {seed}");
                    if dice.bool() {
                        rig.say(Word::Taken).await;
                        taken = true;
                    }
                }
                Some(Frame::Blocked(at)) => assert_eq!(at, granted, "seed {seed}"),
                Some(other) => panic!("seed {seed}: {other:?}"),
                None => {}
            }
            if index == items.len() && !taken && dice.u8(..) < 20 {
                granted = Credit {
                    acked: index as u64,
                    ..PLENTY
                };
                rig.credit.send_replace(granted);
            }
        }
        assert_eq!(rig.run.await.unwrap().0, None, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_broker_says_from_where() {
    let mut rig = start(numbers(5), PLENTY);
    assert_eq!(rig.items().await.lengths.len(), 5);
    rig.cut().await;
    assert_eq!(rig.next_within(Duration::from_secs(60)).await, None);
    rig.cut().await; // also while it waits
    rig.from(3).await;
    let again = rig.items().await;
    assert_eq!(
        (again.first_index, again.first_byte, split(&again)),
        (3, 3, vec![&b"3"[..], b"4"])
    );
    assert_eq!(rig.next().await, end(5));
    rig.cut().await;
    rig.from(5).await;
    assert_eq!(rig.next().await, end(5));
    rig.say(Word::Taken).await;
    assert_eq!(rig.run.await.unwrap().0, None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_again() {
    let items = stream::iter([Ok(0), Err(TaskError::retryable("no disk"))]);
    let mut rig = start(Typed(Box::pin(items)), PLENTY);
    assert_eq!(rig.items().await.lengths.len(), 1);
    for _ in 0..2 {
        match rig.next().await {
            Frame::Failure(failure) => assert_eq!(failure.message, "no disk"),
            other => panic!("{other:?}"),
        }
        assert!(rig.control.is_slotless());
        rig.cut().await;
        rig.from(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_blocked_says_so_on_each_lane_and_goes_on_with_credit() {
    let mut rig = start(numbers(100), credit(10, 1_000));
    assert_eq!(rig.items().await.lengths.len(), 10);
    assert_eq!(rig.next().await, Frame::Blocked(credit(10, 1_000)));
    assert_eq!(rig.slots.available_permits(), 1);
    rig.cut().await;
    rig.from(10).await;
    assert_eq!(rig.next().await, Frame::Blocked(credit(10, 1_000)));
    // Credit that comes while no lane is there is not lost.
    rig.say(LOST()).await;
    rig.credit.send_replace(credit(20, 1_000));
    rig.from(10).await;
    assert_eq!(rig.items().await.lengths.len(), 10);
    assert_eq!(rig.slots.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_let_go_also_while_the_generator_waits() {
    let items = stream::iter((0..10_u64).map(Ok)).chain(stream::pending());
    let mut rig = start(Typed(Box::pin(items)), PLENTY);
    assert_eq!(rig.items().await.lengths.len(), 10);
    let resume = rig.cut().await;
    assert_eq!((resume.floor, resume.head), (Some(Place::START.into()), 10));
    rig.from(10).await;
    assert_eq!(rig.next_within(Duration::from_secs(60)).await, None);
    let all = Credit { acked: 10, ..PLENTY };
    rig.credit.send_replace(all);
    assert_eq!(rig.next_within(Duration::from_millis(1)).await, None);
    let resume = rig.cut().await;
    assert_eq!((resume.floor, resume.head), (Some(behind(10).into()), 10));
    assert_eq!(resume.credit, Some(all));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_asks_for_what_is_not_there_has_the_run_ended() {
    for from in [0, 1_001] {
        let mut rig = start(numbers(10_000), credit(1_000, u64::MAX));
        assert_eq!(rig.items().await.lengths.len(), MAX_BATCH_OPS);
        let acked = MAX_BATCH_OPS as u64;
        rig.credit.send_replace(Credit {
            acked,
            ..credit(1_000, u64::MAX)
        });
        assert_eq!(rig.items().await.lengths.len(), 1_000 - MAX_BATCH_OPS);
        let floor = rig.cut().await.floor.unwrap().index;
        assert_eq!(floor, acked);
        rig.from(from).await;
        assert_eq!(rig.run.await.unwrap().0, Some(Outcome::Ended));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_on_every_lane_and_between_them() {
    for when in 0..3 {
        let pulled = Arc::new(AtomicU64::new(0));
        let count = pulled.clone();
        let endless = stream::iter(0_u64..).map(move |i| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(i)
        });
        let mut rig = start(Typed(Box::pin(endless)), credit(10, 1_000));
        assert_eq!(rig.items().await.lengths.len(), 10);
        match when {
            0 => rig.say(LOST()).await,
            1 => drop(rig.cut().await),
            _ => {
                rig.cut().await;
                rig.from(10).await;
            }
        }
        rig.control.stop(StopCause::LeaseLost);
        assert_eq!(rig.run.await.unwrap().0, Some(Outcome::Ended));
        assert_eq!(pulled.load(Ordering::SeqCst), 10);
        assert_eq!(Arc::strong_count(&pulled), 1);
    }
}
