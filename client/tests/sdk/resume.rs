//! Streams that break, at every place there is, and readers that come and go.

use std::time::Duration;

use asynq_client::{CancelOutcome, Client, Error, Items, Iter, OnLoss, Payload, Refusal, State};
use asynq_proto::v1::operation::Op;

use crate::{
    ECHO,
    fake::Fake,
    iterate::{count, rest, rest_after},
    pipe, start,
};

const COUNT: Iter<u64, u64> = Iter::new("count", OnLoss::Replay);

/// Takes so many items, which go on from `first`.
async fn take(items: &mut Items<Payload>, first: u64, n: u64) {
    for index in first..first + n {
        let item = items.try_next().await.unwrap().unwrap();
        assert_eq!(item.decode::<u64>().unwrap(), index);
    }
}

/// Waits for so many requests for streams in all.
async fn asked(fake: &Fake, n: usize) {
    fake.until(|_| fake.openings().len() >= n).await;
}

#[tokio::test]
async fn wherever_it_breaks_nothing_is_lost_and_nothing_comes_twice() {
    const N: u64 = 70;
    for face in ["", ".quiet"] {
        for frames in 1.. {
            let (fake, client) = start().await;
            fake.fail(&[format!("{frames}{face}").leak()]);
            let mut items = count(&client, "count", N, 10).await;
            // Half of it, so that the rest comes within a window that has moved.
            take(&mut items, 0, N / 2).await;
            let (rest, end) = rest_after(items, N / 2).await;
            assert!(rest == N / 2 && end.is_none(), "{frames}{face}: {rest}, {end:?}");
            let openings = fake.openings();
            if openings.len() == 1 {
                assert!(frames > 8, "broke after each of {frames} frames");
                break;
            }
            // Behind the first frame no more than an id is needed.
            assert!(openings[1].attach && openings[1].task.as_ref().unwrap().name.is_empty());
        }
    }
}

#[tokio::test]
async fn a_broken_stream_is_opened_where_its_reader_is_done_with_it() {
    let (fake, client) = start().await;
    fake.fail(&["before", "4.quiet", "before", "1", "2", "1.quiet", "3"]);
    let items = count(&client, "count", 500, 16).await;
    let (taken, end) = rest(items).await;
    assert!(taken.into_iter().eq(0..500) && end.is_none(), "{end:?}");

    let openings = fake.openings();
    assert_eq!(openings.len(), 8);
    let mut from = 0;
    for (request, open_seq) in openings.iter().zip(1..) {
        assert_eq!(request.open_seq, open_seq);
        assert_eq!(request.consumer_id, openings[0].consumer_id);
        assert_eq!(request.attach, open_seq > 2, "attached to once it had been opened");
        assert!(!request.take_over && !request.detach_on_reset && request.detach_grace_ms.is_none());
        let credit = request.credit.unwrap();
        assert_eq!(credit.acked, request.from_index);
        assert_eq!(credit.limit_index, request.from_index + 16, "a total");
        assert_eq!(credit.limit_bytes, 8 * 1024 * 1024, "counts from there");
        // The fake holds place and digest against the truth.
        assert_eq!(request.from.is_some(), request.attach);
        assert!(request.from_index >= from);
        from = request.from_index;
    }
    assert!(from > 0);
}

#[tokio::test]
async fn credit_given_while_there_is_no_broker_is_told_later() {
    let (fake, client) = start().await;
    fake.fail(&["2", "away"]);
    let mut items = count(&client, "count", 1_000, 10).await;
    asked(&fake, 2).await;
    take(&mut items, 0, 10).await;
    // Asking for one more tells what is done with.
    let next = tokio::time::timeout(Duration::ZERO, items.try_next()).await;
    assert!(next.is_err(), "the window is read");
    let asked_before = fake.openings().len();
    asked(&fake, asked_before + 2).await;
    let last = fake.openings().pop().unwrap();
    assert_eq!((last.from_index, last.credit.unwrap().limit_index), (10, 20));
    fake.fail(&[]);
    assert_eq!(rest_after(items, 10).await.0, 990);

    let flows = fake
        .messages()
        .into_iter()
        .flatten()
        .filter_map(|operation| match operation.op {
            Some(Op::Flow(flow)) => Some(flow),
            _ => None,
        });
    let mut flows = flows.map(|flow| flow.open_seq);
    let open_seq = flows.next().unwrap();
    assert!(
        open_seq > 3 && flows.all(|seq| seq == open_seq),
        "only the present opening is told"
    );
}

