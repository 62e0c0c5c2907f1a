//! Runs of generators that have run before.

use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle as Thread};

use futures_util::future::join_all;

use super::*;

/// A run that sends numbers from `from` on; the thread if it has one.
fn rerun(from: Place, kind: Kind, count: u64, first: Credit) -> (Rig, Option<Thread<()>>) {
    let control = Control::default();
    let context = context(&control, from);
    let run = context.clone();
    let numbers = move || {
        let begin = if kind.seeks { run.start_index() } else { 0 };
        (begin..count).map(Ok::<_, TaskError>)
    };
    if kind.blocks {
        let (producer, items) = shelf::new(context.clone());
        let thread = thread::spawn(move || producer.run(|| Ok(Box::new(TypedIterator(numbers())))));
        return (emit(context, control, Box::new(items), first), Some(thread));
    }
    // Asked with the first poll, as an async generator would.
    let items = stream::once(async move { stream::iter(numbers()) }).flatten();
    let items = Box::new(Typed(Box::pin(items)));
    let replayed = Replay::of(&context).map(|replay| Replayed::new(items, replay)).unwrap();
    (emit(context, control, Box::new(replayed), first), None)
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    blocks: bool,
    seeks: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        blocks: false,
        seeks: false,
    },
    Kind {
        blocks: false,
        seeks: true,
    },
    Kind {
        blocks: true,
        seeks: false,
    },
    Kind {
        blocks: true,
        seeks: true,
    },
];

#[tokio::test]
async fn what_was_sent_is_left_out_and_takes_no_credit() {
    let mut cases = vec![];
    for kind in KINDS {
        for sent in [1, 2, 700, 1_999, 2_000] {
            cases.extend([true, false].map(|known| left_out(kind, sent, known)));
        }
    }
    join_all(cases).await; // each takes a second
}

async fn left_out(kind: Kind, sent: u64, known: bool) {
    let mut start = behind(sent);
    if !known {
        (start.digest, start.before) = (None, None);
    }
    let (mut rig, thread) = rerun(start, kind, 2_000, credit(sent, 1));
    assert_eq!(rig.next().await, Frame::Blocked(credit(sent, 1)), "{kind:?}");
    rig.credit.send_replace(PLENTY);
    let mut at = start;
    loop {
        match rig.next().await {
            Frame::Items(batch) => {
                assert_eq!((batch.first_index, batch.first_byte), (at.index, at.byte));
                for item in split(&batch) {
                    assert_eq!(item, at.index.to_string().as_bytes());
                    at.pass(item);
                }
            }
            Frame::End(end) => {
                let digest = behind(2_000).digest.filter(|_| known);
                assert_eq!((end.count, end.digest), (2_000, digest), "{kind:?}");
                break;
            }
            other => panic!("{kind:?}: {other:?}"),
        }
    }
    thread.map(Thread::join).transpose().unwrap();
}

#[tokio::test]
async fn what_is_not_the_same_is_a_failure_and_needs_no_credit() {
    let mut other = behind(700);
    other.digest = other.digest.map(|digest| digest ^ 1);
    for kind in KINDS {
        for (start, count, said) in [(other, 2_000, "item 699"), (behind(700), 699, "700 had been sent")] {
            let (mut rig, thread) = rerun(start, kind, count, Credit::default());
            match rig.next().await {
                Frame::Failure(failure) => {
                    assert_eq!((failure.kind.as_str(), failure.retryable), ("non_deterministic", false));
                    assert!(failure.message.contains(said), "{kind:?}: {}", failure.message);
                }
                other => panic!("{kind:?}: {other:?}"),
            }
            assert!(rig.control.is_slotless());
            rig.say(Word::Taken).await;
            assert_eq!(rig.run.await.unwrap().0, None);
            thread.map(Thread::join).transpose().unwrap();
        }
    }
}

#[tokio::test]
async fn a_rerun_resumes_too() {
    for kind in KINDS {
        let (mut rig, thread) = rerun(behind(700), kind, 1_000, credit(710, u64::MAX));
        let mut sent = 0;
        while sent < 10 {
            sent += rig.items().await.lengths.len();
        }
        let resume = rig.cut().await;
        assert_eq!((resume.floor, resume.head), (Some(behind(700).into()), 710), "{kind:?}");
        rig.from(705).await;
        let again = rig.items().await;
        assert_eq!(
            (again.first_index, again.first_byte),
            (705, behind(705).byte),
            "{kind:?}"
        );
        drop(rig);
        drop(thread); // the run goes on until its runtime ends
    }
}

/// Endless, and it would replay for ever.
#[tokio::test]
async fn a_stop_ends_a_replay_promptly() {
    let mut start = behind(1);
    start.index = u64::MAX;
    for kind in [KINDS[0], KINDS[2]] {
        let (mut rig, thread) = rerun(start, kind, u64::MAX, PLENTY);
        rig.lane().await;
        assert_eq!(rig.next_within(BLOCKED_AFTER / 20).await, None);
        rig.control.stop(StopCause::Cancelled);
        assert_eq!(rig.run.await.unwrap().0, Some(Outcome::Ended));
        thread.map(Thread::join).transpose().unwrap();
    }
}

/// The broker wants no more of it, though nobody has told the run to stop.
#[tokio::test]
async fn a_replay_that_nobody_waits_for_ends() {
    let mut start = behind(1);
    start.index = u64::MAX;
    for kind in [KINDS[0], KINDS[2]] {
        let (mut rig, thread) = rerun(start, kind, u64::MAX, PLENTY);
        rig.say(Word::Taken).await;
        assert_eq!(rig.run.await.unwrap().0, None);
        thread.map(Thread::join).transpose().unwrap();
    }
}

#[tokio::test]
async fn one_that_fails_or_panics_while_it_replays_has_failed_as_usual() {
    let pulled = Arc::new(AtomicU64::new(0));
    for panics in [false, true] {
        let control = Control::default();
        let context = context(&control, behind(5));
        let count = pulled.clone();
        let items = stream::iter(0_u64..).map(move |i| {
            count.store(i, Ordering::SeqCst);
            match i {
                0..3 => Ok(i),
                _ if panics => panic!("ouch"),
                _ => Err(TaskError::retryable("ouch")),
            }
        });
        let replay = Replay::of(&context).unwrap();
        let items = Replayed::new(Box::new(Typed(Box::pin(items))), replay);
        let mut rig = emit(context, control, Box::new(items), PLENTY);
        match rig.next().await {
            Frame::Failure(failure) => {
                let kind = if panics { "panic" } else { "error" };
                assert_eq!((failure.kind.as_str(), failure.message.as_str()), (kind, "ouch"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((pulled.load(Ordering::SeqCst), Arc::strong_count(&pulled)), (3, 1));
    }
}
