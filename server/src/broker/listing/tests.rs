//! What the store is asked for, what becomes of its answer, how much may be
//! under way.

use std::sync::Arc;

use asynq_core::{Counters, Grant, Name, Options, State, TaskRecord};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::broker::{Broker, Error, open};
use crate::clock::SystemClock;
use crate::limits::MAX_LISTINGS;
use crate::server::Backing;

fn idle() -> (Broker, Loop) {
    open(Backing::memory(), Arc::new(SystemClock::new())).unwrap()
}

fn all(limit: usize) -> ListTasks {
    ListTasks {
        filter: TaskFilter::ALL,
        before: None,
        limit,
    }
}

fn listing(states: StateSet) -> (Listing, oneshot::Receiver<Page>) {
    let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
    let filter = TaskFilter {
        states,
        ..TaskFilter::ALL
    };
    let (reply, page) = oneshot::channel();
    (Listing::new(ListTasks { filter, ..all(3) }, reply, room), page)
}

fn ready(n: u8) -> (Seq, TaskRecord) {
    let name = Name::new("echo").unwrap();
    let record = TaskRecord {
        id: TaskId([n; 16]),
        name: name.clone(),
        queue: name.clone(),
        series: name,
        options: Options::default(),
        enqueued_at: Timestamp::ZERO,
        start_at: None,
        payload_bytes: 0,
        content_type: "".into(),
        digest: 0,
        state: State::Ready,
        grant: Grant::default(),
        counters: Counters::default(),
        failure: None,
        notes: None,
        called_by: None,
        checkpoint: None,
    };
    (Seq(n.into()), record)
}

#[test]
fn the_store_is_asked_for_what_may_be_in_a_state() {
    use StateName::{Dead, Ready, Running, Scheduled};
    let set = |states: &[StateName]| states.iter().copied().collect::<StateSet>();
    for (now, before) in [
        (StateSet::ALL, StateSet::ALL),
        (StateSet::ENDED, StateSet::ENDED),
        (set(&[Dead]), set(&[Dead])),
        (set(&[Scheduled]), set(&[Scheduled])),
        (set(&[Ready]), StateSet::LIVE),
        (set(&[Running, Dead]), StateSet::LIVE.with(Dead)),
    ] {
        assert_eq!(recorded(now), before, "{now:?}");
    }
    let limit = |states| listing(states).0.query().limit;
    assert_eq!((limit(StateSet::ALL), limit(StateSet::ENDED)), (3, 3));
    assert_eq!(limit(set(&[Scheduled])), LIST_TASKS);
}

#[test]
fn what_has_ended_since_is_looked_up_if_ends_are_asked_for() {
    let core = Core::new();
    let part = || Listed {
        tasks: vec![ready(9), ready(7)],
        next: Some(Seq(7)),
    };
    let (page, ended) = present(&core, Timestamp::ZERO, &listing(StateSet::ALL).0, part());
    assert_eq!((page.tasks.len(), page.next), (0, Some(Seq(7))));
    assert_eq!(ended, [TaskId([9; 16]), TaskId([7; 16])]);
    let (page, ended) = present(&core, Timestamp::ZERO, &listing(StateSet::LIVE).0, part());
    assert_eq!((page.tasks.len(), page.next, ended.len()), (0, Some(Seq(7)), 0));
}

#[test]
fn a_page_is_in_order_and_within_the_limit() {
    let page = |places: &[u8]| Page {
        tasks: places
            .iter()
            .map(|&n| (Seq(n.into()), TaskView::ended(ready(n).1)))
            .collect(),
        next: Some(Seq(1)),
        now: Timestamp::ZERO,
    };
    for (places, listed, next) in [
        (&[8, 6, 7][..], &[8, 7, 6][..], 1),
        (&[8, 6, 5, 7], &[8, 7, 6], 6),
        (&[], &[], 1),
    ] {
        let (listing, mut answer) = listing(StateSet::ALL);
        listing.answer(page(places));
        let answer = answer.try_recv().unwrap();
        let found: Vec<_> = answer.tasks.iter().map(|(seq, _)| seq.0).collect();
        assert_eq!((found.as_slice(), answer.next), (listed, Some(Seq(next))));
    }
}

#[tokio::test]
async fn no_more_listings_are_made_than_there_is_room_for() {
    let (broker, broker_loop) = idle();
    let mut waiting: Vec<_> = (0..MAX_LISTINGS).map(|_| Box::pin(broker.tasks(all(1)))).collect();
    assert!(waiting.iter_mut().all(|listing| listing.now_or_never().is_none()));
    assert_eq!(broker.tasks(all(1)).await.unwrap_err(), Error::TooManyListings);
    // Nobody waits for the first one any more, which is no harm to the others.
    drop(waiting.remove(0));
    let stop = CancellationToken::new();
    let running = tokio::spawn(broker_loop.run(stop.clone()));
    for listing in waiting {
        assert!(listing.await.unwrap().tasks.is_empty());
    }
    // There is room again.
    broker.tasks(all(1)).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(matches!(broker.tasks(all(1)).await, Err(Error::Ended(_))));
}