#[tokio::test]
async fn a_refusal_ends_a_stream_that_broke() {
    for (fault, kind, reason) in [
        ("refused.11.BELOW_FLOOR", Refusal::OutOfRange, "BELOW_FLOOR"),
        ("refused.11.BEYOND_HEAD", Refusal::OutOfRange, "BEYOND_HEAD"),
        ("refused.10.STALE_READER", Refusal::FailedPrecondition, "STALE_READER"),
        ("refused.6.BEING_READ", Refusal::AlreadyExists, "BEING_READ"),
        ("refused.9.NOT_A_STREAM", Refusal::FailedPrecondition, "NOT_A_STREAM"),
        ("refused.5.TASK_NOT_FOUND", Refusal::NotFound, "TASK_NOT_FOUND"),
    ] {
        let (fake, client) = start().await;
        fake.fail(&["3", fault]);
        let (taken, end) = rest(count(&client, "count", 10_000, 100).await).await;
        let end = end.unwrap();
        assert!(
            matches!(&end, Error::Refused { kind: got, .. } if *got == kind),
            "{fault}: {end:?}"
        );
        assert_eq!(
            (end.reason(), end.is_retryable(), end.is_indefinite()),
            (reason, false, false)
        );
        assert!(!taken.is_empty(), "what had come is given first");
        assert_eq!(fake.openings().len(), 2, "it is final");
    }
}

#[tokio::test]
async fn other_items_than_before_are_not_followed() {
    for fault in ["other_items", "other_digest", "refused.9.READ_OTHER_ITEMS"] {
        let (fake, client) = start().await;
        fake.fail(&["3", fault]);
        let mut items = count(&client, "count", u64::MAX, 1_000).await;
        asked(&fake, 2).await;
        take(&mut items, 0, 100).await;
        let (taken, end) = rest_after(items, 100).await;
        let end = end.unwrap();
        assert!(
            matches!(end, Error::StreamChanged { index, .. } if index <= 100 + taken),
            "{fault}: {end:?}"
        );
        assert_eq!((end.reason(), end.is_retryable()), ("STREAM_CHANGED", false));
        fake.until(|streams| streams[0].gone).await;
    }
}

#[tokio::test]
async fn another_reader_goes_on_where_the_first_was() {
    let (fake, client) = start().await;
    let mut first = count(&client, "count", 1_000, 10).await;
    take(&mut first, 0, 7).await;
    let (id, at) = (first.id(), first.position());
    assert_eq!((at, first.taken()), (7, 7));

    let other = Client::connect(&fake.url()).await.unwrap();
    let error = other.resume_raw(id).from_index(at).await.unwrap_err();
    assert_eq!(error.reason(), "BEING_READ");
    let mut second = other
        .resume(COUNT, id)
        .from_index(at)
        .take_over()
        .window(5)
        .await
        .unwrap();
    assert_eq!(second.try_next().await.unwrap(), Some(7));
    assert_eq!((second.taken(), second.position(), second.id()), (1, 8, id));
    let request = fake.openings().pop().unwrap();
    assert!(request.take_over && request.attach && request.from.is_none());
    assert_eq!((request.from_index, request.credit.unwrap().limit_index), (7, 12));

    // The first reads what it had got, and is told why there is no more.
    let (_, end) = rest_after(first, 7).await;
    assert_eq!(end.unwrap().reason(), "STALE_READER");
    let mut next = 8;
    while let Some(item) = second.try_next().await.unwrap() {
        assert_eq!(item, next);
        next += 1;
    }
    assert_eq!((next, second.taken()), (1_000, 993));
}

#[tokio::test]
async fn one_who_went_on_survives_breaks_as_well_and_takes_nothing_over_again() {
    let (fake, client) = start().await;
    let mut first = count(&client, "count", 300, 10).await;
    take(&mut first, 0, 9).await;
    let id = first.id();
    fake.fail(&["before", "2", "1", "3"]);
    let second = client
        .resume_raw(id)
        .from_index(9)
        .take_over()
        .window(10)
        .await
        .unwrap();
    assert_eq!(rest_after(second, 9).await.0, 291);
    let takes: Vec<_> = fake.openings().iter().map(|request| request.take_over).collect();
    assert_eq!(takes, [false, true, true, false, false, false]);
    drop(first);
}

#[tokio::test]
async fn what_cannot_be_gone_on_with_is_refused() {
    let (fake, client) = start().await;
    let mut items = count(&client, "count", 1_000, 10).await;
    take(&mut items, 0, 6).await;
    fake.until(|streams| streams[0].credit.acked == 5).await;
    let id = items.id();
    let error = client.resume_raw(id).from_index(2).take_over().await.unwrap_err();
    assert_eq!(error.reason(), "BELOW_FLOOR");
    assert!(error.to_string().contains("item 5"), "{error}");
    assert!(
        matches!(
            error,
            Error::Refused {
                kind: Refusal::OutOfRange,
                ..
            }
        ),
        "{error:?}"
    );
    let plain = client.enqueue(ECHO, &String::new()).await.unwrap().id();
    assert_eq!(client.resume_raw(plain).await.unwrap_err().reason(), "NOT_A_STREAM");
    let nothing = client.iterate(COUNT, &1).id();
    assert_eq!(client.resume_raw(nothing).await.unwrap_err().reason(), "TASK_NOT_FOUND");
    for (grace, good) in [
        (Duration::from_secs(86_400), true),
        (Duration::from_millis(86_400_001), false),
    ] {
        let opened = client.iterate(COUNT, &1).detach_grace(grace).await;
        assert_eq!(opened.is_ok(), good, "{grace:?}");
    }
    let grace = fake.openings().pop().unwrap().detach_grace_ms;
    assert_eq!(grace, Some(86_400_000));
}

