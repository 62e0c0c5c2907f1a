//! Handlers that read the items of other tasks, on a real broker.

use std::time::Duration;

use asynq_client::{Error, State, TaskId};
use asynq_tests::{Cluster, PATIENCE, Proxy, eventually, within};
use asynq_worker::{CallError, Context, DeadReason, Iter, OnLoss, RunError, Task, TaskError, Worker, WorkerBuilder};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Reads itself so deep, and makes each item one more.
const NEST: Iter<u32, u32> = Iter::new("nest", OnLoss::Replay);
/// The same, blocking its thread.
const NEST_BLOCKING: Iter<u32, u32> = Iter::new("nest.blocking", OnLoss::Replay);
/// So many numbers.
const NUMBERS: Iter<u64, u64> = Iter::new("numbers", OnLoss::Replay);
/// Three numbers, then a failure.
const BROKEN: Iter<(), u64> = Iter::new("broken", OnLoss::Fail);
/// The sum of the first so many of so many numbers, with a gate before each hundredth.
const SUM: Task<(u64, u64), u64> = Task::new("sum");
/// What comes of reading what it is told.
const CATCH: Task<String, String> = Task::new("catch");

fn nest(context: Context, left: u32) -> impl Stream<Item = Result<u32, TaskError>> {
    let Some(left) = left.checked_sub(1) else {
        return stream::iter((0..3).map(Ok)).boxed();
    };
    async move { context.iterate(NEST, &left).await }
        .into_stream()
        .try_flatten()
        .map(|item| Ok(item? + 1))
        .boxed()
}

fn nest_blocking(context: Context, left: u32) -> Box<dyn Iterator<Item = Result<u32, TaskError>>> {
    let Some(left) = left.checked_sub(1) else {
        return Box::new((0..3).map(Ok));
    };
    match context.iterate(NEST_BLOCKING, &left).window(1).wait() {
        Ok(items) => Box::new(items.map(|item| Ok(item? + 1))),
        Err(error) => Box::new(std::iter::once(Err(error.into()))),
    }
}

async fn catch(context: Context, how: String) -> Result<String, TaskError> {
    let mut read = 0;
    let caught = async {
        let mut items = match how.as_str() {
            "a window of nothing" => context.iterate(NUMBERS, &9).window(0).await?,
            "nonsense" => context.iterate(NUMBERS, &9).niceness(99).await?,
            "other items" => {
                let texts: Iter<u64, String> = Iter::new("numbers", OnLoss::Replay);
                context.iterate(texts, &9).await?.try_next().await?;
                return Ok(());
            }
            _ => context.iterate(BROKEN, &()).await?,
        };
        loop {
            match items.try_next().await {
                Ok(Some(_)) => read += 1,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // That was the last word.
                    assert!(matches!(items.try_next().await, Ok(None)));
                    return Err(error);
                }
            }
        }
    };
    let caught = caught.await;
    Ok(match caught {
        Err(CallError::Dead {
            name,
            reason: DeadReason::Rejected,
            failure,
            ..
        }) => format!("{name} after {read}: {}", failure.message),
        Err(CallError::Refused { reason, message, .. }) => format!("{reason}: {message}"),
        Err(CallError::Result { problem }) => problem,
        other => format!("{other:?}"),
    })
}

