//! Items within their credit, batches, failures, and the end.

use std::future::ready;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use asynq_proto::limits::{MAX_BATCH_OPS, MAX_PAYLOAD_BYTES};
use tokio::time::{Instant, sleep};

use super::*;
use crate::items::Raw;
use crate::limits::MAX_ITEM_BATCH_BYTES;

fn failing(message: &'static str) -> impl Stream<Item = Result<u64, TaskError>> + Send {
    stream::iter([Ok(0), Ok(1), Err(TaskError::terminal(message)), Ok(3)])
}

/// Items of random sizes, some of them ready at once; counts those pulled.
fn random(sizes: Vec<usize>, pulled: Arc<AtomicUsize>, mut dice: fastrand::Rng) -> impl Items {
    let items = stream::iter(sizes.into_iter().enumerate()).then(move |(i, size)| {
        pulled.store(i + 1, Ordering::SeqCst);
        let waits = dice.bool();
        async move {
            if waits {
                yield_now().await;
            }
            Ok(Payload::bytes("x/y", vec![i as u8; size]))
        }
    });
    Raw(Box::pin(items))
}

#[tokio::test(start_paused = true)]
async fn no_credit_is_ever_overrun_and_none_is_left_unused() {
    for seed in 0..200 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let largest = *dice.choice(&[3, 300, 100_000]).unwrap();
        let sizes: Vec<usize> = (0..dice.usize(0..2_000)).map(|_| dice.usize(0..=largest)).collect();
        let pulled = Arc::new(AtomicUsize::new(0));
        let mut granted = Credit::default();
        let mut rig = start(random(sizes.clone(), pulled.clone(), dice.fork()), granted);
        let (mut index, mut byte) = (0, 0);
        let mut ended = false;
        while !ended {
            granted.limit_index += dice.u64(0..600);
            granted.limit_bytes += dice.u64(0..3 * largest as u64 * 100);
            rig.credit.send_if_modified(|now| raise(now, granted));
            while let Some(frame) = rig.next_within(Duration::from_millis(1)).await {
                match frame {
                    Frame::Items(batch) => {
                        assert_eq!(
                            (batch.first_index, batch.first_byte),
                            (index as u64, byte),
                            "seed {seed}"
                        );
                        assert_eq!(batch.content_type, "x/y");
                        assert!(batch.lengths.len() <= MAX_BATCH_OPS, "seed {seed}");
                        assert!(
                            batch.data.len() <= MAX_ITEM_BATCH_BYTES || batch.lengths.len() == 1,
                            "seed {seed}"
                        );
                        let mut start = 0;
                        for length in batch.lengths {
                            let item = &batch.data[start..start + length as usize];
                            assert_eq!(item.len(), sizes[index], "seed {seed}");
                            assert!(item.iter().all(|b| *b == index as u8), "seed {seed}");
                            start += item.len();
                            index += 1;
                        }
                        assert_eq!(start, batch.data.len());
                        byte += start as u64;
                        assert!(index as u64 <= granted.limit_index, "seed {seed}");
                        assert!(byte <= granted.limit_bytes, "seed {seed}");
                    }
                    Frame::End(end) => {
                        assert_eq!((end.count as usize, index), (sizes.len(), sizes.len()), "seed {seed}");
                        ended = true;
                    }
                    Frame::Blocked(at) => assert_eq!(at, granted, "seed {seed}"),
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            // It came to rest: one item at most is held, and for a reason.
            let held = pulled.load(Ordering::SeqCst) - index;
            assert!(held <= 1, "seed {seed}: {held} held");
            if !ended {
                let full = index as u64 == granted.limit_index;
                assert!(full || byte + sizes[index] as u64 > granted.limit_bytes, "seed {seed}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_travels_together_and_nothing_waits() {
    let mut rig = start(numbers(1_000), PLENTY);
    assert_eq!(rig.items().await.lengths.len(), MAX_BATCH_OPS);
    let rest = rig.items().await;
    assert_eq!((rest.first_index, rest.lengths.len()), (512, 488));
    assert_eq!(rig.next().await, end(1_000));

    let begin = Instant::now();
    let slow = stream::iter(0..3).then(|i: u64| async move {
        sleep(Duration::from_secs(60)).await;
        Ok(i)
    });
    let mut rig = start(Typed(Box::pin(slow)), PLENTY);
    for i in 0..3 {
        let batch = rig.items().await;
        assert_eq!((batch.first_index, batch.lengths.len()), (i, 1));
        // Timers are as exact as a millisecond.
        let late = begin.elapsed() - Duration::from_secs(60 * (i + 1));
        assert!(late <= Duration::from_millis(10), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_of_another_media_type_begins_a_batch() {
    let of = |media_type: &str| Ok(Payload::bytes(media_type, "1"));
    let items = [of("a"), of("a"), of("b"), of("application/json")];
    let mut rig = start(Raw(Box::pin(stream::iter(items))), PLENTY);
    for (media_type, count) in [("a", 2), ("b", 1), ("", 1)] {
        let batch = rig.items().await;
        assert_eq!((batch.content_type.as_str(), batch.lengths.len()), (media_type, count));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_comes_after_the_items_before_it() {
    let panicking = failing("").map(|item| item.map_err(|_| panic!("ouch")));
    let too_large = stream::iter([Ok("a".into()), Ok(String::new()), Ok("x".repeat(MAX_PAYLOAD_BYTES - 1))]);
    let cases: [(Box<dyn Items>, _); 3] = [
        (Box::new(Typed(Box::pin(failing("m")))), ("error", "m", false)),
        (Box::new(Typed(Box::pin(panicking))), ("panic", "ouch", true)),
        (
            Box::new(Typed(Box::pin(too_large))),
            (
                "error",
                "the item is 4194305 bytes long, at most 4194304 are allowed",
                false,
            ),
        ),
    ];
    for (items, (kind, message, retryable)) in cases {
        let mut rig = start(Boxed(items), PLENTY);
        assert_eq!(rig.items().await.lengths.len(), 2);
        let Frame::Failure(failure) = rig.next().await else {
            panic!("no failure")
        };
        assert_eq!(
            (failure.kind.as_str(), failure.message.as_str(), failure.retryable),
            (kind, message, retryable)
        );
        rig.say(Word::Taken).await;
        assert_eq!(rig.run.await.unwrap().0, None); // the broker has it
    }
}

struct Boxed(Box<dyn Items>);

impl Items for Boxed {
    fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
        out: &mut Vec<u8>,
    ) -> std::task::Poll<crate::items::Pulled> {
        self.0.poll_next(cx, out)
    }
}

#[tokio::test(start_paused = true)]
async fn without_credit_for_a_second_the_slot_is_lent_and_said_so_once() {
    let begin = Instant::now();
    let mut rig = start(numbers(100), credit(10, 1_000));
    assert_eq!(rig.items().await.lengths.len(), 10);
    assert_eq!(rig.slots.available_permits(), 0);
    assert_eq!(rig.next().await, Frame::Blocked(credit(10, 1_000)));
    assert!(begin.elapsed() >= BLOCKED_AFTER && begin.elapsed() < 2 * BLOCKED_AFTER);
    assert_eq!(rig.slots.available_permits(), 1);
    assert!(rig.control.is_slotless());
    assert_eq!(rig.next_within(Duration::from_secs(60)).await, None);

    // Bytes alone are not enough.
    rig.credit.send_replace(credit(10, 2_000));
    assert_eq!(rig.next().await, Frame::Blocked(credit(10, 2_000)));
    rig.credit.send_replace(credit(100, 2_000));
    assert_eq!(rig.items().await.lengths.len(), 90);
    // That there are no more it cannot know without a pull.
    assert_eq!(rig.next().await, Frame::Blocked(credit(100, 2_000)));
    rig.credit.send_replace(credit(101, 2_000));
    assert_eq!(rig.next().await, end(100));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_generator_is_dropped_and_sends_nothing_more() {
    let pulled = Arc::new(AtomicU64::new(0));
    let (count, guard) = (pulled.clone(), pulled.clone());
    let endless = stream::iter(0_u64..).then(move |i| {
        let _alive = &guard;
        count.fetch_add(1, Ordering::SeqCst);
        ready(Ok(i))
    });
    let mut rig = start(Typed(Box::pin(endless)), PLENTY);
    assert_eq!(rig.items().await.lengths.len(), MAX_BATCH_OPS);
    rig.control.stop(StopCause::Cancelled);
    let before = pulled.load(Ordering::SeqCst);
    assert_eq!(rig.run.await.unwrap().0, Some(Outcome::Ended));
    assert_eq!(pulled.load(Ordering::SeqCst), before);
    assert_eq!(Arc::strong_count(&pulled), 1);
    // Its call is not reset: the broker is left to end it.
    let Far { word, frames, .. } = rig.lane.unwrap();
    assert!(frames.is_closed(), "nothing more can be sent");
    yield_now().await;
    assert!(!word.is_closed(), "the broker still has the last word");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_run_and_the_brokers_word_settles_it() {
    for (word, outcome) in [
        (Word::Refused("no".into()), Some(Outcome::Ended)),
        (Word::Taken, None), // the broker wants no more of it
    ] {
        let mut rig = start(Typed(Box::pin(stream::pending::<Result<u64, _>>())), PLENTY);
        assert_eq!(rig.next_within(Duration::from_secs(60)).await, None);
        rig.say(word).await;
        assert_eq!(rig.run.await.unwrap().0, outcome);
    }
}

#[tokio::test]
async fn a_blocking_generator_is_pulled_no_further_than_its_credit() {
    let pulled = Arc::new(AtomicU64::new(0));
    let control = Control::default();
    let (producer, items) = shelf::new(context(&control, Place::START));
    let count = pulled.clone();
    let thread = std::thread::spawn(move || {
        producer.run(|| {
            Ok(Box::new(TypedIterator((0..1_000_u64).map(move |i| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(i)
            }))))
        });
    });
    let mut rig = start(items, credit(0, 0));
    let (mut index, mut byte) = (0, 0);
    // The second grant is short of bytes: 90 of one digit and two, then one too many.
    for (granted, sent, at_most) in [(credit(5, 1_000), 5, 5), (credit(900, 190), 100, 101)] {
        rig.credit.send_replace(granted);
        while index < sent {
            let batch = rig.items().await;
            assert_eq!((batch.first_index, batch.first_byte), (index, byte));
            index += batch.lengths.len() as u64;
            byte += batch.data.len() as u64;
        }
        assert_eq!(index, sent);
        assert_eq!(rig.next().await, Frame::Blocked(granted));
        assert_eq!(pulled.load(Ordering::SeqCst), at_most);
    }
    rig.credit.send_replace(PLENTY);
    while index < 1_000 {
        index += rig.items().await.lengths.len() as u64;
    }
    assert_eq!(rig.next().await, end(1_000));
    thread.join().unwrap();
}
