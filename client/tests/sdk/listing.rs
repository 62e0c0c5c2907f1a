//! Listings: how they are asked for, and that they are whole.

use std::time::{Duration, UNIX_EPOCH};

use asynq_client::{Error, Payload, Refusal, State};
use asynq_proto::v1;

use crate::start;

#[tokio::test]
async fn tasks_are_listed_until_there_are_enough() {
    let (fake, client) = start().await;
    let mut ids = Vec::new();
    for name in [
        "echo", "slow", "slow", "slow", "echo", "slow", "echo", "slow", "slow", "slow", "slow",
    ] {
        ids.push(client.enqueue_raw(name, Payload::null()).await.unwrap().id());
    }
    ids.reverse();
    let all = client.tasks().await.unwrap();
    assert!(all.tasks.iter().map(|task| task.id).eq(ids.iter().copied()));
    assert_eq!((all.next, fake.listings().len()), (None, 4));
    let age = all.now.duration_since(all.tasks[0].enqueued_at.unwrap());
    assert_eq!(age.unwrap(), Duration::from_secs(60));

    // Fewer come at a time than wanted, and of some parts none at all.
    let echoed = client.tasks().state(State::Succeeded).name("echo").limit(2);
    let first = echoed.clone().await.unwrap();
    assert!(first.tasks.iter().map(|task| task.id).eq([ids[4], ids[6]]));
    let rest = echoed.page(first.next.unwrap()).await.unwrap();
    assert!(rest.tasks.iter().map(|task| task.id).eq([ids[10]]));
    assert_eq!(rest.next, None);
    let none = client.tasks().state(State::Expired).limit(0).await.unwrap();
    assert_eq!((none.tasks, none.next), (vec![], None));

    let listings = fake.listings().len();
    let asked = client
        .tasks()
        .state(State::Dead)
        .state(State::Ready)
        .queue("q")
        .series("");
    asked.clone().since(UNIX_EPOCH).limit(u32::MAX).await.unwrap();
    asked.within(Duration::from_secs(3_600)).page("9").await.unwrap();
    let [first, .., last] = &fake.listings()[listings..] else {
        panic!("two listings")
    };
    let expected = v1::ListTasksRequest {
        states: vec![v1::TaskState::Dead.into(), v1::TaskState::Ready.into()],
        queue: "q".to_owned(),
        series: Some(String::new()),
        // Not 0, which would be no limit.
        since_ms: 1,
        limit: 10_000,
        ..v1::ListTasksRequest::default()
    };
    assert_eq!(first, &expected);
    // The fake's clock stood at 1.7e12 ms at the welcome.
    assert!(
        (1_699_996_400_000..1_699_996_460_000).contains(&last.since_ms),
        "{last:?}"
    );
    assert_eq!((last.page.as_str(), last.limit), ("9", 50));
    let error = client.tasks().page("bad").await.unwrap_err();
    let kind = Refusal::InvalidArgument;
    assert!(
        matches!(&error, Error::Refused { kind: refused, .. } if *refused == kind),
        "{error:?}"
    );
}

#[test]
fn states_are_read_as_they_are_written() {
    for text in "scheduled ready running stopping succeeded dead cancelled expired".split(' ') {
        assert_eq!(text.parse::<State>().unwrap().as_str(), text);
    }
    for text in ["", "unknown", "Ready", "done"] {
        assert!(text.parse::<State>().is_err(), "{text}");
    }
}
