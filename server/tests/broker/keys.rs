//! Idempotency keys, and ids of long ago: on a disk and in memory.

use std::sync::Arc;
use std::time::Duration;

use asynq_core::limits::MIN_DEDUP_TTL;
use asynq_proto::v1::operation::Op;
use asynq_proto::v1::{self, OnKey, TaskState, answer::Of};
use asynqd::Backing;
use asynqd::clock::{Clock, ManualClock, SystemClock};
use asynqd::limits::{DRAIN_TIMEOUT, ID_REACH};
use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::harness::{Broker, Session, Worker, id_at, json, reason, soon, task};

fn keyed(key: &str, arguments: &str, on_key: OnKey) -> v1::EnqueueRequest {
    let options = v1::TaskOptions {
        key: Some(key.into()),
        on_key: on_key.into(),
        ..Default::default()
    };
    v1::EnqueueRequest {
        payload: Some(json(arguments)),
        options: Some(options),
        ..task("work")
    }
}

async fn enqueue(broker: &Broker, request: v1::EnqueueRequest) -> Result<(Bytes, bool), Status> {
    let enqueued = soon(broker.tasks().await.enqueue(request)).await?.into_inner();
    Ok((enqueued.id, enqueued.existed))
}

async fn state(broker: &Broker, id: &Bytes) -> TaskState {
    let shown = broker.tasks().await.show(v1::ShowRequest { id: id.clone() }).await;
    shown.unwrap().into_inner().state()
}

fn is_taken(refused: Result<(Bytes, bool), Status>) {
    let status = refused.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "KEY_TAKEN")
    );
    assert!(
        status.message().contains("\"k\"") && status.message().contains("queue default"),
        "{status:?}"
    );
}

/// Not started, running, ended, ended and started again: always the first.
#[tokio::test]
async fn the_same_key_is_the_same_task_or_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    for on_disk in [true, false] {
        let backing = || {
            if on_disk {
                Backing::sqlite(dir.path()).unwrap()
            } else {
                Backing::memory()
            }
        };
        let mut broker = Broker::on(backing()).await;
        let first = keyed("k", "1", OnKey::Same);
        let id = first.id.clone();
        assert_eq!(enqueue(&broker, first.clone()).await.unwrap(), (id.clone(), false));
        let again = async |broker: &Broker| {
            for on_key in [OnKey::Same, OnKey::Return] {
                let known = enqueue(broker, keyed("k", "1", on_key)).await.unwrap();
                assert_eq!(known, (id.clone(), true));
            }
            is_taken(enqueue(broker, keyed("k", "2", OnKey::Same)).await);
            is_taken(enqueue(broker, keyed("k", "1", OnKey::Error)).await);
        };
        again(&broker).await;
        let known = enqueue(&broker, keyed("k", "2", OnKey::Return)).await.unwrap();
        assert_eq!(known, (id.clone(), true), "it has not started");
        let mut worker = Worker::connect(&broker, 1, &["work"]).await;
        let run = worker.assignment().await;
        again(&broker).await;
        worker.complete(run.token, json("7")).await;
        worker.ack().await;
        again(&broker).await;
        for on_key in [OnKey::Return, OnKey::Replace] {
            is_taken(enqueue(&broker, keyed("k", "2", on_key)).await);
        }
        if on_disk {
            drop(worker);
            broker.stop().await.unwrap();
            broker = Broker::on(backing()).await;
            again(&broker).await;
        }
        // Another queue has keys of its own.
        let mut other = keyed("k", "2", OnKey::Same);
        other.options.as_mut().unwrap().queue = "other".into();
        assert!(!enqueue(&broker, other).await.unwrap().1);
        // And whoever waits is told the first one's end.
        let mut session = Session::open(&broker).await;
        let wait = v1::EnqueueRequest {
            wait: true,
            ..keyed("k", "1", OnKey::Same)
        };
        session.ask([Op::Enqueue(wait)]).await;
        let (_, Of::Enqueued(enqueued)) = session.answer().await else {
            panic!("not enqueued")
        };
        let (_, Of::Finished(finished)) = session.answer().await else {
            panic!("not finished")
        };
        assert_eq!((&enqueued.id, &finished.id), (&id, &id));
        assert_eq!(finished.result, Some(json("7")));
        broker.stop().await.unwrap();
    }
}

