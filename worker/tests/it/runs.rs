//! One run: how it starts, ends, fails and stops.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use asynq_proto::v1::{Assignment, LeaseToken, StopCause, WorkReply};
use asynq_worker::{Context, StopCause as Cause, Task, TaskError, Worker, WorkerBuilder};
use tokio::sync::{mpsc, watch};

use crate::broker::{Broker, assignment, run, token, until, welcome, within};

const ADD: Task<(u32, u32), u32> = Task::new("add");
const HANG: Task<(), ()> = Task::new("hang");
const BOOM: Task<String, ()> = Task::new("boom");

async fn add(_: Context, (a, b): (u32, u32)) -> Result<u32, TaskError> {
    Ok(a + b)
}

async fn boom(_: Context, message: String) -> Result<(), TaskError> {
    panic!("{message}");
}

#[tokio::test]
async fn a_worker_registers_and_returns_results() {
    let mut broker = Broker::start().await;
    let (ready, mut readied) = mpsc::channel(1);
    let worker = Worker::builder(&broker.url())
        .name("w")
        .slots(3)
        .task(ADD.timeout(Duration::from_secs(9)).max_attempts(2), add)
        .on_ready(move |now| ready.try_send(now.clone()).unwrap());
    let _running = run(worker);

    let mut link = broker.accept().await;
    assert_eq!((link.hello.worker.as_str(), link.hello.slots), ("w", 3));
    assert!(link.hello.resume.is_empty() && link.hello.held.is_empty());
    let declared = &link.hello.tasks[..];
    assert_eq!((declared.len(), declared[0].name.as_str()), (1, "add"));
    assert_eq!((declared[0].timeout_ms, declared[0].max_attempts), (9000, 2));
    let said = within(readied.recv()).await.unwrap();
    assert_eq!((said.tasks, said.broker), (1, broker.url()));

    link.assign(assignment(1, "add", "[1,2]")).await;
    let completion = link.next().await.completions.remove(0);
    assert_eq!(completion.token, Some(token(1)));
    assert_eq!(&completion.result.unwrap().data[..], b"3");
}

#[tokio::test]
async fn a_panic_is_a_failure_and_the_worker_lives() {
    let mut broker = Broker::start().await;
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .task(BOOM, boom)
        .task(ADD, add)
        .blocking(Task::<String, ()>::new("blocking.boom"), |_, message| {
            panic!("{message}")
        });
    let _running = run(worker);
    let mut link = broker.accept().await;
    for (n, name) in [(1, "boom"), (2, "blocking.boom")] {
        link.assign(assignment(n, name, "\"ouch\"")).await;
        let failure = link.next().await.failures.remove(0).failure.unwrap();
        assert_eq!(
            (failure.kind.as_str(), failure.message.as_str(), failure.retryable),
            ("panic", "ouch", true)
        );
        link.ack(n).await;
    }
    link.assign(assignment(3, "add", "[1,2]")).await;
    assert_eq!(link.next().await.completions.len(), 1);
}

