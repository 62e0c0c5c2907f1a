//! Runs that call and spawn: what is said on the wire, and said again.

use std::future::{IntoFuture, pending};
use std::time::Duration;

use asynq_proto::limits::{INLINE_BYTES, MAX_CALLS};
use asynq_proto::v1::call_answer::Of;
use asynq_proto::v1::{
    CallAnswer, DeadReason, Finished, OperationError, Payload, RunCall, StopCause, TaskFailure, TaskState, WorkReply,
};
use asynq_worker::{CallError, Context, Task, TaskError, Worker, WorkerBuilder};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::broker::{Broker, Link, assignment, run, token, until};

const OTHER: Task<String, String> = Task::new("other");
const CALL: Task<String, String> = Task::new("call");
const WAIT: Task<String, String> = Task::new("wait");
const HANG: Task<(), ()> = Task::new("hang");

async fn call(context: Context, args: String) -> Result<String, TaskError> {
    match context.call(OTHER, &args).series("s").retries(2).await {
        Err(CallError::Dead { failure, .. }) => Ok(format!("dead: {}", failure.message)),
        Err(CallError::Refused { reason, .. }) => Ok(format!("refused: {reason}")),
        called => Ok(called?),
    }
}

fn wait(context: Context, args: String) -> Result<String, TaskError> {
    Ok(context.call(OTHER, &args).wait()?)
}

fn worker(broker: &Broker) -> WorkerBuilder {
    Worker::builder(&broker.url())
        .slots(1)
        .task(CALL, call)
        .blocking(WAIT, wait)
        .task(HANG, async |_, ()| pending().await)
}

fn json(text: &str) -> Payload {
    Payload {
        content_type: String::new(),
        data: text.as_bytes().to_vec().into(),
    }
}

fn succeeded(result: &str) -> Of {
    Of::Finished(Finished {
        state: TaskState::Succeeded.into(),
        result: Some(json(result)),
        ..Finished::default()
    })
}

async fn answer(link: &Link, call: u64, of: Of) {
    let answers = vec![CallAnswer { call, of: Some(of) }];
    link.reply(WorkReply {
        answers,
        ..WorkReply::default()
    })
    .await;
}

/// The next message is a call, and nothing else.
async fn called(link: &mut Link) -> RunCall {
    let mut said = link.next().await;
    assert_eq!(
        (said.calls.len(), said.completions.len(), said.failures.len()),
        (1, 0, 0)
    );
    said.calls.remove(0)
}

async fn returns(link: &mut Link, n: u8, result: &str) {
    let said = link.next().await;
    let completion = said.completions.first().unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(completion.token, Some(token(n)));
    assert_eq!(completion.result.clone().unwrap().data, result.as_bytes());
}

#[tokio::test]
async fn a_call_is_said_and_answered() {
    let mut broker = Broker::start().await;
    let _running = run(worker(&broker));
    let mut link = broker.accept().await;
    for (n, name) in [(1, "call"), (2, "wait")] {
        link.assign(assignment(n, name, "\"a\"")).await;
        let call = called(&mut link).await;
        assert_eq!((call.token.clone(), call.n, call.again), (Some(token(n)), 1, false));
        assert_eq!(
            (call.name.as_str(), call.payload.clone()),
            ("other", Some(json("\"a\"")))
        );
        if n == 1 {
            let options = call.options.unwrap();
            assert_eq!((options.series.as_str(), options.max_attempts), ("s", Some(3)));
        }
        answer(&link, call.call, succeeded("\"b\"")).await;
        returns(&mut link, n, "\"b\"").await;
        link.ack(n).await;
    }
}

