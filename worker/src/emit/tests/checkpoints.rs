//! Generators that say where they can begin again.

use std::thread::{self, JoinHandle as Thread};

use asynq_proto::limits::MAX_CHECKPOINT_BYTES;
use asynq_proto::v1::Checkpoint;
use futures_util::future::join_all;

use super::*;
use crate::items::{Marked, MarkedIterator};
use crate::yields::Yield;

type Yields = Vec<Result<Yield<u64>, TaskError>>;

/// Where a run begins: its items, and its generator.
fn context_at(control: &Control, head: Place, begins: Option<u64>) -> Context {
    let checkpoint = begins.map(|index| match index {
        0 => Checkpoint::default(),
        index => mark(index),
    });
    context_from(control, Start::new(head, checkpoint))
}

/// The checkpoint of these generators behind `index` items.
fn mark(index: u64) -> Checkpoint {
    Checkpoint {
        index,
        token: index.to_string().into(),
    }
}

/// Runs a generator that yields this once it is told where to begin, if it asks.
fn run(
    (head, begins): (Place, Option<u64>),
    blocks: bool,
    first: Credit,
    yields: impl FnOnce(&Context) -> Yields + Send + 'static,
) -> (Rig, Option<Thread<()>>) {
    let control = Control::default();
    let context = context_at(&control, head, begins);
    let run = context.clone();
    let yields = move || yields(&run);
    if blocks {
        let (producer, items) = shelf::new(context.clone());
        let open = || -> OpenedBlocking { Ok(Box::new(MarkedIterator(yields().into_iter()))) };
        let thread = thread::spawn(move || producer.run(open));
        return (emit(context, control, Box::new(items), first), Some(thread));
    }
    let items = stream::once(async move { stream::iter(yields()) }).flatten();
    let items: Box<dyn Items> = Box::new(Marked(Box::pin(items)));
    let items = match Replay::of(&context) {
        Some(replay) => Box::new(Replayed::new(items, replay)),
        None => items,
    };
    (emit(context, control, items, first), None)
}

/// Numbers from where the run begins on, with a checkpoint behind each third.
fn thirds(context: &Context, count: u64) -> Yields {
    let start = context.start_checkpoint::<u64>().unwrap().unwrap_or(0);
    assert_eq!(start, context.start_index());
    let one = |n| match (n + 1) % 3 {
        0 => Yield::item(n).then_checkpoint(&(n + 1)),
        _ => Ok(Yield::item(n)),
    };
    (start..count).map(one).collect()
}

