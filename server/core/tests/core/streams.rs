//! Deferred iteration: credits, ends, stops, lent slots.

use std::time::Duration;

use asynq_core::{
    ConsumerId, Credit, DeadReason, Event, ItemBatch, LeaseToken, Left, Outcome, Place, Reader, Reason, Reply,
    StateName, StopCause, StreamStart, TaskId, Verdict, limits,
};
use proptest::prelude::*;

use crate::shard::{Shard, failure, session, spec};

pub(crate) const READER: ConsumerId = ConsumerId([5; 16]);

pub(crate) fn credit(acked: u64, items: u64, bytes: u64) -> Credit {
    Credit {
        acked,
        limit_index: items,
        limit_bytes: bytes,
    }
}

fn iterate(shard: &mut Shard, credit: Credit) -> TaskId {
    iterate_as(shard, "rows", credit)
}

pub(crate) fn iterate_as(shard: &mut Shard, name: &'static str, credit: Credit) -> TaskId {
    let id = shard.new_id();
    let reply = shard.try_iterate(id, &spec(name), Some(reader(1, Place::START, credit)));
    assert!(matches!(reply, Reply::Attached { existed: false, .. }), "{reply:?}");
    assert_eq!(shard.reading(), (id, Place::START));
    id
}

/// Who reads in these tests, for the `open_seq`th time.
pub(crate) fn reader(open_seq: u64, from: Place, credit: Credit) -> Reader {
    Reader {
        consumer: READER,
        open_seq,
        credit,
        from,
        take_over: false,
        grace: limits::DETACH_GRACE,
    }
}

/// A worker with one slot and a stream on it.
fn streaming(credit: Credit) -> (Shard, LeaseToken) {
    let mut shard = Shard::new();
    shard.connect(1, 1, &["rows"]);
    iterate(&mut shard, credit);
    let run = shard.assigned();
    let start = StreamStart {
        credit,
        start: Place::START,
        checkpoint: None,
    };
    assert_eq!(run.stream, Some(start));
    (shard, run.token)
}

/// `count` items of two bytes, from `first` on.
pub(crate) fn batch(first: u64, count: usize) -> ItemBatch {
    ItemBatch {
        first_index: first,
        first_byte: 2 * first,
        lengths: vec![2; count],
        data: vec![b'0'; 2 * count].into(),
        content_type: "".into(),
    }
}

fn emit(shard: &mut Shard, token: LeaseToken, batch: ItemBatch) {
    shard.apply(Event::Items {
        session: session(1),
        token,
        batch,
    });
}

fn flow(shard: &mut Shard, token: LeaseToken, credit: Credit) {
    shard.apply(Event::Flow {
        task: token.task,
        consumer: READER,
        open_seq: 0,
        credit,
    });
}

fn blocked(shard: &mut Shard, token: LeaseToken, credit: Credit) {
    shard.apply(Event::Blocked {
        session: session(1),
        token,
        credit,
    });
}

fn iterated(shard: &mut Shard, token: LeaseToken, count: u64) -> Verdict {
    shard.apply(Event::Iterated {
        session: session(1),
        token,
        count,
        digest: None,
    });
    shard.verdict(token)
}

#[test]
fn items_go_through_in_order_and_the_end_comes_last() {
    let (mut shard, token) = streaming(credit(0, 4, 100));
    emit(&mut shard, token, batch(0, 3));
    assert_eq!(shard.items(), batch(0, 3));
    flow(&mut shard, token, credit(3, 7, 100));
    assert_eq!(shard.credited(), (token, credit(3, 7, 100)));
    emit(&mut shard, token, batch(3, 4));
    assert_eq!(shard.items(), batch(3, 4));
    assert_eq!(iterated(&mut shard, token, 7), Verdict::Accepted(StateName::Succeeded));
    let finished = shard.finished();
    assert_eq!((finished.outcome, finished.result), (Outcome::Succeeded, None));
}

#[test]
fn old_and_repeated_flows_change_nothing() {
    let (mut shard, token) = streaming(credit(0, 4, 100));
    emit(&mut shard, token, batch(0, 2));
    shard.items();
    flow(&mut shard, token, credit(1, 4, 100));
    flow(&mut shard, token, credit(0, 3, 50));
    shard.apply(Event::Flow {
        task: token.task,
        consumer: ConsumerId([6; 16]),
        open_seq: 0,
        credit: credit(0, 99, 999),
    });
    shard.quiet(); // Not more room; not this reader.
    flow(&mut shard, token, credit(99, 5, 100));
    assert_eq!(
        shard.credited().1,
        credit(2, 5, 100),
        "nobody has taken what has not come"
    );
    shard.apply(Event::ReaderGone {
        task: token.task,
        consumer: READER,
        open_seq: 0,
        how: Left::Stopped,
    });
    shard.stopped();
    shard.ended(1, token);
    shard.finished();
}

#[test]
fn a_worker_that_breaks_the_rules_ends_its_task() {
    let cases: [(&str, ItemBatch); 4] = [
        ("beyond the credit", batch(0, 5)),
        (
            "beyond the credit",
            ItemBatch {
                lengths: vec![99],
                data: vec![0; 99].into(),
                ..batch(0, 1)
            },
        ),
        ("where item 0 was due", batch(1, 1)),
        (
            "where item 0 was due",
            ItemBatch {
                first_byte: 9,
                ..batch(0, 1)
            },
        ),
    ];
    for (problem, batch) in cases {
        let (mut shard, token) = streaming(credit(0, 4, 10));
        emit(&mut shard, token, batch.clone());
        assert_eq!(shard.stopped(), (token, StopCause::Stale));
        let finished = shard.finished();
        assert_eq!(finished.outcome, Outcome::Dead(DeadReason::Error));
        let message = finished.failure.expect("why").message;
        assert!(message.contains(problem), "{message}");
    }
    let (mut shard, token) = streaming(credit(0, 4, 10));
    assert_eq!(iterated(&mut shard, token, 1), Verdict::Accepted(StateName::Dead));
    shard.stopped();
    shard.finished();
    let (mut shard, token) = streaming(credit(0, 4, 10));
    assert_eq!(
        shard.complete(1, token),
        Verdict::Accepted(StateName::Dead),
        "a result is no stream"
    );
    shard.stopped();
    shard.finished();
}

