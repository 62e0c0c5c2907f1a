//! The SDK against a fake broker: what goes over the wire, and what callers see.

mod fake;
#[path = "sdk/iterate.rs"]
mod iterate;
#[path = "sdk/listing.rs"]
mod listing;
#[path = "sdk/many.rs"]
mod many;
#[path = "sdk/map.rs"]
mod map;
#[path = "sdk/pipe.rs"]
mod pipe;
#[path = "sdk/resume.rs"]
mod resume;

use std::{future::IntoFuture, time::Duration};

use asynq_client::{CancelOutcome, Client, DeadReason, Error, Payload, Refusal, State, Task, TaskId};
use asynq_proto::v1::{self, operation::Op};
use tokio::task::JoinSet;

use crate::fake::Fake;

const ECHO: Task<String, String> = Task::new("echo");
const SLOW: Task<(), ()> = Task::new("slow");

async fn start() -> (Fake, Client) {
    let fake = Fake::start().await;
    let client = Client::connect(&fake.url()).await.unwrap();
    (fake, client)
}

fn enqueues(fake: &Fake) -> Vec<v1::EnqueueRequest> {
    let ops = fake
        .messages()
        .into_iter()
        .flatten()
        .filter_map(|operation| operation.op);
    ops.filter_map(|op| {
        if let Op::Enqueue(request) = op {
            Some(request)
        } else {
            None
        }
    })
    .collect()
}

#[tokio::test]
async fn a_call_returns_what_the_task_returned() {
    let (_fake, client) = start().await;
    assert_eq!(client.call(ECHO, &"hello".to_owned()).await.unwrap(), "hello");
    let (result, stats) = client.call(ECHO, &"again".to_owned()).with_stats().await.unwrap();
    assert_eq!(
        (result.as_str(), stats.attempts, stats.run),
        ("again", 1, Duration::from_micros(7))
    );
}

/// Thousands may be under way at a time, and each is moved before it is awaited.
#[tokio::test]
async fn a_call_under_way_is_small() {
    const MOST: usize = 1792;
    let (_fake, client) = start().await;
    let call = client.call(ECHO, &"hello".to_owned()).into_future();
    let enqueue = client.enqueue(ECHO, &"hello".to_owned()).into_future();
    let sizes = [size_of_val(&*call), size_of_val(&*enqueue)];
    assert!(sizes.iter().all(|bytes| *bytes <= MOST), "{sizes:?} bytes");
}

#[tokio::test]
async fn options_reach_the_broker() {
    let (fake, client) = start().await;
    let call = client.call(ECHO, &String::new());
    let call = call
        .queue("q")
        .series("s")
        .niceness(-5)
        .next()
        .delay(Duration::from_micros(1_500))
        .retries(2);
    let call = call
        .timeout(Duration::from_secs(30))
        .deadline(Duration::from_secs(60))
        .result_ttl(Duration::ZERO);
    let id = call.id();
    tokio::spawn(call.into_future()).await.unwrap().unwrap();

    let [request] = &enqueues(&fake)[..] else {
        panic!("one enqueue")
    };
    assert_eq!(request.id, &id.as_bytes()[..]);
    assert!(request.first_send && request.wait);
    let options = request.options.clone().unwrap();
    let deadline = options.deadline_ms;
    // The fake's clock stood at 1.7e12 ms at the welcome; the deadline counts from its clock, not ours.
    assert!((1_700_000_060_000..1_700_000_120_000).contains(&deadline), "{deadline}");
    let expected = v1::TaskOptions {
        queue: "q".to_owned(),
        series: "s".to_owned(),
        niceness: -5,
        placement: v1::Placement::Next.into(),
        delay_ms: 2,
        timeout_ms: 30_000,
        deadline_ms: deadline,
        max_attempts: Some(3),
        max_timeouts: Some(3),
        result_ttl_ms: Some(0),
        ..v1::TaskOptions::default()
    };
    assert_eq!(options, expected);
}

#[tokio::test]
async fn a_task_that_must_not_begin_twice_says_so() {
    let (fake, client) = start().await;
    let call = client.call(ECHO, &"once".to_owned()).at_most_once();
    assert_eq!(call.await.unwrap(), "once");
    let asked = enqueues(&fake).pop().unwrap().options.unwrap();
    assert!(asked.at_most_once && asked.max_attempts.is_none());
}

