//! Iterating against a fake broker: order, credit, and all the ways a stream ends.

use std::{future::IntoFuture, time::Duration};

use asynq_client::{CancelOutcome, Client, Error, Items, Iter, OnLoss, Payload, Refusal, State};
use asynq_proto::{limits::MAX_PAYLOAD_BYTES, v1::operation::Op};
use tokio_stream::StreamExt;

use crate::{ECHO, fake::Fake, start};

const COUNT: Iter<u64, u64> = Iter::new("count", OnLoss::Replay);
const LARGE: Iter<u64, String> = Iter::new("large", OnLoss::Replay);

pub(crate) async fn count(client: &Client, name: &str, n: u64, window: u32) -> Items<Payload> {
    let count = client.iterate_raw(name, Payload::json(&n).unwrap());
    count.window(window).await.unwrap()
}

/// All that is left, and how it ended.
pub(crate) async fn rest(mut items: Items<Payload>) -> (Vec<u64>, Option<Error>) {
    let mut taken = Vec::new();
    loop {
        match items.try_next().await {
            Ok(Some(item)) => taken.push(item.decode().unwrap()),
            end => {
                assert_eq!(items.taken(), taken.len() as u64);
                assert!(matches!(items.try_next().await, Ok(None)), "an end is the end");
                return (taken, end.err());
            }
        }
    }
}

#[tokio::test]
async fn items_come_in_order_and_then_the_end() {
    let (fake, client) = start().await;
    let items = client.iterate(COUNT, &20_000).series("s").await.unwrap();
    assert!(items.worker_known());
    let taken: Vec<u64> = items.map(Result::unwrap).collect().await;
    assert!(taken.into_iter().eq(0..20_000));
    let [stream] = fake.streams()[..] else {
        panic!("one stream")
    };
    assert!(!stream.stopped && !stream.gone, "{stream:?}");

    let none: Vec<_> = client.iterate(COUNT, &0).await.unwrap().collect().await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn the_worker_runs_ahead_by_the_window_and_no_further() {
    let (fake, client) = start().await;
    let mut items = count(&client, "count", 1_000, 10).await;
    let sent = |sent| move |streams: &[crate::fake::Seen]| streams[0].sent == sent;
    fake.until(sent(10)).await;
    // Asking for the sixth tells that five are done with, which is half the window.
    for _ in 0..5 {
        items.try_next().await.unwrap();
    }
    client.call(ECHO, &String::new()).await.unwrap();
    assert_eq!(fake.streams()[0].sent, 10);
    items.try_next().await.unwrap();
    fake.until(sent(15)).await;
    let credit = fake.streams()[0].credit;
    assert_eq!((credit.acked, credit.limit_index), (5, 15));
    let (taken, end) = rest_after(items, 6).await;
    assert!(end.is_none() && taken == 994);
}

/// How many items are left, which go on from `first`, and how they ended.
pub(crate) async fn rest_after(mut items: Items<Payload>, first: u64) -> (u64, Option<Error>) {
    let mut next = first;
    loop {
        match items.try_next().await {
            Ok(Some(item)) => assert_eq!(item.decode::<u64>().unwrap(), next),
            end => return (next - first, end.err()),
        }
        next += 1;
    }
}

#[tokio::test]
async fn unread_bytes_are_bounded_too_and_hold_up_nobody_else() {
    let (fake, client) = start().await;
    // Together more than the connection lets be unread.
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(client.iterate(LARGE, &5).await.unwrap());
    }
    // Two fit in 8 MiB, a third does not.
    fake.until(|streams| streams.iter().all(|stream| stream.sent == 2))
        .await;
    assert_eq!(fake.streams()[0].credit.limit_bytes, 2 * MAX_PAYLOAD_BYTES as u64);
    let value = "x".repeat(3 * 1024 * 1024);
    assert!(
        client.call(ECHO, &value).await.unwrap() == value,
        "by the data connection"
    );
    for stream in streams {
        assert_eq!(
            stream
                .map(|item| item.unwrap().len())
                .fold(0, |sum, len| sum + len)
                .await,
            15 * 1024 * 1024
        );
    }
}

#[tokio::test]
async fn dropping_it_stops_the_task() {
    let (fake, client) = start().await;
    let mut items = count(&client, "count", u64::MAX, 10).await;
    items.try_next().await.unwrap();
    drop(items);
    fake.until(|streams| streams[0].gone).await;
    let idle = count(&client, "slow", 0, 10).await;
    drop(idle);
    fake.until(|streams| streams[1].gone).await;
    assert_eq!(client.call(ECHO, &"on".to_owned()).await.unwrap(), "on");
}