#[tokio::test]
async fn bad_ends_are_told_apart() {
    let mut broker = Broker::start().await;
    let _running = run(worker(&broker));
    let mut link = broker.accept().await;
    let dead = Of::Finished(Finished {
        state: TaskState::Dead.into(),
        dead_reason: DeadReason::Error.into(),
        error: Some(TaskFailure {
            message: "no".into(),
            ..TaskFailure::default()
        }),
        ..Finished::default()
    });
    let refused = Of::Error(OperationError {
        reason: "LIMIT_REACHED".into(),
        ..OperationError::default()
    });
    for (n, of, said) in [(1, dead, "\"dead: no\""), (2, refused, "\"refused: LIMIT_REACHED\"")] {
        link.assign(assignment(n, "call", "\"a\"")).await;
        let call = called(&mut link).await;
        answer(&link, call.call, of).await;
        returns(&mut link, n, said).await;
        link.ack(n).await;
    }
    // A cancelled one becomes a failure of the run that called, with `?`.
    link.assign(assignment(3, "call", "\"a\"")).await;
    let call = called(&mut link).await;
    let cancelled = Finished {
        state: TaskState::Cancelled.into(),
        ..Finished::default()
    };
    answer(&link, call.call, Of::Finished(cancelled)).await;
    let failure = link.next().await.failures.remove(0).failure.unwrap();
    assert!(
        failure.retryable && failure.message.contains("was cancelled"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn the_slot_of_who_waits_is_lent_and_taken_back() {
    let mut broker = Broker::start().await;
    let _running = run(worker(&broker));
    let mut link = broker.accept().await;
    for (first, name) in [(1, "call"), (11, "wait")] {
        // Each of these is one more than there are slots.
        for n in first..first + 5 {
            link.assign(assignment(n, name, "\"a\"")).await;
            assert_eq!(called(&mut link).await.token, Some(token(n)));
        }
        link.assign(assignment(first + 5, "hang", "null")).await;
        // The first goes on beside the one that has its slot.
        let call = 1 + u64::from(first / 11) * 5;
        answer(&link, call, succeeded("\"b\"")).await;
        returns(&mut link, first, "\"b\"").await;
        link.ack(first).await;
        link.stop(first + 5, StopCause::Cancelled).await;
        assert_eq!(link.next().await.ended, [token(first + 5)]);
        link.ack(first + 5).await;
        for n in first + 1..first + 5 {
            let call = u64::from(n - first) + call;
            answer(&link, call, succeeded("\"b\"")).await;
            returns(&mut link, n, "\"b\"").await;
            link.ack(n).await;
        }
    }
    // Nothing is lent now: what is too much is given back.
    link.assign(assignment(21, "hang", "null")).await;
    link.assign(assignment(22, "hang", "null")).await;
    assert_eq!(link.next().await.released, [token(22)]);
}

#[tokio::test]
async fn what_is_unanswered_is_said_again() {
    let mut broker = Broker::start().await;
    let _running = run(worker(&broker));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "call", "\"a\"")).await;
    let first = called(&mut link).await;
    drop(link);
    let mut link = broker.accept().await;
    assert_eq!(link.hello.held, [token(1)]);
    let again = called(&mut link).await;
    assert_eq!(again, RunCall { again: true, ..first });
    // Neither a broker that goes nor an answer without an end is one.
    let gone = OperationError {
        reason: "SHUTTING_DOWN".into(),
        ..OperationError::default()
    };
    answer(&link, again.call, Of::Error(gone)).await;
    drop(link);
    let mut link = broker.accept().await;
    let again = called(&mut link).await;
    answer(&link, again.call, succeeded("\"b\"")).await;
    // Said twice, it does no harm.
    answer(&link, again.call, succeeded("\"c\"")).await;
    returns(&mut link, 1, "\"b\"").await;
}

#[tokio::test]
async fn large_values_travel_apart() {
    let mut broker = Broker::start().await;
    let _running = run(worker(&broker));
    let mut link = broker.accept().await;
    let text = format!("\"{}\"", "x".repeat(INLINE_BYTES));
    link.assign(assignment(1, "call", &text)).await;
    let waits = called(&mut link).await;
    assert!(waits.enqueued && waits.payload.is_none(), "{waits:?}");
    let sent = broker.bulk.calls.lock().unwrap().remove(0);
    assert_eq!((sent.n, sent.payload), (waits.n, Some(json(&text))));
    // A new connection asks for its end only.
    drop(link);
    let mut link = broker.accept().await;
    assert_eq!(called(&mut link).await, waits);
    let result = Finished {
        state: TaskState::Succeeded.into(),
        result: Some(json("\"large\"")),
        ..Finished::default()
    };
    broker.bulk.ends.lock().unwrap().insert(waits.n, result.clone());
    let deferred = Finished {
        result: None,
        result_deferred: true,
        ..result
    };
    answer(&link, waits.call, Of::Finished(deferred)).await;
    returns(&mut link, 1, "\"large\"").await;
}

#[tokio::test]
async fn a_run_that_calls_too_much_at_a_time_is_told() {
    let mut broker = Broker::start().await;
    let many: Task<(), String> = Task::new("many");
    let _running = run(worker(&broker).task(many, async |context: Context, ()| {
        let text = "a".to_owned();
        let call = |_| context.call(OTHER, &text).into_future();
        let mut calls: FuturesUnordered<_> = (0..=MAX_CALLS).map(call).collect();
        let Some(Err(error)) = calls.next().await else {
            return Err(TaskError::terminal("nothing was refused"));
        };
        Ok(error.to_string())
    }));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "many", "null")).await;
    let mut calls = 0;
    let result = loop {
        let said = link.next().await;
        calls += said.calls.len();
        if let Some(completion) = said.completions.into_iter().next() {
            break completion.result.unwrap().data;
        }
    };
    let said = format!("calling other was refused: a run waits for at most {MAX_CALLS} calls at a time");
    assert_eq!(result, format!("\"{said}\""));
    assert!(calls <= MAX_CALLS, "{calls} were said");
}

