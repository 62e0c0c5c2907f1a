//! Worker sessions: what they are handed, how they end and are taken up again.

use std::sync::Arc;
use std::time::Duration;

use asynq_core::Timestamp;
use asynq_core::limits::{HEARTBEAT, LEASE};
use asynq_proto::v1::operation::Op;
use asynq_proto::v1::{self, TaskState, answer::Of};
use asynqd::Backing;
use asynqd::clock::{Clock, ManualClock, SystemClock};
use asynqd::limits::DRAIN_TIMEOUT;
use tonic::Code;

use crate::harness::{Broker, Session, Worker, hello, json, reason, task};

async fn listed(broker: &Broker) -> Vec<v1::WorkerInfo> {
    broker
        .admin()
        .await
        .list_workers(v1::ListWorkersRequest {})
        .await
        .unwrap()
        .into_inner()
        .workers
}

#[tokio::test]
async fn a_worker_holds_as_many_runs_as_it_has_slots() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    for _ in 0..5 {
        tasks.enqueue(task("echo")).await.unwrap();
    }
    let mut worker = Worker::connect(&broker, 2, &["echo"]).await;
    let mut runs = vec![worker.assignment().await, worker.assignment().await];
    let info = &listed(&broker).await[0];
    assert_eq!(
        (info.name.as_str(), info.state.as_str(), info.slots, info.busy),
        ("w", "active", 2, 2)
    );
    assert_eq!(info.tasks, ["echo"]);
    worker.heartbeat(7).await;
    for _ in 0..5 {
        worker.complete(runs.remove(0).token, json("null")).await;
        worker.ack().await;
        if runs.len() < 2 {
            let queue = &broker
                .admin()
                .await
                .list_queues(v1::ListQueuesRequest::default())
                .await
                .unwrap()
                .into_inner()
                .queues[0];
            assert!(
                queue.running <= 2 && queue.durability == "memory" && queue.policy == "fair",
                "{queue:?}"
            );
            if queue.running as usize > runs.len() {
                runs.push(worker.assignment().await);
            }
        }
    }
    let queue = &broker
        .admin()
        .await
        .list_queues(v1::ListQueuesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .queues[0];
    assert_eq!(
        (queue.name.as_str(), queue.succeeded, queue.ready, queue.running),
        ("default", 5, 0, 0)
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_released_run_is_handed_out_again() {
    let broker = Broker::start().await;
    broker.tasks().await.enqueue(task("echo")).await.unwrap();
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let first = worker.assignment().await;
    worker
        .send(v1::WorkRequest {
            released: vec![first.token.clone().unwrap()],
            ..Default::default()
        })
        .await;
    assert_eq!(worker.ack().await.state(), TaskState::Ready);
    // Its arguments come from the store this time.
    let second = worker.assignment().await;
    assert_eq!(second.payload, Some(json("1")));
    assert!(second.token.as_ref().unwrap().attempt > first.token.as_ref().unwrap().attempt);
    worker.complete(first.token, json("1")).await;
    assert!(worker.ack().await.stale, "the first grant is not current any more");
    worker.complete(second.token, json("2")).await;
    assert!(!worker.ack().await.stale);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_is_taken_up_again_with_what_it_holds() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let id = tasks.enqueue(task("echo")).await.unwrap().into_inner().id;
    let mut before = Worker::connect(&broker, 1, &["echo"]).await;
    let run = before.assignment().await;
    let held = run.token.clone().unwrap();
    let stale = v1::LeaseToken {
        attempt: held.attempt + 1,
        ..held.clone()
    };
    let resume = v1::WorkHello {
        resume: before.welcome.session.clone(),
        held: vec![held.clone(), stale.clone()],
        ..hello(1, &["echo"])
    };
    let mut after = Worker::say_hello(&broker, resume).await.unwrap();
    assert!(after.welcome.resumed && after.welcome.session == before.welcome.session);
    let stop = after.stop_run().await;
    assert_eq!(
        (stop.token.as_ref(), stop.cause()),
        (Some(&stale), v1::StopCause::Stale)
    );
    // The older connection is closed, and what it says does not count.
    let status = before.end().await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Aborted, "SESSION_SUPERSEDED")
    );
    assert_eq!(listed(&broker).await.len(), 1);
    after.complete(Some(held), json("3")).await;
    assert!(!after.ack().await.stale);
    let finished = tasks.wait(v1::WaitRequest { id }).await.unwrap().into_inner();
    assert_eq!(
        (finished.result, finished.stats.unwrap().attempts),
        (Some(json("3")), 1)
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_unknown_session_is_replaced_by_a_new_one() {
    let broker = Broker::start().await;
    let resume = v1::WorkHello {
        resume: vec![7; 16].into(),
        ..hello(1, &["echo"])
    };
    let worker = Worker::say_hello(&broker, resume).await.unwrap();
    assert!(!worker.welcome.resumed && worker.welcome.session != [7; 16][..]);
    assert_eq!(worker.welcome.lease_ms, 30_000);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_drains_takes_nothing_new_and_leaves() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 2, &["echo"]).await;
    tasks.enqueue(task("echo")).await.unwrap();
    let run = worker.assignment().await;
    worker
        .send(v1::WorkRequest {
            draining: true,
            ..Default::default()
        })
        .await;
    worker.heartbeat(1).await;
    tasks.enqueue(task("echo")).await.unwrap();
    assert_eq!(listed(&broker).await[0].state, "draining");
    worker.complete(run.token, json("1")).await;
    worker.ack().await;
    assert_eq!(worker.half_close().await.code(), Code::Ok, "goodbye is no error");
    assert_eq!(listed(&broker).await, []);
    // The second task was not handed to it.
    let mut other = Worker::connect(&broker, 1, &["echo"]).await;
    assert_eq!(other.assignment().await.token.unwrap().attempt, 1);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_worker_is_listed_as_lost() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    session.ask([Op::Enqueue(task("echo"))]).await;
    assert!(matches!(session.answer().await.1, Of::Enqueued(_)));
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    worker.assignment().await;
    drop(worker);
    crate::harness::soon(async {
        while listed(&broker).await[0].state != "lost" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    broker.stop().await.unwrap();
}

/// A clock of a machine that is put to sleep: what is up tells of it, too.
#[derive(Debug)]
struct Sleeper(ManualClock);

impl Clock for Sleeper {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn up(&self) -> Duration {
        Duration::from_micros(self.0.now().as_micros())
    }
}

#[tokio::test]
async fn a_broker_that_did_not_run_for_long_ends_no_session() {
    let clock = Arc::new(Sleeper(ManualClock::new(SystemClock::new().now())));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let mut tasks = broker.tasks().await;
    let id = tasks.enqueue(task("echo")).await.unwrap().into_inner().id;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let token = worker.assignment().await.token;
    clock.0.advance(10 * LEASE);
    // Whoever is answered, the loop has seen the time go by.
    tasks.show(v1::ShowRequest { id: id.clone() }).await.unwrap();
    worker.complete(token, json("1")).await;
    assert!(!worker.ack().await.stale, "its lease was lengthened");
    let shown = tasks.show(v1::ShowRequest { id }).await.unwrap().into_inner();
    assert_eq!((shown.attempt, shown.losses), (1, 0));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_result_that_waited_while_the_broker_did_not_run_wins_over_the_timeout() {
    let clock = Arc::new(Sleeper(ManualClock::new(SystemClock::new().now())));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let mut tasks = broker.tasks().await;
    let mut echo = task("echo");
    echo.options.get_or_insert_default().timeout_ms = 5_000;
    let id = tasks.enqueue(echo).await.unwrap().into_inner().id;
    let mut worker = Worker::connect(&broker, 1, &["echo"]).await;
    let token = worker.assignment().await.token;
    clock.0.advance(2 * HEARTBEAT);
    // The loop has seen the time go by, and that it did not run.
    tasks.show(v1::ShowRequest { id: id.clone() }).await.unwrap();
    worker.complete(token, json("1")).await;
    assert!(!worker.ack().await.stale);
    let shown = tasks.show(v1::ShowRequest { id }).await.unwrap().into_inner();
    assert_eq!((shown.state(), shown.timeouts), (TaskState::Succeeded, 0));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_silent_session_ends_with_its_lease() {
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let broker = Broker::with(Backing::memory(), clock.clone(), DRAIN_TIMEOUT).await;
    let id = broker
        .tasks()
        .await
        .enqueue(task("echo"))
        .await
        .unwrap()
        .into_inner()
        .id;
    let mut silent = Worker::connect(&broker, 1, &["echo"]).await;
    let first = silent.assignment().await.token.unwrap();
    let mut alive = Worker::connect(&broker, 1, &["echo"]).await;
    clock.advance(LEASE - HEARTBEAT);
    alive.heartbeat(1).await;
    clock.advance(HEARTBEAT);
    let status = silent.end().await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "LEASE_OVER")
    );
    let second = alive.assignment().await.token.unwrap();
    assert_eq!((&second.task_id, second.attempt), (&id, first.attempt + 1));
    alive.complete(Some(first), json("1")).await;
    assert!(alive.ack().await.stale);
    let shown = broker
        .tasks()
        .await
        .show(v1::ShowRequest { id })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (shown.state(), shown.losses, shown.worker.as_str()),
        (TaskState::Running, 1, "w")
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_with_a_number_is_acknowledged_by_it_and_refusals_by_name() {
    let broker = Broker::start().await;
    let mut tasks = broker.tasks().await;
    let mut worker = Worker::connect(&broker, 3, &["echo"]).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        tasks.enqueue(task("echo")).await.unwrap();
        runs.push(worker.assignment().await.token);
    }
    let stale = runs[0].clone().map(|token| v1::LeaseToken { attempt: 9, ..token });
    let completed = |token: &Option<v1::LeaseToken>| v1::Completion {
        token: token.clone(),
        result: Some(json("1")),
        spawned: Vec::new(),
    };
    worker
        .send(v1::WorkRequest {
            completions: vec![completed(&runs[0]), completed(&stale)],
            released: vec![runs[1].clone().unwrap()],
            number: 7,
            ..Default::default()
        })
        .await;
    worker.acked(7).await;
    assert_eq!(worker.acks_read(), 1, "a refusal does not come after the number");
    // A message that says nothing of runs has its number all the same.
    worker
        .send(v1::WorkRequest {
            heartbeat: 1,
            number: 9,
            ..Default::default()
        })
        .await;
    worker.acked(9).await;
    let refused = worker.ack().await;
    assert_eq!((refused.stale, &refused.token), (true, &stale));
    assert_eq!(refused.state(), TaskState::Succeeded, "and says how the task is now");
    // Named run by run where the message has no number, and nothing was named twice.
    worker.complete(runs[2].clone(), json("1")).await;
    let ack = worker.ack().await;
    assert_eq!((ack.stale, &ack.token), (false, &runs[2]));
    let id = runs[0].clone().unwrap().task_id;
    let end = tasks.wait(v1::WaitRequest { id }).await.unwrap().into_inner();
    assert_eq!(end.state(), TaskState::Succeeded);
}
