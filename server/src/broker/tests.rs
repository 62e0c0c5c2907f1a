//! The loop, and what it finds of connections that are gone.

use std::sync::Arc;

use asynq_core::{Name, OnKey, Options, Payload, SessionId, TaskId, TaskSpec, WorkerState};
use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::SystemClock;

/// A broker whose loop does not run yet.
fn idle() -> (Broker, Loop) {
    open(Backing::memory(), Arc::new(SystemClock::new())).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn first_send(id: u8) -> Ask {
    let spec = TaskSpec {
        id: TaskId([id; 16]),
        name: name("echo"),
        queue: name(&format!("queue-{id}")),
        series: Name::or_empty("").unwrap(),
        options: Options::default(),
        start_at: None,
        on_key: OnKey::default(),
        payload: Payload {
            content_type: "".into(),
            data: "1".into(),
        },
    };
    let enqueue = Enqueue {
        spec: Box::new(spec),
        first_send: true,
        by: None,
        wait: false,
    };
    Ask {
        call: 1,
        op: Op::Enqueue(enqueue),
    }
}

fn hello(resume: Option<SessionId>) -> WorkerHello {
    WorkerHello {
        leaked: 0,
        worker: name("w"),
        slots: 1,
        tasks: Vec::new(),
        resume,
        held: Vec::new(),
    }
}

fn start(broker_loop: Loop) -> (CancellationToken, JoinHandle<Result<(), StoreError>>) {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(broker_loop.run(stop)))
}

/// A client that has sent it again, elsewhere, vouches for nothing any more.
#[tokio::test]
async fn what_a_connection_that_is_gone_had_asked_is_dropped() {
    let (broker, broker_loop) = idle();
    let (gone, here) = (broker.session(), broker.session());
    for (guard, id) in [(&gone, 1), (&here, 2)] {
        let caller = guard.caller().clone();
        let asks = vec![first_send(id)];
        broker.send(Command::Ask { caller, asks }).await.unwrap();
    }
    drop(gone);
    let (stop, running) = start(broker_loop);
    let queues = broker.queues().await.unwrap();
    let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["queue-2"]);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_whose_connection_is_gone_by_then_is_hung_up() {
    let (broker, broker_loop) = idle();
    // Asked, and then not waited for.
    assert!(
        broker
            .worker_hello(hello(None), WorkerConn::new())
            .now_or_never()
            .is_none()
    );
    let (stop, running) = start(broker_loop);
    // It holds nothing, so it is given up at once.
    assert_eq!(broker.workers().await.unwrap(), []);
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_late_hello_does_not_take_the_session_from_a_newer_connection() {
    let (broker, broker_loop) = idle();
    let (stop, running) = start(broker_loop);
    let (newer, late) = (WorkerConn::new(), WorkerConn::new());
    let session = broker.worker_hello(hello(None), newer.clone()).await.unwrap();
    late.outbox().abandon();
    let refused = broker.worker_hello(hello(Some(session)), late).await;
    assert_eq!(refused, Err(End::Gone.into()));
    assert!(!newer.outbox().is_over());
    assert_eq!(broker.workers().await.unwrap()[0].state, WorkerState::Active);
    stop.cancel();
    running.await.unwrap().unwrap();
}