#[tokio::test]
async fn a_stop_ends_the_wait_and_counts_no_failure() {
    let mut broker = Broker::start().await;
    let _running = run(worker(&broker));
    let mut link = broker.accept().await;
    for (n, name) in [(1, "call"), (2, "wait")] {
        link.assign(assignment(n, name, "\"a\"")).await;
        called(&mut link).await;
        link.stop(n, StopCause::Cancelled).await;
        let mut said = link.next().await;
        // The handler gives its call up; that may be said before.
        if said.ended.is_empty() {
            assert_eq!((said.withdrawn.len(), said.failures.len()), (1, 0));
            said = link.next().await;
        }
        assert_eq!((&said.ended[..], said.failures.len()), (&[token(n)][..], 0));
        link.ack(n).await;
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_withdrawn() {
    let mut broker = Broker::start().await;
    let impatient: Task<(), String> = Task::new("impatient");
    let _running = run(worker(&broker).task(impatient, async |context: Context, ()| {
        let text = "a".to_owned();
        let call = async { context.call(OTHER, &text).await };
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
        Ok(context.call(OTHER, &text).await?)
    }));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "impatient", "null")).await;
    let first = called(&mut link).await;
    let (mut withdrawn, mut second) = (Vec::new(), None);
    while withdrawn.is_empty() || second.is_none() {
        let said = link.next().await;
        withdrawn.extend(said.withdrawn);
        second = second.or(said.calls.into_iter().next());
    }
    assert_eq!((withdrawn[0].call, withdrawn[0].n), (first.call, 1));
    let second = second.unwrap();
    assert_eq!(second.n, 2);
    answer(&link, second.call, succeeded("\"b\"")).await;
    returns(&mut link, 1, "\"b\"").await;
}

#[tokio::test]
async fn what_is_spawned_goes_with_the_result() {
    let mut broker = Broker::start().await;
    let leave: Task<bool, ()> = Task::new("leave");
    let _running = run(worker(&broker).task(leave, async |context: Context, fails| {
        context.spawn(OTHER, &"a".to_owned()).queue("q").on_success()?;
        context.spawn(OTHER, &"b".to_owned()).on_success()?;
        if fails { Err(TaskError::terminal("no")) } else { Ok(()) }
    }));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "leave", "true")).await;
    let said = link.next().await;
    assert_eq!((said.failures.len(), said.completions.len()), (1, 0));
    link.ack(1).await;
    link.assign(assignment(2, "leave", "false")).await;
    let completion = link.next().await.completions.remove(0);
    let spawned: Vec<_> = completion
        .spawned
        .iter()
        .map(|child| (child.n, child.token.clone()))
        .collect();
    assert_eq!(spawned, [(1, Some(token(2))), (2, Some(token(2)))]);
    assert_eq!(completion.spawned[0].options.clone().unwrap().queue, "q");
    // It is one message until it is acknowledged.
    drop(link);
    let mut link = broker.accept().await;
    assert_eq!(link.next().await.completions.remove(0), completion);
}

#[tokio::test]
async fn with_much_spawned_the_completion_travels_apart() {
    let mut broker = Broker::start().await;
    let leave: Task<(), ()> = Task::new("leave");
    let _running = run(worker(&broker).task(leave, async |context: Context, ()| {
        context.spawn(OTHER, &"x".repeat(INLINE_BYTES)).on_success()?;
        Ok(())
    }));
    let link = broker.accept().await;
    link.assign(assignment(1, "leave", "null")).await;
    until(|| !broker.bulk.results.lock().unwrap().is_empty()).await;
    let completion = broker.bulk.results.lock().unwrap().remove(0);
    assert_eq!(completion.spawned.len(), 1);
}

/// Handlers of any kind are done with before their worker is.
#[tokio::test]
async fn a_drain_lets_who_waits_finish() {
    let mut broker = Broker::start().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(worker(&broker).run_until(async { drop(stopped.await) }));
    let mut link = broker.accept().await;
    link.assign(assignment(1, "call", "\"a\"")).await;
    let call = called(&mut link).await;
    drop(stop);
    let said = link.next().await;
    assert!(said.draining && said.released.is_empty(), "{said:?}");
    answer(&link, call.call, succeeded("\"b\"")).await;
    returns(&mut link, 1, "\"b\"").await;
    link.ack(1).await;
    link.closed().await;
    drop(link);
    crate::broker::within(running).await.unwrap().unwrap();
}