async fn failure(rig: &mut Rig) -> String {
    loop {
        match rig.next().await {
            Frame::Failure(failure) => {
                assert!(!failure.retryable);
                return format!("{}: {}", failure.kind, failure.message);
            }
            Frame::Items(_) | Frame::Checkpoint(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads to the end; gives the items and the checkpoints.
async fn read(rig: &mut Rig, head: Place, count: u64) -> Vec<Checkpoint> {
    let (mut at, mut marks) = (head, vec![]);
    loop {
        match rig.next().await {
            Frame::Items(batch) => {
                assert_eq!((batch.first_index, batch.first_byte), (at.index, at.byte));
                for item in split(&batch) {
                    assert_eq!(item, at.index.to_string().as_bytes());
                    at.pass(item);
                }
            }
            Frame::Checkpoint(mark) => {
                assert!(mark.index <= at.index, "{} of {}", mark.index, at.index);
                marks.push(mark);
            }
            Frame::End(end) => {
                assert_eq!((end.count, end.digest), (count, behind(count).digest));
                return marks;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_run_begins_at_its_checkpoint_and_what_was_sent_is_left_out_by_its_number() {
    let mut cases = vec![];
    for blocks in [false, true] {
        for (head, begins) in [(0, 0), (5, 0), (5, 3), (3, 3), (2_000, 1_500), (2_000, 2_000)] {
            cases.push(async move {
                let (mut rig, thread) = run((behind(head), Some(begins)), blocks, PLENTY, |context| {
                    // Other items than those that were sent, and nobody minds.
                    let mut yields = thirds(context, 2_000);
                    let begins = context.start_index();
                    for index in begins..context.start().place().index {
                        yields[(index - begins) as usize] = Ok(Yield::item(77));
                    }
                    yields
                });
                let marks = read(&mut rig, behind(head), 2_000).await;
                for pair in marks.windows(2) {
                    assert!(pair[0].index < pair[1].index);
                }
                for it in &marks {
                    assert!(it.index % 3 == 0 && it.index > head && *it == mark(it.index), "{it:?}");
                }
                assert_eq!(marks.is_empty(), head == 2_000);
                thread.map(Thread::join).transpose().unwrap();
            });
        }
    }
    join_all(cases).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_sent_at_once_behind_its_items() {
    // And then nothing comes for a long time.
    let yields = stream::iter([Ok(Yield::item(0)), Yield::item(1).then_checkpoint(&2)]);
    let yields = yields.chain(stream::once(async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        Yield::checkpoint(&"later")
    }));
    let control = Control::default();
    let context = context_at(&control, Place::START, Some(0));
    let items = Marked(Box::pin(yields.chain(stream::pending())));
    let mut rig = emit(context, control, Box::new(items), PLENTY);
    assert_eq!(rig.items().await.lengths.len(), 2);
    assert_eq!(
        rig.next_within(Duration::from_millis(1)).await,
        Some(Frame::Checkpoint(mark(2)))
    );
    assert_eq!(rig.next_within(Duration::from_secs(4)).await, None);
    let later = Checkpoint {
        index: 2,
        token: "\"later\"".into(),
    };
    assert_eq!(
        rig.next_within(Duration::from_secs(2)).await,
        Some(Frame::Checkpoint(later))
    );
}

#[tokio::test]
async fn after_a_break_the_broker_is_told_them_again() {
    for blocks in [false, true] {
        let (mut rig, thread) = run((Place::START, Some(0)), blocks, credit(7, u64::MAX), |context| {
            thirds(context, 9)
        });
        let mut last = 0;
        while last < 6 {
            if let Frame::Checkpoint(mark) = rig.next().await {
                last = mark.index;
            }
        }
        rig.cut().await;
        rig.credit.send_modify(|credit| credit.acked = 2);
        rig.from(4).await;
        // All items that were sent, in as many batches as they were; then the checkpoints.
        let mut at = 4;
        let first = loop {
            match rig.next().await {
                Frame::Items(batch) => {
                    assert_eq!(batch.first_index, at, "{blocks}");
                    at += batch.lengths.len() as u64;
                }
                Frame::Checkpoint(first) => break first,
                other => panic!("{other:?}"),
            }
        };
        assert!((6..=7).contains(&at), "{at} items");
        // Of two that were ready together only the last was sent.
        assert!([3, 6].contains(&first.index) && first == mark(first.index));
        if first.index == 3 {
            assert_eq!(rig.next().await, Frame::Checkpoint(mark(6)));
        }
        drop(rig);
        drop(thread);
    }
}

#[tokio::test]
async fn one_that_fails_has_said_where_it_can_go_on() {
    for blocks in [false, true] {
        let (mut rig, thread) = run((Place::START, Some(0)), blocks, PLENTY, |context| {
            let mut yields = thirds(context, 3);
            yields.push(Err(TaskError::retryable("for now")));
            yields
        });
        let mut count = 0;
        while count < 3 {
            count += rig.items().await.lengths.len();
        }
        assert_eq!(rig.next().await, Frame::Checkpoint(mark(3)));
        assert!(matches!(rig.next().await, Frame::Failure(failure) if failure.retryable));
        thread.map(Thread::join).transpose().unwrap();
    }
}

#[tokio::test]
async fn who_does_not_ask_where_to_begin_has_failed() {
    for blocks in [false, true] {
        for (head, begins) in [(5, 3), (3, 3)] {
            for count in [0, 9] {
                let (mut rig, thread) = run((behind(head), Some(begins)), blocks, PLENTY, move |_| {
                    (0..count).map(|n| Ok(Yield::item(n))).collect()
                });
                let said = failure(&mut rig).await;
                let ended_early = count == 0 && head > begins;
                assert_eq!(said.contains("did not ask"), !ended_early, "{said}");
                thread.map(Thread::join).transpose().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn one_that_ends_too_soon_is_another() {
    for blocks in [false, true] {
        let (mut rig, thread) = run((behind(9), Some(3)), blocks, PLENTY, |context| thirds(context, 6));
        let said = failure(&mut rig).await;
        assert!(said.starts_with("non_deterministic: "), "{said}");
        assert!(said.ends_with("it ended before item 6, and 9 had been sent"), "{said}");
        thread.map(Thread::join).transpose().unwrap();
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_is_a_failure_that_names_its_item() {
    let longest = || Yield::item(0).then_checkpoint_bytes(vec![1; MAX_CHECKPOINT_BYTES]);
    for blocks in [false, true] {
        let one =
            move |declared: Option<u64>, yields: Yields| run((Place::START, declared), blocks, PLENTY, |_| yields);
        let (mut rig, _) = one(Some(0), vec![Ok(longest())]);
        assert_eq!(rig.items().await.lengths, [1]);
        let too_long = Yield::item(1).then_checkpoint_bytes(vec![1; MAX_CHECKPOINT_BYTES + 1]);
        for (declared, yields, said) in [
            (
                Some(0),
                vec![Ok(longest()), Ok(too_long)],
                "of 65537 bytes at item 2: at most 65536 (MAX_CHECKPOINT_BYTES) are allowed",
            ),
            (Some(0), vec![Yield::checkpoint(&1)], "before the first item"),
            (None, vec![Ok(longest())], "not declared with OnLoss::Checkpoint"),
        ] {
            let (mut rig, thread) = one(declared, yields);
            let message = failure(&mut rig).await;
            assert!(message.contains(said), "{message}");
            thread.map(Thread::join).transpose().unwrap();
        }
    }
}

#[tokio::test]
async fn who_calls_has_no_use_for_them() {
    let yields = || {
        vec![
            Ok(Yield::item(1)),
            Yield::checkpoint(&1),
            Yield::item(2).then_checkpoint(&2),
        ]
    };
    let called = collect(Box::new(Marked(Box::pin(stream::iter(yields()))))).await;
    let blocking = collect_blocking(Box::new(MarkedIterator(yields().into_iter())), || false);
    let array = Ok(Payload::bytes("application/json", "[1,2]"));
    assert_eq!((called, blocking), (array.clone(), array));
}

#[test]
fn a_token_of_another_type_is_an_error_that_says_where() {
    let context = context_at(&Control::default(), behind(7), Some(5));
    let error = context.start_checkpoint::<String>().unwrap_err();
    assert!(
        error.message.starts_with("the checkpoint at item 5 cannot be read: "),
        "{}",
        error.message
    );
    assert_eq!(context.start_checkpoint_bytes().as_deref(), Some(&b"5"[..]));
    let context = context_at(&Control::default(), behind(7), Some(0));
    assert_eq!(
        (context.start_checkpoint::<u64>(), context.start_checkpoint_bytes()),
        (Ok(None), None)
    );
}