#[tokio::test]
async fn an_enqueued_task_can_be_awaited_again_and_again() {
    let (_fake, client) = start().await;
    let handle = client.enqueue(ECHO, &"later".to_owned()).await.unwrap();
    assert!(handle.worker_known());
    assert_eq!(handle.result().await.unwrap(), "later");
    assert_eq!(client.handle::<String>(handle.id()).result().await.unwrap(), "later");
    assert_eq!(handle.cancel().await.unwrap().outcome, CancelOutcome::Finished);
    assert_eq!(client.show(handle.id()).await.unwrap().state, State::Succeeded);
}

#[tokio::test]
async fn what_is_ready_together_goes_together() {
    let (fake, client) = start().await;
    let mut calls = JoinSet::new();
    for n in 0..400 {
        calls.spawn(client.call(ECHO, &n.to_string()).into_future());
    }
    let mut results: Vec<u32> = calls
        .join_all()
        .await
        .into_iter()
        .map(|result| result.unwrap().parse().unwrap())
        .collect();
    results.sort_unstable();
    assert!(results.into_iter().eq(0..400));
    let messages = fake.messages().len();
    assert!(messages <= 8, "400 calls took {messages} messages");
    let ids: Vec<_> = enqueues(&fake).into_iter().map(|request| request.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids rise");
}

#[tokio::test]
async fn no_more_is_outstanding_than_the_broker_allows() {
    let fake = Fake::with_max_outstanding(4).await;
    let client = Client::connect(&fake.url()).await.unwrap();
    let mut calls = JoinSet::new();
    for n in 0..100 {
        calls.spawn(client.call(ECHO, &n.to_string()).into_future());
    }
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(fake.counts().0, 4);
}

#[tokio::test]
async fn an_unacknowledged_enqueue_is_sent_again_under_its_id() {
    let (fake, client) = start().await;
    const CUT: Task<String, String> = Task::new("cut");
    assert_eq!(client.call(CUT, &"survives".to_owned()).await.unwrap(), "survives");
    let [first, second] = &enqueues(&fake)[..] else {
        panic!("two enqueues")
    };
    assert_eq!(first.id, second.id);
    assert!(first.first_send && !second.first_send);
    assert_eq!(first.payload, second.payload);
}

#[tokio::test]
async fn of_an_acknowledged_call_only_the_wait_is_sent_again() {
    let (fake, client) = start().await;
    let call = client.call(SLOW, &());
    let id = call.id();
    let call = tokio::spawn(call.into_future());
    // Answered after the call was acknowledged, because the broker answers in order.
    fake.received(|op| matches!(op, Op::Enqueue(_)).then_some(())).await;
    client.show(id).await.unwrap();
    fake.cut();
    let waited = fake
        .received(|op| {
            if let Op::Wait(wait) = op {
                Some(wait.id.clone())
            } else {
                None
            }
        })
        .await;
    assert_eq!(waited, &id.as_bytes()[..]);
    assert_eq!(enqueues(&fake).len(), 1);
    assert_eq!(client.cancel(id).await.unwrap().outcome, CancelOutcome::Cancelled);
    assert!(matches!(call.await.unwrap(), Err(Error::Cancelled { id: cancelled }) if cancelled == id));
}

#[tokio::test]
async fn not_now_means_once_more() {
    let (fake, client) = start().await;
    const NOT_NOW: Task<u8, u8> = Task::new("not_now");
    assert_eq!(client.call(NOT_NOW, &7).await.unwrap(), 7);
    let sent: Vec<_> = enqueues(&fake).iter().map(|request| request.first_send).collect();
    assert_eq!(sent, [true, false]);
}

#[tokio::test]
async fn a_dropped_call_is_forgotten_and_its_task_goes_on() {
    let (fake, client) = start().await;
    let call = client.call(SLOW, &());
    let id = call.id();
    let call = tokio::spawn(call.into_future());
    fake.received(|op| matches!(op, Op::Enqueue(_)).then_some(())).await;
    client.show(id).await.unwrap();
    call.abort();
    fake.received(|op| matches!(op, Op::Forget(_)).then_some(())).await;
    assert_eq!(client.show(id).await.unwrap().state, State::Ready);
}

#[tokio::test]
async fn large_values_take_the_data_connection() {
    let (fake, client) = start().await;
    let value = "x".repeat(3 * 1024 * 1024);
    assert!(client.call(ECHO, &value).await.unwrap() == value);
    assert_eq!(fake.counts().1, 1);
    assert!(enqueues(&fake).is_empty());
}

#[tokio::test]
async fn the_data_connection_asks_again_and_understands_refusals() {
    let (fake, client) = start().await;
    let large = || Payload::bytes("application/octet-stream", vec![7; 100_000]);
    assert_eq!(client.call_raw("not_now", large()).await.unwrap(), large());
    assert_eq!(fake.counts().1, 2);
    let error = client.enqueue_raw("refused.8", large()).await.unwrap_err();
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
    assert_eq!(
        (error.reason(), error.to_string().as_str()),
        ("TEST", "refused as asked")
    );
}

#[tokio::test]
async fn too_large_a_value_is_not_sent() {
    let (fake, client) = start().await;
    let error = client.call(ECHO, &"x".repeat(4 * 1024 * 1024)).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::PayloadTooLarge {
                bytes: 4_194_306,
                limit: 4_194_304
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("4194304"), "{error}");
    assert_eq!((fake.messages().len(), fake.counts().1), (0, 0));
}

#[tokio::test]
async fn the_time_to_wait_passes_and_the_task_goes_on() {
    let (fake, client) = start().await;
    let call = client.call(SLOW, &()).wait_at_most(Duration::from_millis(50));
    let id = call.id();
    let error = call.await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout { id: waited } if waited == id),
        "{error:?}"
    );
    fake.received(|op| matches!(op, Op::Forget(_)).then_some(())).await;
    assert_eq!(client.show(id).await.unwrap().state, State::Ready);
}

