//! Mapping against a fake broker: order, look-ahead, failures.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use asynq_client::{Error, Task};
use tokio_stream::StreamExt;

use crate::{ECHO, enqueues, start};

const LATE: Task<u64, u64> = Task::new("late");
const FUSSY: Task<u64, u64> = Task::new("fussy");

#[tokio::test]
async fn results_come_in_the_order_of_the_inputs() {
    let (_fake, client) = start().await;
    let results: Vec<_> = client
        .map(LATE, 0..500)
        .look_ahead(8)
        .map(Result::unwrap)
        .collect()
        .await;
    assert!(results.into_iter().eq(0..500));
    let mut results: Vec<_> = client.map(LATE, 0..500).unordered().map(Result::unwrap).collect().await;
    results.sort_unstable();
    assert!(results.into_iter().eq(0..500));
}

#[tokio::test]
async fn unordered_results_wait_for_nobody() {
    let (_fake, client) = start().await;
    let results: Vec<_> = client
        .map(LATE, 0..7)
        .unordered()
        .take(6)
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(results.len(), 6);
    assert!(!results.contains(&0));
}

#[tokio::test]
async fn inputs_are_pulled_as_they_are_needed() {
    let (fake, client) = start().await;
    let pulled = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&pulled);
    let inputs = iter::from_fn(move || Some(counter.fetch_add(1, Ordering::Relaxed)));
    let mut endless = client
        .map(Task::<u64, u64>::new("echo"), inputs)
        .look_ahead(10)
        .series("s");
    for n in 0..5 {
        assert_eq!(endless.try_next().await.unwrap(), Some(n));
    }
    client.call(ECHO, &String::new()).await.unwrap();
    // Ten are under way or unread, and one has been read since they were counted.
    assert!((14..=15).contains(&pulled.load(Ordering::Relaxed)), "{pulled:?}");
    let enqueues = enqueues(&fake);
    assert!(enqueues.len() <= 16);
    assert_eq!(enqueues[0].options.as_ref().unwrap().series, "s");
}

#[tokio::test]
async fn an_error_stands_where_its_result_would() {
    let (_fake, client) = start().await;
    let results: Vec<_> = client.map(FUSSY, 0..6).collect().await;
    let places: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(places, [true, true, true, false, true, true]);
    assert!(matches!(results[3], Err(Error::Dead { .. })));
}

#[tokio::test]
async fn what_is_under_way_can_be_cancelled() {
    let (fake, client) = start().await;
    let mut map = client.map(FUSSY, [1, 100, 200]);
    assert_eq!(map.try_next().await.unwrap(), Some(1));
    let ids: Vec<_> = map.running().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(map.cancel().await.unwrap(), 2);
    for id in ids {
        assert!(matches!(
            client.handle_raw(id).result().await,
            Err(Error::Cancelled { .. })
        ));
    }
    assert_eq!(enqueues(&fake).len(), 3);
}
