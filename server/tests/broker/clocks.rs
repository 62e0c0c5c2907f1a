//! A wall clock that is set while the broker is down: what it keeps is there as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_core::Timestamp;
use asynq_core::limits::LEASE;
use asynq_proto::v1::{self, TaskState};
use asynqd::Backing;
use asynqd::clock::{Clock, Kernel, Machine, SystemClock};
use asynqd::limits::DRAIN_TIMEOUT;
use bytes::Bytes;

use crate::harness::{Broker, Session, Worker, hello, id_at, json, soon, task};

const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(365 * 24);

/// A machine whose clock can be set, by that much from the present.
#[derive(Debug, Default, Clone)]
struct SetMachine {
    ahead: Arc<AtomicU64>,
    behind: Arc<AtomicU64>,
    is_synchronised: bool,
}

impl SetMachine {
    fn set(&self, ahead: Duration, behind: Duration) {
        for (to, by) in [(&self.ahead, ahead), (&self.behind, behind)] {
            to.store(by.as_micros() as u64, Ordering::Relaxed);
        }
    }
}

impl Machine for SetMachine {
    fn wall(&self) -> Timestamp {
        let at = Kernel.wall().as_micros() + self.ahead.load(Ordering::Relaxed);
        Timestamp::from_micros(at - self.behind.load(Ordering::Relaxed))
    }

    fn up(&self) -> Duration {
        Kernel.up()
    }

    fn is_synchronised(&self) -> bool {
        self.is_synchronised
    }
}

type SetClock = SystemClock<SetMachine>;

/// The clock of a broker that starts by that much from the present.
fn clock(ahead: Duration, behind: Duration) -> Arc<SetClock> {
    Arc::new(synchronised(ahead, behind, false))
}