#[tokio::test]
async fn one_that_detaches_says_so_and_can_still_stop() {
    let (fake, client) = start().await;
    let begin = || client.iterate(COUNT, &u64::MAX).window(10).detach_on_drop();
    let mut items = begin().detach_grace(Duration::ZERO).await.unwrap();
    items.try_next().await.unwrap();
    let request = fake.openings().pop().unwrap();
    assert!(request.detach_on_reset);
    assert_eq!(request.detach_grace_ms, Some(0));
    drop(items);
    fake.until(|streams| streams[0].gone).await;

    let items = begin().await.unwrap();
    assert_eq!(items.stop().await.unwrap().state, State::Cancelled);
    assert!(fake.streams()[1].stopped);
}

#[tokio::test]
async fn what_is_not_acknowledged_is_kept() {
    let (fake, client) = start().await;
    let begin = client.iterate_raw("count", Payload::json(&100).unwrap());
    let mut items = begin.window(10).manual_ack().await.unwrap();
    take(&mut items, 0, 10).await;
    let next = tokio::time::timeout(Duration::ZERO, items.try_next()).await;
    assert!(next.is_err(), "nothing comes that is past the window");
    client.call(ECHO, &String::new()).await.unwrap();
    assert_eq!((fake.streams()[0].sent, fake.streams()[0].credit.acked), (10, 0));
    let id = items.id();
    items.ack();
    take(&mut items, 10, 5).await;
    items.ack();
    take(&mut items, 15, 5).await;
    fake.until(|streams| streams[0].credit.acked == 15).await;

    // Another one may have what was given out and not acknowledged.
    let other = client.resume_raw(id).from_index(15).take_over().await.unwrap();
    drop(items);
    assert_eq!(rest_after(other, 15).await.0, 85);
}

#[tokio::test]
async fn a_break_acknowledges_nothing() {
    let (fake, client) = start().await;
    fake.fail(&["3"]);
    let begin = client.iterate_raw("count", Payload::json(&1_000).unwrap());
    let mut items = begin.window(200).manual_ack().await.unwrap();
    asked(&fake, 2).await;
    take(&mut items, 0, 200).await;
    assert_eq!(fake.openings()[1].from_index, 0);
    let next = tokio::time::timeout(Duration::ZERO, items.try_next()).await;
    assert!(
        next.is_err(),
        "it has all its window has room for, and none of it twice"
    );
    for first in (200..1_000).step_by(100) {
        items.ack();
        take(&mut items, first, 100).await;
    }
    assert!(items.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_is_stopped_though_it_breaks() {
    let (fake, client) = start().await;
    fake.fail(&["2", "1", "1"]);
    let mut items = count(&client, "count", u64::MAX, 1_000).await;
    take(&mut items, 0, 3).await;
    let stopped = items.stop().await.unwrap();
    assert_eq!(
        (stopped.outcome, stopped.state),
        (CancelOutcome::Stopping, State::Cancelled)
    );
}

#[tokio::test]
async fn dropping_it_without_a_broker_ends_all_attempts() {
    let (fake, client) = start().await;
    fake.fail(&["2", "away"]);
    let items = count(&client, "count", u64::MAX, 10).await;
    asked(&fake, 3).await;
    drop(items);
    fake.fail(&[]);
    // A stream of the same client that is opened after it finds no trace of it.
    assert_eq!(rest(count(&client, "count", 3, 10).await).await.0, [0, 1, 2]);
    assert!(fake.streams()[0].gone);
}

/// On a clock that stands still while anything can happen.
#[tokio::test(start_paused = true)]
async fn without_a_broker_for_too_long_it_says_from_where_another_can_go_on() {
    let (fake, _pipes, connector) = pipe::start();
    let client = Client::with_connector(connector).await.unwrap();
    fake.fail(&["2", "away"]);
    let begun = tokio::time::Instant::now();
    let items = count(&client, "count", 1_000, 40).await;
    let id = items.id();
    let (taken, end) = rest(items).await;
    let patience = begun.elapsed();
    assert!(taken.into_iter().eq(0..40));
    let end = end.unwrap();
    assert!(matches!(end, Error::StreamBroken { taken: 40, .. }), "{end:?}");
    assert!(
        end.is_indefinite() && end.is_retryable() && end.task() == Some(id),
        "{end:?}"
    );
    assert!(end.to_string().contains("before item 40"), "{end}");
    assert!(
        (58.0..62.0).contains(&patience.as_secs_f64()),
        "gave up after {patience:?}"
    );

    fake.fail(&[]);
    let rest = client.resume_raw(id).from_index(40).await.unwrap();
    assert_eq!(rest_after(rest, 40).await.0, 960);
}

/// A connection that is lost, and all that is on it.
#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_a_break() {
    let (fake, pipes, connector) = pipe::start();
    let client = Client::with_connector(connector).await.unwrap();
    let mut items = count(&client, "count", 2_000, 40).await;
    for first in (0..2_000).step_by(100) {
        pipes.lose();
        take(&mut items, first, 100).await;
    }
    assert!(items.try_next().await.unwrap().is_none());
    assert!(fake.openings().len() > 10);
}
