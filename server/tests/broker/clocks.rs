//! A wall clock that is set while the broker is down: what it keeps is there as it was.

use std::sync::Arc;
use std::time::Duration;

use asynq_core::Timestamp;
use asynq_core::limits::LEASE;
use asynq_proto::v1::{self, TaskState};
use asynqd::Backing;
use asynqd::clock::{Clock, SystemClock};
use asynqd::limits::DRAIN_TIMEOUT;
use bytes::Bytes;

use crate::harness::{Broker, Worker, hello, id_at, json, soon, task};

const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(365 * 24);

/// The machine's clock, set to another time by this much.
#[derive(Debug)]
struct SetClock {
    clock: SystemClock,
    ahead: Duration,
    behind: Duration,
}

impl SetClock {
    fn new(ahead: Duration, behind: Duration) -> Self {
        let clock = SystemClock::new();
        Self { clock, ahead, behind }
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let now = self.clock.now() + self.ahead;
        Timestamp::from_micros(now.as_micros() - self.behind.as_micros() as u64)
    }
}

async fn broker(dir: &std::path::Path, clock: &Arc<SetClock>) -> Broker {
    Broker::with(Backing::sqlite(dir).unwrap(), clock.clone(), DRAIN_TIMEOUT).await
}

fn with(options: v1::TaskOptions, name: &str, now: Timestamp) -> v1::EnqueueRequest {
    v1::EnqueueRequest {
        id: id_at(now),
        options: Some(options),
        ..task(name)
    }
}

async fn shown(broker: &Broker, id: &Bytes) -> v1::TaskInfo {
    let show = v1::ShowRequest { id: id.clone() };
    broker.tasks().await.show(show).await.expect("it is kept").into_inner()
}

/// Stops a broker that holds a task in each state, starts it by a clock that is set, and
/// looks for each; and then once more by the clock as it was.
async fn set(ahead: Duration, behind: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let clocks = [
        (Duration::ZERO, Duration::ZERO),
        (ahead, behind),
        (Duration::ZERO, Duration::ZERO),
    ];
    let [first, second, third] = clocks.map(|(ahead, behind)| Arc::new(SetClock::new(ahead, behind)));
    let begun = broker(dir.path(), &first).await;
    let now = first.now();
    let at = |after: Duration| (now + after).as_millis();
    let mut worker = Worker::connect(&begun, 3, &["done", "dies", "held"]).await;
    let done = with(
        v1::TaskOptions {
            result_ttl_ms: Some(3 * HOUR.as_millis() as u64),
            ..v1::TaskOptions::default()
        },
        "done",
        now,
    );
    let plain = v1::TaskOptions::default;
    let (dies, held, ready) = (
        with(plain(), "dies", now),
        with(plain(), "held", now),
        with(plain(), "ready", now),
    );
    let due = with(
        v1::TaskOptions {
            start_at_ms: at(3 * HOUR),
            ..plain()
        },
        "due",
        now,
    );
    let bound = with(
        v1::TaskOptions {
            deadline_ms: at(3 * HOUR),
            ..plain()
        },
        "ready",
        now,
    );
    let early = with(
        v1::TaskOptions {
            start_before_ms: at(3 * HOUR),
            ..plain()
        },
        "ready",
        now,
    );
    let mut tasks = begun.tasks().await;
    for request in [&done, &dies, &held, &ready, &due, &bound, &early] {
        tasks.enqueue((*request).clone()).await.unwrap();
    }
    let mut token = None;
    for _ in 0..3 {
        let run = worker.assignment().await;
        match &*run.name {
            "done" => worker.complete(run.token, json("5")).await,
            "dies" => worker.fail(run.token, "no luck", false).await,
            _ => token = run.token,
        }
    }
    let token = token.expect("it is assigned");
    for _ in 0..2 {
        worker.ack().await;
    }
    let session = worker.welcome.session.clone();
    begun.stop().await.unwrap();

    for clock in [&second, &third] {
        let again = broker(dir.path(), clock).await;
        let resume = v1::WorkHello {
            resume: session.clone(),
            held: vec![token.clone()],
            ..hello(3, &["done", "dies", "held"])
        };
        let worker = Worker::say_hello(&again, resume).await.unwrap();
        assert!(worker.welcome.resumed, "its session has not ended");
        assert!(worker.welcome.lease_ms >= LEASE.as_millis() as u64);
        for (request, state) in [
            (&done, TaskState::Succeeded),
            (&dies, TaskState::Dead),
            (&held, TaskState::Running),
            (&due, TaskState::Scheduled),
            (&ready, TaskState::Ready),
            (&bound, TaskState::Ready),
            (&early, TaskState::Ready),
        ] {
            assert_eq!(shown(&again, &request.id).await.state(), state, "{}", request.name);
        }
        let wait = v1::WaitRequest { id: done.id.clone() };
        let finished = soon(again.tasks().await.wait(wait)).await.unwrap().into_inner();
        assert_eq!(finished.result, Some(json("5")), "the result is kept");
        // And it takes in what comes by its own clock.
        let nameless = v1::EnqueueRequest {
            id: Bytes::new(),
            ..task("ready")
        };
        let id = again.tasks().await.enqueue(nameless).await.unwrap().into_inner().id;
        assert_eq!(shown(&again, &id).await.state(), TaskState::Ready);
        again.stop().await.unwrap();
    }
    let last = broker(dir.path(), &third).await;
    let resume = v1::WorkHello {
        resume: session,
        held: vec![token.clone()],
        ..hello(3, &["held"])
    };
    let mut worker = Worker::say_hello(&last, resume).await.unwrap();
    worker.complete(Some(token), json("6")).await;
    assert!(!worker.ack().await.stale, "its run is still the current one");
    assert_eq!(shown(&last, &held.id).await.attempt, 1);
    last.stop().await.unwrap();
}

#[tokio::test]
async fn a_clock_set_back_at_a_restart_loses_and_expires_nothing() {
    set(Duration::ZERO, HOUR).await;
    set(Duration::ZERO, 10 * YEAR).await;
}

#[tokio::test]
async fn a_clock_set_on_by_an_hour_at_a_restart_loses_and_expires_nothing() {
    set(HOUR, Duration::ZERO).await;
}