fn synchronised(ahead: Duration, behind: Duration, is_synchronised: bool) -> SetClock {
    let machine = SetMachine {
        is_synchronised,
        ..SetMachine::default()
    };
    machine.set(ahead, behind);
    SystemClock::of(machine)
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
/// looks for each; and then once more by the clock as it was. What was due in three hours
/// is `due_then` by that clock.
async fn set(ahead: Duration, behind: Duration, due_then: TaskState) {
    let dir = tempfile::tempdir().unwrap();
    let clocks = [
        (Duration::ZERO, Duration::ZERO),
        (ahead, behind),
        (Duration::ZERO, Duration::ZERO),
    ];
    let [first, second, third] = clocks.map(|(ahead, behind)| clock(ahead, behind));
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

    for (clock, due_then) in [(&second, due_then), (&third, TaskState::Scheduled)] {
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
            (&due, due_then),
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
    set(Duration::ZERO, HOUR, TaskState::Scheduled).await;
    set(Duration::ZERO, 10 * YEAR, TaskState::Scheduled).await;
}

#[tokio::test]
async fn a_clock_set_on_by_an_hour_at_a_restart_loses_and_expires_nothing() {
    set(HOUR, Duration::ZERO, TaskState::Scheduled).await;
}

/// Nobody vouches for it: what is delayed begins, but nothing ends for it.
#[tokio::test]
async fn a_clock_set_on_by_ten_years_at_a_restart_loses_and_expires_nothing() {
    set(10 * YEAR, Duration::ZERO, TaskState::Ready).await;
}

fn bound(until: Timestamp, now: Timestamp) -> v1::EnqueueRequest {
    let options = v1::TaskOptions {
        deadline_ms: until.as_millis(),
        ..v1::TaskOptions::default()
    };
    with(options, "ready", now)
}

/// Whether a dead task is there to be retried: it is kept for a week.
async fn revived(broker: &Broker, task: &v1::EnqueueRequest) -> bool {
    let ids = vec![task.id.clone()];
    let reply = broker.admin().await.retry_tasks(v1::RetryTasksRequest { ids }).await;
    reply.unwrap().into_inner().tasks[0].revived
}

async fn doubts(broker: &Broker) -> bool {
    Session::open(broker).await.welcome.clock_doubted
}

/// Ten years on: in doubt nothing ends; once somebody vouches for it, all that is over is.
#[tokio::test]
async fn what_is_doubted_counts_once_it_is_trusted() {
    for vouched in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let present = clock(Duration::ZERO, Duration::ZERO);
        let begun = broker(dir.path(), &present).await;
        assert!(!doubts(&begun).await);
        let late = bound(present.now() + 3 * HOUR, present.now());
        let dead = [(); 2].map(|()| with(v1::TaskOptions::default(), "dies", present.now()));
        let mut worker = Worker::connect(&begun, 2, &["dies"]).await;
        for request in [&late, &dead[0], &dead[1]] {
            begun.tasks().await.enqueue(request.clone()).await.unwrap();
        }
        for _ in &dead {
            let run = worker.assignment().await;
            worker.fail(run.token, "no luck", false).await;
            worker.ack().await;
        }
        begun.stop().await.unwrap();

        let doubted = broker(dir.path(), &clock(10 * YEAR, Duration::ZERO)).await;
        assert!(doubts(&doubted).await);
        assert_eq!(shown(&doubted, &late.id).await.state(), TaskState::Ready);
        let again = doubted.tasks().await.enqueue(late.clone()).await.unwrap().into_inner();
        assert!(again.existed, "and it is the same task still");
        assert!(revived(&doubted, &dead[0]).await, "nothing is past its time");
        doubted.stop().await.unwrap();

        // By the kernel's word, or by that of who runs the broker.
        let ahead = synchronised(10 * YEAR, Duration::ZERO, !vouched).trusted(vouched);
        let believed = broker(dir.path(), &Arc::new(ahead)).await;
        assert!(!doubts(&believed).await);
        let wait = v1::WaitRequest { id: late.id.clone() };
        let finished = soon(believed.tasks().await.wait(wait)).await.unwrap().into_inner();
        assert_eq!(finished.state(), TaskState::Expired);
        assert!(!revived(&believed, &dead[1]).await, "its time is over");
        believed.stop().await.unwrap();
    }
}

/// A store that was written by a clock ten years ahead keeps the broker there, until
/// somebody vouches for the present.
#[tokio::test]
async fn a_trusted_clock_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = synchronised(10 * YEAR, Duration::ZERO, true);
    let task = bound(ahead.now() + HOUR, ahead.now());
    let begun = broker(dir.path(), &Arc::new(ahead)).await;
    begun.tasks().await.enqueue(task.clone()).await.unwrap();
    begun.stop().await.unwrap();

    let year = |at: u64| (at / 1_000_000) / YEAR.as_secs();
    let present = clock(Duration::ZERO, Duration::ZERO);
    let trusted = SystemClock::of(SetMachine::default()).trusted(true);
    // Once it is trusted it goes on from there.
    for (clock, is_ahead) in [
        (present.clone(), true),
        (Arc::new(trusted), false),
        (present.clone(), false),
    ] {
        let broker = broker(dir.path(), &clock).await;
        let now = Session::open(&broker).await.welcome.now_us;
        assert_eq!(year(now) > year(present.now().as_micros()) + 8, is_ahead);
        assert_eq!(shown(&broker, &task.id).await.state(), TaskState::Ready);
        broker.stop().await.unwrap();
    }
}

/// By an hour and by ten years, there and back, while a task has a deadline, one a delay
/// and one runs out of its time.
#[tokio::test]
async fn a_clock_that_is_set_while_the_broker_runs_changes_nothing() {
    let machine = SetMachine::default();
    let clock = Arc::new(SystemClock::of(machine.clone()));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let now = clock.now();
    let at = |after: Duration| (now + after).as_millis();
    let late = bound(now + HOUR / 2, now);
    let options = v1::TaskOptions {
        start_at_ms: at(HOUR / 2),
        ..v1::TaskOptions::default()
    };
    let due = with(options, "ready", now);
    let mut tasks = broker.tasks().await;
    for request in [&late, &due] {
        tasks.enqueue(request.clone()).await.unwrap();
    }
    for (ahead, behind) in [
        (HOUR, Duration::ZERO),
        (Duration::ZERO, HOUR),
        (10 * YEAR, Duration::ZERO),
        (Duration::ZERO, 10 * YEAR),
    ] {
        machine.set(ahead, behind);
        // The loop looks at its clock at each of these.
        let id = tasks
            .enqueue(with(v1::TaskOptions::default(), "ready", clock.now()))
            .await
            .unwrap();
        assert_eq!(shown(&broker, &id.into_inner().id).await.state(), TaskState::Ready);
        assert_eq!(shown(&broker, &late.id).await.state(), TaskState::Ready);
        assert_eq!(shown(&broker, &due.id).await.state(), TaskState::Scheduled);
        let passed = clock.now().since(now);
        assert!(passed < HOUR / 2, "{passed:?}");
    }
    broker.stop().await.unwrap();
}