#[tokio::test]
async fn more_time_is_asked_for_and_told_again_after_a_cut() {
    const SLOW: Task<(), Option<u128>> = Task::new("slow");
    let mut broker = Broker::start().await;
    let (open, gate) = watch::channel(false);
    let worker = Worker::builder(&broker.url()).slots(2).task(SLOW, move |context, ()| {
        let mut gate = gate.clone();
        async move {
            context.extend(Duration::from_secs(80));
            let left = context.remaining().map(|left| left.as_secs_f64().ceil() as u128);
            gate.wait_for(|open| *open).await?;
            Ok(left)
        }
    });
    let _running = run(worker);
    let mut link = broker.accept().await;
    let timed = Assignment {
        timeout_ms: 30_000,
        ..assignment(1, "slow", "null")
    };
    link.assign(timed).await;
    link.assign(assignment(2, "slow", "null")).await; // has all the time
    let asked = |said: asynq_proto::v1::WorkRequest| {
        let [asked] = &said.extensions[..] else {
            panic!("one asks: {said:?}")
        };
        assert_eq!(asked.token, Some(token(1)));
        // An eighth more, less what has gone by.
        assert!((85_000..=90_000).contains(&asked.left_ms), "{asked:?}");
    };
    asked(link.next().await);
    drop(link);

    let mut link = broker.accept().await;
    asked(link.next().await);
    open.send_replace(true);
    let mut results = Vec::new();
    while results.len() < 2 {
        for completion in link.next().await.completions {
            results.push((completion.token.unwrap(), completion.result.unwrap().data));
        }
    }
    results.sort_by(|a, b| a.0.task_id.cmp(&b.0.task_id));
    assert_eq!((&results[0].1[..], &results[1].1[..]), (&b"90"[..], &b"null"[..]));
    link.ack(1).await;
    drop(link);
    let mut link = broker.accept().await;
    let said = link.next().await; // of the second run: the first is over
    assert_eq!((said.extensions.len(), said.completions.len()), (0, 1));
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_rejected() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    link.assign(assignment(1, "sleep", r#"{"msec":1}"#)).await;
    let failure = link.next().await.failures.remove(0).failure.unwrap();
    assert_eq!((failure.kind.as_str(), failure.retryable), ("rejected", false));
    assert!(
        failure.message.contains("unknown field `msec`, expected `ms`"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn the_builtins_do_as_they_are_documented() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    let odd = r#" {"b": 1, "a":1.10, "n":12345678901234567890} "#;
    let third = |assignment| Assignment {
        token: Some(LeaseToken { attempt: 3, ..token(9) }),
        ..assignment
    };
    for (assignment, result) in [
        (assignment(1, "echo", odd), Ok(odd)),
        (assignment(2, "sleep", r#"{"ms":1}"#), Ok("null")),
        (assignment(3, "fail", "null"), Err("failed as asked")),
        (assignment(4, "fail", r#"{"message":"m"}"#), Err("m")),
        (assignment(5, "fail", r#"{"message":"m","times":1}"#), Err("m")),
        (third(assignment(9, "fail", r#"{"message":"m","times":3}"#)), Err("m")),
        (third(assignment(9, "fail", r#"{"message":"m","times":2}"#)), Ok("null")),
    ] {
        let acked = assignment.token.clone();
        link.assign(assignment).await;
        let mut said = link.next().await;
        match result {
            Ok(result) => assert_eq!(said.completions.remove(0).result.unwrap().data, result),
            Err(message) => {
                let failure = said.failures.remove(0).failure.unwrap();
                assert_eq!(
                    (failure.kind.as_str(), failure.message.as_str(), failure.retryable),
                    ("error", message, true)
                );
            }
        }
        let ack = asynq_proto::v1::RunAck {
            token: acked,
            ..Default::default()
        };
        link.reply(WorkReply {
            acks: vec![ack],
            ..WorkReply::default()
        })
        .await;
    }
}

/// Says when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A worker with one slot whose task `hang` says when it starts and is dropped.
fn hanging(broker: &Broker, dropped: &Arc<AtomicBool>) -> (WorkerBuilder, mpsc::Receiver<()>) {
    let dropped = dropped.clone();
    let (started, starts) = mpsc::channel(1);
    let worker = Worker::builder(&broker.url()).slots(1).task(HANG, move |_, ()| {
        let (guard, started) = (Guard(dropped.clone()), started.clone());
        async move {
            started.send(()).await?;
            pending::<()>().await;
            drop(guard);
            Ok(())
        }
    });
    (worker, starts)
}

#[tokio::test]
async fn a_stop_drops_an_async_run_at_its_await_point() {
    let mut broker = Broker::start().await;
    let dropped = Arc::new(AtomicBool::new(false));
    let (worker, mut starts) = hanging(&broker, &dropped);
    let _running = run(worker);
    let mut link = broker.accept().await;
    link.assign(assignment(1, "hang", "null")).await;
    within(starts.recv()).await.unwrap();
    link.stop(1, StopCause::Cancelled).await;
    assert_eq!(link.next().await.ended, [token(1)]);
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_blocking_run_sees_the_stop_and_ended_is_said_when_it_returns() {
    let mut broker = Broker::start().await;
    let (saw, mut seen) = mpsc::channel(2);
    let (let_go, go) = std::sync::mpsc::sync_channel::<()>(1);
    let go = std::sync::Mutex::new(go);
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .blocking(HANG, move |context, ()| {
            saw.blocking_send(context.stop_cause()).unwrap();
            while !context.is_stopped() {
                std::thread::yield_now();
            }
            saw.blocking_send(context.stop_cause()).unwrap();
            go.lock().unwrap().recv().unwrap();
            Ok(())
        });
    let _running = run(worker);
    let mut link = broker.accept().await;
    link.assign(assignment(1, "hang", "null")).await;
    assert_eq!(within(seen.recv()).await, Some(None));
    link.stop(1, StopCause::Timeout).await;
    assert_eq!(within(seen.recv()).await, Some(Some(Cause::Timeout)));
    link.beats(3).await;
    let_go.send(()).unwrap();
    assert_eq!(link.next().await.ended, [token(1)]);
}

#[tokio::test]
async fn of_a_stale_run_nothing_more_is_said() {
    let mut broker = Broker::start().await;
    let dropped = Arc::new(AtomicBool::new(false));
    let (worker, mut starts) = hanging(&broker, &dropped);
    let _running = run(worker.task(ADD, add));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "hang", "null")).await;
    within(starts.recv()).await.unwrap();
    link.stop(1, StopCause::Stale).await;
    until(|| dropped.load(Ordering::SeqCst)).await;
    link.assign(assignment(2, "add", "[1,2]")).await;
    let said = link.next().await;
    assert_eq!((said.completions.len(), said.ended.len()), (1, 0));
}

#[tokio::test]
async fn assignments_beyond_the_slots_are_given_back() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    let sleeps = [1, 2].map(|n| assignment(n, "sleep", r#"{"ms":3600000}"#));
    link.reply(WorkReply {
        assignments: sleeps.to_vec(),
        ..WorkReply::default()
    })
    .await;
    assert_eq!(link.next().await.released, [token(2)]);
}

/// What a dropped handler leaves behind is waited for: the run is over after it.
#[tokio::test]
async fn a_run_is_over_when_nothing_of_it_lingers() {
    let mut broker = Broker::start().await;
    let (let_go, gate) = watch::channel(false);
    let leaves = move |context: Context, waits: bool| {
        let (linger, mut gate) = (context.linger(), gate.clone());
        tokio::spawn(async move {
            let _ = gate.wait_for(|open| *open).await; // or the test is over
            drop(linger);
        });
        async move {
            if waits {
                pending::<()>().await;
            }
            Ok(1)
        }
    };
    let worker = Worker::builder(&broker.url()).slots(1).builtins();
    let _running = run(worker.task(Task::<bool, u8>::new("leaves"), leaves));
    let mut link = broker.accept().await;
    for (n, waits) in [(1, true), (2, false)] {
        let_go.send_replace(false);
        link.assign(assignment(n, "leaves", &waits.to_string())).await;
        if waits {
            link.beats(2).await;
            link.stop(n, StopCause::Cancelled).await;
        }
        // The slot is taken, too.
        link.assign(assignment(9, "echo", "1")).await;
        assert_eq!(link.next().await.released, [token(9)]);
        link.ack(9).await;
        let_go.send_replace(true);
        let said = link.next().await;
        if waits {
            assert_eq!(said.ended, [token(n)]);
        } else {
            assert_eq!(said.completions[0].token, Some(token(n)));
        }
        link.ack(n).await;
    }
}

#[tokio::test]
async fn a_task_nobody_registered_fails() {
    let mut broker = Broker::start().await;
    let _running = run(Worker::builder(&broker.url()).slots(1).builtins());
    let mut link = broker.accept().await;
    link.assign(assignment(1, "other", "null")).await;
    let failure = link.next().await.failures.remove(0).failure.unwrap();
    assert!(
        failure.message.contains("not registered the task \"other\""),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn the_context_tells_what_the_run_is_and_how_long_it_has() {
    let mut broker = Broker::start().await;
    let (tell, mut told) = mpsc::channel(1);
    let worker = Worker::builder(&broker.url())
        .slots(1)
        .task(HANG, move |context: Context, ()| {
            let tell = tell.clone();
            async move { tell.send(context).await.map_err(TaskError::from) }
        });
    let _running = run(worker);
    let mut link = broker.accept().await;
    let now_ms = welcome().now_us / 1000;
    for (n, timeout_ms, deadline_ms, at_most) in [
        (1, 0, 0, None),
        (2, 60_000, 0, Some(60)),
        (3, 60_000, now_ms + 30_000, Some(30)),
        (4, 0, 1, Some(0)),
    ] {
        link.assign(Assignment {
            series: "s".into(),
            timeout_ms,
            deadline_ms,
            ..assignment(n, "hang", "null")
        })
        .await;
        let context = within(told.recv()).await.unwrap();
        assert_eq!(
            (context.name(), context.queue(), context.series()),
            ("hang", "default", "s")
        );
        assert_eq!((context.task_id().as_u128(), context.attempt()), (n.into(), 1));
        let at_most = at_most.map(Duration::from_secs);
        assert!(context.remaining() <= at_most, "{:?}", context.remaining());
        assert!(context.remaining() >= at_most.map(|left| left.saturating_sub(Duration::from_secs(20))));
        assert!(!context.is_stopped());
        assert_eq!(link.next().await.completions.len(), 1);
        link.ack(n).await;
    }
}