#[tokio::test]
async fn bad_ends_are_told_apart() {
    let (_fake, client) = start().await;
    let end = async |name| client.call_raw(name, Payload::null()).await.unwrap_err();
    for (name, wanted, text) in [
        ("dead.error", DeadReason::Error, "it broke"),
        ("dead.panic", DeadReason::Error, "panic: it broke"),
        ("dead.timeout", DeadReason::Timeout, "timeout: it broke"),
    ] {
        let error = end(name).await;
        assert!(error.to_string().starts_with(text), "{error}");
        assert!(
            matches!(error, Error::Dead { reason, .. } if reason == wanted),
            "{error:?}"
        );
    }
    assert!(matches!(end("cancelled").await, Error::Cancelled { .. }));
    assert!(matches!(end("expired").await, Error::Expired { .. }));
    for (name, wanted, retryable) in [
        ("refused.3", Refusal::InvalidArgument, false),
        ("refused.6", Refusal::AlreadyExists, false),
        ("refused.7", Refusal::PermissionDenied, false),
        ("refused.8", Refusal::Exhausted, true),
    ] {
        let error = end(name).await;
        assert_eq!(
            (error.is_retryable(), error.is_indefinite(), error.reason()),
            (retryable, false, "TEST")
        );
        assert!(
            matches!(error, Error::Refused { kind, .. } if kind == wanted),
            "{error:?}"
        );
    }
    let unknown: TaskId = "019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1".parse().unwrap();
    let error = client.show(unknown).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                kind: Refusal::NotFound,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_result_of_another_type_is_a_codec_error() {
    let (_fake, client) = start().await;
    const WRONG: Task<String, u32> = Task::new("echo");
    let error = client.call(WRONG, &"text".to_owned()).await.unwrap_err();
    assert!(matches!(error, Error::Codec { .. }), "{error:?}");
}

#[tokio::test]
async fn queues_and_workers_are_listed() {
    let (_fake, client) = start().await;
    assert_eq!(client.queues().await.unwrap()[0].ready, 12);
    assert_eq!(client.workers().await.unwrap()[0].session, "ab".repeat(16));
}

#[tokio::test(start_paused = true)]
async fn without_a_broker_connecting_ends_after_five_seconds() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let begun = tokio::time::Instant::now();
    let error = Client::connect(&format!("http://{closed}")).await.unwrap_err();
    assert!(matches!(error, Error::NoBroker { indefinite: false, .. }), "{error:?}");
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
    assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(matches!(Client::connect("nonsense").await, Err(Error::Address(_))));
}