/// A hundred at a time, each on a connection of its own, in three rounds: while no
/// task has the key, while one lives, and after its end.
#[tokio::test]
async fn of_callers_that_race_one_brings_the_task() {
    let broker = Broker::start().await;
    let mut worker = Worker::connect(&broker, 4, &["work"]).await;
    let mut first = None;
    for round in 0..3 {
        let mut racing = JoinSet::new();
        for _ in 0..100 {
            let mut tasks = broker.tasks().await;
            racing.spawn(async move { tasks.enqueue(keyed("k", "1", OnKey::Same)).await });
        }
        let mut new = 0;
        while let Some(enqueued) = soon(racing.join_next()).await {
            let enqueued = enqueued.unwrap().unwrap().into_inner();
            new += u32::from(!enqueued.existed);
            assert_eq!(first.get_or_insert(enqueued.id.clone()), &enqueued.id);
        }
        assert_eq!(new, u32::from(round == 0));
        if round == 1 {
            let run = worker.assignment().await;
            worker.complete(run.token, json("7")).await;
            worker.ack().await;
        }
    }
    broker.stop().await.unwrap();
}

/// All in one message, so before the store has been looked into: what is asked of an
/// id whose key is being looked up waits for that.
#[tokio::test]
async fn what_is_asked_of_an_id_waits_for_its_key() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    let first = keyed("k", "1", OnKey::Same);
    let cancel = v1::CancelRequest { id: first.id.clone() };
    let again = v1::EnqueueRequest {
        first_send: false,
        ..first.clone()
    };
    let other = keyed("k", "2", OnKey::Same);
    session
        .ask([
            Op::Enqueue(first.clone()),
            Op::Enqueue(other),
            Op::Enqueue(again.clone()),
            Op::Cancel(cancel),
            Op::Enqueue(again),
        ])
        .await;
    let mut answers = std::collections::BTreeMap::new();
    while answers.len() < 5 {
        let (call, of) = session.answer().await;
        answers.insert(call, of);
    }
    let existed = |call: u64| match &answers[&call] {
        Of::Enqueued(enqueued) if enqueued.id == first.id => Some(enqueued.existed),
        _ => None,
    };
    assert_eq!(
        (existed(1), existed(3), existed(5)),
        (Some(false), Some(true), Some(true))
    );
    assert!(
        matches!(&answers[&2], Of::Error(error) if error.reason == "KEY_TAKEN"),
        "{answers:?}"
    );
    assert!(
        matches!(&answers[&4], Of::Cancelled(cancelled) if cancelled.state() == TaskState::Cancelled),
        "{answers:?}"
    );
    broker.stop().await.unwrap();
}

/// The last one wins; who waits for another is told that it was cancelled, and why.
#[tokio::test]
async fn what_has_not_started_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::on_disk(dir.path()).await;
    let mut session = Session::open(&broker).await;
    let first = v1::EnqueueRequest {
        wait: true,
        ..keyed("k", "1", OnKey::Replace)
    };
    let first_id = first.id.clone();
    session.ask([Op::Enqueue(first)]).await;
    session.answer().await;
    let (second, existed) = enqueue(&broker, keyed("k", "2", OnKey::Replace)).await.unwrap();
    assert!(!existed);
    let (_, Of::Finished(finished)) = session.answer().await else {
        panic!("not finished")
    };
    assert_eq!((&finished.id, finished.state()), (&first_id, TaskState::Cancelled));
    let id = first_id.clone();
    let why = broker.tasks().await.explain(v1::ExplainRequest { id }).await;
    assert!(why.unwrap().into_inner().message.contains("replaced"));
    broker.stop().await.unwrap();

    // After a restart as well, and what was replaced is not brought back by a resend.
    let broker = Broker::on_disk(dir.path()).await;
    let again = v1::EnqueueRequest {
        id: first_id.clone(),
        first_send: false,
        ..keyed("k", "1", OnKey::Replace)
    };
    assert_eq!(enqueue(&broker, again).await.unwrap(), (first_id.clone(), true));
    assert_eq!(state(&broker, &second).await, TaskState::Ready);
    let (third, _) = enqueue(&broker, keyed("k", "3", OnKey::Replace)).await.unwrap();
    let mut worker = Worker::connect(&broker, 4, &["work"]).await;
    let run = worker.assignment().await;
    assert_eq!((&run.token.unwrap().task_id, run.payload), (&third, Some(json("3"))));
    for id in [&first_id, &second] {
        assert_eq!(state(&broker, id).await, TaskState::Cancelled);
    }
    is_taken(enqueue(&broker, keyed("k", "4", OnKey::Replace)).await);
    drop(worker);
    broker.stop().await.unwrap();
}

