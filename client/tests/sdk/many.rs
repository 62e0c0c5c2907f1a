//! Verbs over many tasks: page by page, and what is told of them.

use asynq_client::{Error, Payload, Refusal, State};

use crate::start;

#[tokio::test]
async fn all_that_fit_are_gone_through() {
    let (_fake, client) = start().await;
    let mut dead = Vec::new();
    for name in [
        "slow",
        "dead.error",
        "slow",
        "echo",
        "dead.timeout",
        "dead.error",
        "slow",
    ] {
        let id = client.enqueue_raw(name, Payload::null()).await.unwrap().id();
        dead.extend((name == "dead.error").then_some(id));
    }
    let mut told = Vec::new();
    let tally = client
        .retry_where(client.tasks(), |tally| told.push(tally.seen()))
        .await
        .unwrap();
    assert_eq!((tally.done, tally.refused, tally.moved_on), (2, 1, 0));
    assert_eq!(tally.refusal.unwrap().reason(), "NOT_RETRYABLE");
    assert_eq!(told, [3]);
    let one = client.retry(dead[0]).await.unwrap();
    assert_eq!((one.id, one.revived, one.state), (dead[0], true, State::Ready));

    let tally = client.cancel_where(client.tasks().name("slow"), |_| ()).await.unwrap();
    assert_eq!((tally.done, tally.stopping, tally.moved_on), (3, 0, 0));
    let purged = client.tasks().state(State::Dead).name("dead.error");
    let tally = client.purge_where(purged, |_| ()).await.unwrap();
    assert_eq!((tally.done, tally.seen()), (2, 2));
    assert!(client.show(dead[0]).await.is_err());
}

/// What was done and asked for again, because its answer was lost, is done.
#[tokio::test]
async fn what_is_done_is_counted_where_its_answer_was_lost() {
    let (_fake, client) = start().await;
    for name in ["dead.error", "dead.lost", "dead.error"] {
        client.enqueue_raw(name, Payload::null()).await.unwrap();
    }
    let dead = client.tasks().state(State::Dead);
    let tally = client.purge_where(dead.clone(), |_| ()).await.unwrap();
    assert_eq!((tally.done, tally.moved_on, tally.refused), (3, 0, 0));
    assert_eq!(client.purge_where(dead, |_| ()).await.unwrap().seen(), 0);
    // Not where nothing was lost.
    let id = client.enqueue_raw("slow", Payload::null()).await.unwrap().id();
    assert!(!client.retry(id).await.unwrap().revived, "it lived");
}

#[tokio::test]
async fn states_that_make_no_sense_are_refused_before_anything_is_done() {
    let (fake, client) = start().await;
    let listings = fake.listings().len();
    let retried = client.retry_where(client.tasks().state(State::Ready), |_| ()).await;
    let all = client.purge_where(client.tasks(), |_| ()).await;
    let live = client.purge_where(client.tasks().state(State::Running), |_| ()).await;
    for refused in [retried, all, live] {
        match refused {
            Err(Error::Refused {
                kind: Refusal::InvalidArgument,
                message,
                ..
            }) => assert!(message.starts_with("states "), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fake.listings().len(), listings);
}