#[test]
fn an_error_comes_after_the_items_before_it_and_is_final() {
    let (mut shard, token) = streaming(credit(0, 4, 10));
    emit(&mut shard, token, batch(0, 2));
    assert_eq!(
        shard.fail(1, token, failure("broken", true)),
        Verdict::Accepted(StateName::Dead)
    );
    shard.items();
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::Error));
}

#[test]
fn a_reader_that_goes_stops_the_run_or_cancels_the_wait() {
    let (mut shard, token) = streaming(credit(0, 4, 10));
    let waiting = iterate(&mut shard, credit(0, 1, 10));
    shard.apply(Event::ReaderGone {
        task: waiting,
        consumer: READER,
        open_seq: 0,
        how: Left::Stopped,
    });
    assert_eq!(
        (shard.finished().task, shard.durable.state(waiting)),
        (waiting, StateName::Cancelled)
    );
    shard.apply(Event::ReaderGone {
        task: token.task,
        consumer: READER,
        open_seq: 0,
        how: Left::Stopped,
    });
    assert_eq!(shard.stopped(), (token, StopCause::Cancelled));
    emit(&mut shard, token, batch(0, 1));
    shard.quiet(); // Items after a stop are nobody's.
    assert_eq!(shard.ended(1, token), Verdict::Accepted(StateName::Cancelled));
    shard.finished();
}

#[test]
fn a_lost_worker_ends_the_stream() {
    let (mut shard, token) = streaming(credit(0, 4, 10));
    emit(&mut shard, token, batch(0, 1));
    shard.items();
    shard.disconnect(1);
    shard.advance(limits::RESET_GRACE);
    assert_eq!(shard.finished().outcome, Outcome::Dead(DeadReason::WorkerLost));
}

#[test]
fn a_run_blocked_on_credit_lends_its_slot_and_takes_it_back_first() {
    let window = credit(0, 1, 100);
    let (mut shard, token) = streaming(window);
    let second = iterate(&mut shard, window);
    emit(&mut shard, token, batch(0, 1));
    shard.items();
    shard.quiet();
    blocked(&mut shard, token, window);
    let other = shard.assigned().token;
    assert_eq!(other.task, second, "ordered readers cannot deadlock a pool");
    let third = iterate(&mut shard, window);
    let why = shard.core.explain(shard.now, token.task).expect("live");
    assert_eq!(
        (why.reason, why.details["blocked_on"].as_str()),
        (Reason::Running, "credit")
    );

    flow(&mut shard, token, credit(1, 2, 100));
    shard.credited();
    // Two runs on one slot: neither end lets the third in before both have.
    shard.apply(Event::ReaderGone {
        task: second,
        consumer: READER,
        open_seq: 0,
        how: Left::Stopped,
    });
    shard.stopped();
    shard.ended(1, other);
    shard.finished();
    shard.quiet();
    assert_eq!(iterated(&mut shard, token, 1), Verdict::Accepted(StateName::Succeeded));
    shard.finished();
    assert_eq!(shard.assigned().token.task, third);
}

#[test]
fn no_more_slots_are_lent_than_there_are_and_late_news_of_a_block_lends_none() {
    let window = credit(0, 1, 100);
    let (mut shard, token) = streaming(window);
    blocked(&mut shard, token, credit(0, 0, 100));
    iterate(&mut shard, window);
    shard.quiet(); // The worker had not heard of its credit yet.
    blocked(&mut shard, token, window);
    let second = shard.assigned().token;
    iterate(&mut shard, window);
    blocked(&mut shard, second, window);
    shard.quiet(); // One slot, one loan.
}

proptest! {
    /// Whatever window the caller opens and however the worker cuts its batches,
    /// the reader sees each item once, in order, and never more than it gave
    /// credit for.
    #[test]
    fn every_item_once_in_order_within_the_credit(
        total in 0_u64..60,
        window in 1_u64..9,
        cuts in proptest::collection::vec(1_usize..7, 0..40),
        late in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let (mut shard, token) = streaming(credit(0, window, 1_000));
        let (mut seen, mut limit, mut sent) = (0, window, 0);
        let (mut cuts, mut late) = (cuts.into_iter().cycle(), late.into_iter().cycle());
        while sent < total {
            let want = cuts.next().unwrap_or(1) as u64;
            let count = want.min(total - sent).min(limit - sent);
            if count > 0 {
                emit(&mut shard, token, batch(sent, count as usize));
                let got = shard.items();
                prop_assert_eq!(got.first_index, seen);
                seen += got.lengths.len() as u64;
                sent += count;
            }
            prop_assert!(seen <= limit);
            if count == 0 || late.next() == Some(true) {
                limit = seen + window;
                flow(&mut shard, token, credit(seen, limit, 1_000));
                if !shard.drain().is_empty() { shard.advance(Duration::from_micros(1)); }
            }
        }
        prop_assert_eq!(iterated(&mut shard, token, total), Verdict::Accepted(StateName::Succeeded));
        prop_assert_eq!(shard.finished().outcome, Outcome::Succeeded);
        prop_assert_eq!(seen, total);
    }
}