/// A key lives as long as its task is remembered, and then is free.
#[tokio::test]
async fn a_key_is_free_once_its_task_is_forgotten() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let mut worker = Worker::connect(&broker, 1, &["work"]).await;
    let (first, _) = enqueue(&broker, keyed("k", "1", OnKey::Same)).await.unwrap();
    let run = worker.assignment().await;
    worker.complete(run.token, json("7")).await;
    worker.ack().await;
    // Its result may go before.
    clock.advance(MIN_DEDUP_TTL - Duration::from_millis(1));
    let known = enqueue(&broker, keyed("k", "1", OnKey::Same)).await.unwrap();
    assert_eq!(known, (first.clone(), true));
    clock.advance(Duration::from_millis(1));
    // Swept within a second or so.
    let (second, _) = soon(async {
        loop {
            match enqueue(&broker, keyed("k", "2", OnKey::Same)).await {
                Ok(enqueued) => return enqueued,
                Err(status) => assert_eq!(reason(&status), "KEY_TAKEN"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_ne!(second, first);
    broker.stop().await.unwrap();
}

/// An id that nobody knows and that was not sent for the first time: it may be of a
/// task that was forgotten, so it is not run. A first send is, however old.
#[tokio::test]
async fn an_unknown_id_of_long_ago_is_refused() {
    let now = SystemClock::new().now();
    let clock = Arc::new(ManualClock::new(now));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let old = now - ID_REACH - Duration::from_millis(1);
    let of_age = |time, first_send| v1::EnqueueRequest {
        id: id_at(time),
        first_send,
        ..task("work")
    };
    let status = enqueue(&broker, of_age(old, false)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "ID_TOO_OLD")
    );
    let mut keyed = keyed("k", "1", OnKey::Same);
    (keyed.id, keyed.first_send) = (id_at(old), false);
    assert_eq!(reason(&enqueue(&broker, keyed).await.unwrap_err()), "ID_TOO_OLD");
    let young = now - ID_REACH + Duration::from_secs(1);
    assert!(enqueue(&broker, of_age(young, false)).await.is_ok());
    let first = of_age(old, true);
    assert!(enqueue(&broker, first.clone()).await.is_ok());
    // It is known now, so its age does not matter any more; queued for as long as it may be.
    clock.advance(2 * MIN_DEDUP_TTL);
    let again = v1::EnqueueRequest {
        first_send: false,
        ..first
    };
    let known = enqueue(&broker, again.clone()).await.unwrap();
    assert_eq!(known, (again.id, true));

    let iterate = |first_send| v1::IterateRequest {
        task: Some(of_age(old, first_send)),
        consumer_id: vec![7; 16].into(),
        auto_ack: true,
        ..Default::default()
    };
    let mut tasks = broker.tasks().await;
    let refused = soon(tasks.iterate(iterate(false))).await.unwrap_err();
    assert_eq!(reason(&refused), "ID_TOO_OLD");
    let opened = soon(tasks.iterate(iterate(true)))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await;
    assert!(opened.unwrap().is_some());
    broker.stop().await.unwrap();
}