/// A worker of this process.
struct Here {
    gate: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Here {
    fn all(builder: WorkerBuilder, gate: watch::Receiver<bool>) -> WorkerBuilder {
        builder
            .iter(NEST, nest)
            .blocking_iter(NEST_BLOCKING, nest_blocking)
            .iter(NUMBERS, |_, count| stream::iter((0..count).map(Ok)))
            .iter(BROKEN, |_, ()| {
                let end = TaskError::rejected("no more of it");
                stream::iter([Ok(0), Ok(1), Ok(2), Err(end)])
            })
            .task(CATCH, catch)
            .task(SUM, move |context: Context, (first, of)| {
                let mut gate = gate.clone();
                async move {
                    let mut numbers = context.iterate(NUMBERS, &of).window(10).await?;
                    let mut sum = 0;
                    for n in 0..first {
                        if n % 100 == 99 {
                            // A gate that is gone will not open: the run is dropped with its worker.
                            let _ = gate.wait_for(|open| *open).await;
                        }
                        let number = numbers.try_next().await?.expect("there are as many");
                        assert_eq!(number, n, "in order");
                        sum += number;
                    }
                    Ok(sum)
                }
            })
    }

    async fn start(url: &str, slots: u32) -> Self {
        let (gate, open) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let (registered, ready) = oneshot::channel();
        let worker = Self::all(Worker::builder(url), open)
            .slots(slots)
            .on_ready(move |_| registered.send(()).expect("the test waits for it"));
        let running = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        within("the worker to be registered", PATIENCE, ready)
            .await
            .expect("it goes on");
        Self {
            gate,
            stop: Some(stop),
            running,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        let ended = within("the worker to drain", PATIENCE, &mut self.running).await;
        ended.expect("the worker does not panic").expect("the worker drains");
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn child_of(client: &asynq_client::Client, parent: TaskId) -> TaskId {
    eventually("the run to read", PATIENCE, || async {
        let why = client.explain(parent).await.ok()?;
        why.details.get("waits_for")?.parse().ok()
    })
    .await
}

#[tokio::test]
async fn a_nest_of_streams_on_one_slot_comes_to_its_end() {
    let cluster = Cluster::start().await;
    let worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    for nest in [NEST, NEST_BLOCKING] {
        let items = async { client.iterate(nest, &20).await?.try_collect::<Vec<_>>().await };
        let items = within("the items", PATIENCE, items).await.unwrap();
        assert_eq!(items, [20, 21, 22]);
    }
    let workers = client.workers().await.unwrap();
    assert_eq!((workers[0].busy, workers[0].slots), (0, 1));
    worker.stop().await;
}

#[tokio::test]
async fn items_that_are_dropped_are_made_no_more() {
    let cluster = Cluster::start().await;
    let worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(SUM, &(150, u64::MAX)).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    worker.gate.send_replace(true);
    assert_eq!(handle.result().await.unwrap(), (0..150).sum::<u64>());
    cluster.reaches(&client, child, State::Cancelled).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_cancel_of_who_reads_cancels_what_it_reads() {
    let cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(SUM, &(150, u64::MAX)).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    cluster.reaches(&client, child, State::Running).await;
    handle.cancel().await.unwrap();
    cluster.reaches(&client, handle.id(), State::Cancelled).await;
    cluster.reaches(&client, child, State::Cancelled).await;
}

#[tokio::test]
async fn what_goes_wrong_with_the_items_is_told() {
    let cluster = Cluster::start().await;
    let _worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    for (how, said) in [
        ("broken", "broken after 3: no more of it"),
        (
            "a window of nothing",
            "INVALID_FIELD: a window of 0 items; it must have 1 to 65536",
        ),
        (
            "nonsense",
            "INVALID_FIELD: options.niceness is 99, allowed are -20 to 20",
        ),
    ] {
        assert_eq!(client.call(CATCH, &how.to_owned()).await.unwrap(), said);
    }
    let said = client.call(CATCH, &"other items".to_owned()).await.unwrap();
    assert!(said.contains("invalid type: integer"), "{said}");
    let queues = client.queues().await.unwrap();
    assert_eq!((queues[0].running, queues[0].ready), (0, 0));
}

/// Each item comes once, in order, to a run that is not run again.
#[tokio::test]
async fn who_reads_outlives_cuts_and_kills_of_the_broker() {
    let mut cluster = Cluster::start().await;
    let proxy = Proxy::to(cluster.broker.address()).await;
    let worker = Here::start(&proxy.url(), 1).await;
    let client = cluster.client().await;
    let handle = client.enqueue(SUM, &(1_000, 1_000)).await.unwrap();
    let child = child_of(&client, handle.id()).await;
    cluster.reaches(&client, child, State::Running).await;
    proxy.cut();
    cluster.worker_becomes(&client, "lost").await;
    proxy.heal();
    cluster.worker_becomes(&client, "active").await;
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    cluster.worker_becomes(&client, "active").await;
    assert_eq!(child_of(&client, handle.id()).await, child);
    proxy.cut();
    cluster.worker_becomes(&client, "lost").await;
    worker.gate.send_replace(true);
    proxy.heal();
    let sum = within("the sum", 2 * PATIENCE, handle.result()).await.unwrap();
    assert_eq!(sum, (0..1_000).sum::<u64>());
    for id in [handle.id(), child] {
        let shown = client.show(id).await.unwrap();
        assert_eq!((shown.state, shown.attempt, shown.losses), (State::Succeeded, 1, 0));
    }
}

#[tokio::test]
async fn a_stream_that_is_called_runs_again_with_the_attempt_that_reads_it() {
    let cluster = Cluster::start().await;
    let worker = Here::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let timeout = Duration::from_secs(2);
    let handle = client
        .enqueue(SUM, &(150, 150))
        .timeout(timeout)
        .retries(3)
        .await
        .unwrap();
    let first = child_of(&client, handle.id()).await;
    cluster.reaches(&client, first, State::Cancelled).await;
    worker.gate.send_replace(true);
    let sum = within("the sum", PATIENCE, handle.result()).await;
    assert!(
        matches!(sum, Ok(11_175)),
        "{:?}",
        sum.map_err(|error: Error| error.to_string())
    );
}