#[tokio::test]
async fn stopping_it_waits_for_the_end() {
    let (fake, client) = start().await;
    let mut items = count(&client, "count", u64::MAX, 1_000).await;
    for _ in 0..3 {
        items.try_next().await.unwrap();
    }
    let id = items.id();
    let stopped = items.stop().await.unwrap();
    assert_eq!(
        (stopped.id, stopped.outcome, stopped.state),
        (id, CancelOutcome::Stopping, State::Cancelled)
    );
    assert!(fake.streams()[0].stopped && !fake.streams()[0].gone);

    let mut ended = count(&client, "count", 1, 10).await;
    while ended.try_next().await.unwrap().is_some() {}
    let stopped = ended.stop().await.unwrap();
    assert_eq!(
        (stopped.outcome, stopped.state),
        (CancelOutcome::Finished, State::Succeeded)
    );
}

#[tokio::test]
async fn a_failure_comes_after_the_items_before_it() {
    let (_fake, client) = start().await;
    for (name, n) in [("dead.error", 0), ("dead.error", 200), ("cancelled", 3)] {
        let (taken, end) = rest(count(&client, name, n, 16).await).await;
        assert!(taken.into_iter().eq(0..n));
        let end = end.unwrap();
        match name {
            "cancelled" => assert!(matches!(end, Error::Cancelled { .. }), "{end:?}"),
            _ => assert!(
                matches!(&end, Error::Dead { failure, .. } if failure.message == "it broke"),
                "{end:?}"
            ),
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_no_end() {
    let (fake, client) = start().await;
    let (taken, end) = rest(count(&client, "cut", 40, 16).await).await;
    assert!(taken.into_iter().eq(0..40) && end.is_none(), "{end:?}");
    assert_eq!(fake.openings().len(), 2, "the end was asked for again");
}

#[tokio::test]
async fn a_broker_that_overruns_the_credit_is_not_followed() {
    let (fake, client) = start().await;
    let (taken, end) = rest(count(&client, "over", 1_000, 10).await).await;
    assert!(taken.len() < 1_000);
    assert_eq!(end.unwrap().reason(), "UNEXPECTED");
    fake.until(|streams| streams[0].gone).await;
}

#[tokio::test]
async fn opening_is_tried_again_but_never_runs_a_task_twice() {
    let (fake, client) = start().await;
    let items = count(&client, "not_now", 3, 10).await;
    assert_eq!(rest(items).await.0, [0, 1, 2]);
    let [first, second] = &fake.openings()[..] else {
        panic!("it was asked for twice")
    };
    let fresh = [first, second].map(|request| request.task.as_ref().unwrap().first_send);
    assert_eq!(
        (fresh, first.open_seq, second.open_seq),
        ([true, false], 1, 2),
        "the broker tells the second from the first"
    );
    assert_eq!(first.consumer_id, second.consumer_id);
}

#[tokio::test]
async fn refusals_come_at_once() {
    let (fake, client) = start().await;
    let error = client.iterate_raw("refused.8", Payload::null()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                kind: Refusal::Exhausted,
                ..
            }
        ),
        "{error:?}"
    );
    for window in [0, 65_537] {
        let error = client.iterate(COUNT, &1).window(window).await.unwrap_err();
        assert!(error.to_string().contains("1 to 65536"), "{error}");
    }
    let taken = count(&client, "count", 1, 10).await;
    let again = client.iterate(COUNT, &1).id_again(taken.id()).await.unwrap_err();
    assert_eq!(again.reason(), "BEING_READ");
    assert_eq!(fake.streams().len(), 1);
}

#[tokio::test]
async fn credit_survives_a_lost_session() {
    let (fake, client) = start().await;
    let mut items = count(&client, "count", 1_000, 10).await;
    for _ in 0..6 {
        items.try_next().await.unwrap();
    }
    let flows = |fake: &Fake| {
        let operations = fake.messages().into_iter().flatten();
        operations
            .filter(|operation| matches!(operation.op, Some(Op::Flow(_))))
            .count()
    };
    fake.until(|streams| streams[0].credit.acked == 5).await;
    assert_eq!(flows(&fake), 1);
    fake.cut();
    fake.until(|_| flows(&fake) == 2).await;
    assert_eq!(rest_after(items, 6).await.0, 994);
    // What has ended is not spoken of again, once the last word is through.
    client.call(ECHO, &String::new()).await.unwrap();
    let told = flows(&fake);
    fake.cut();
    client.call(ECHO, &String::new()).await.unwrap();
    assert_eq!(flows(&fake), told);
}

#[tokio::test]
async fn waiting_for_an_item_can_be_given_up_and_taken_up_again() {
    let (_fake, client) = start().await;
    let opening = client.iterate(COUNT, &500).window(7).into_future();
    let mut items = tokio::spawn(opening).await.unwrap().unwrap();
    let (mut next, mut given_up) = (0, 0);
    loop {
        match tokio::time::timeout(Duration::ZERO, items.try_next())
            .await
            .map(Result::unwrap)
        {
            Err(_) => given_up += 1,
            Ok(Some(item)) => {
                assert_eq!(item, next);
                next += 1;
            }
            Ok(None) => break,
        }
    }
    assert!(next == 500 && given_up > 0);
}
