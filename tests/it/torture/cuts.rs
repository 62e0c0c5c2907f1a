//! Connections between broker and workers that are cut, again and again.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use asynq_client::{Client, Handle};
use asynq_tests::dice::Dice;
use asynq_tests::journal::now;
use asynq_tests::{Cluster, Fault, PATIENCE, Proxy, WorkerHere, eventually, within};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::{ALL_DONE, Spread, dice, is_long};

const WORKERS: usize = 10;
const SLOTS: u32 = 4;
const CALLERS: usize = 8;
/// Tasks each caller has waiting or running: more than there are slots.
const IN_FLIGHT: usize = 16;
/// What a task takes, in ms.
const TASK_MS: u64 = 100;
/// From the heal of a cut to the next run, at most.
const CONSUMES: Duration = Duration::from_secs(2);

const fn ms(range: Range<u64>) -> Range<Duration> {
    Duration::from_millis(range.start)..Duration::from_millis(range.end)
}

/// Which, how often of a thousand, and for how long. Of what is half open a worker learns
/// by its pings, two of which have to be missed.
const FAULTS: [(Fault, u64, Range<Duration>); 5] = [
    (Fault::Reset, 300, ms(10..1_500)),
    (Fault::End, 300, ms(10..1_500)),
    (Fault::Silence, 200, ms(50..4_000)),
    (Fault::HalfOpen, 100, ms(3_200..4_200)),
    (Fault::Slow, 100, ms(200..2_000)),
];

fn any(dice: &mut Dice) -> (Fault, Duration) {
    let mut drawn = dice.int(0..1_000);
    for (fault, share, time) in FAULTS {
        if drawn < share {
            return (fault, dice.time(time));
        }
        drawn -= share;
    }
    unreachable!("the shares make a thousand")
}

/// Keeps so many tasks waiting, until it is told to stop; gives all it enqueued.
async fn caller(client: Client, stop: Arc<AtomicBool>) -> Vec<(Handle<u64>, u64)> {
    let (mut waiting, mut ended) = (JoinSet::new(), Vec::new());
    loop {
        while !stop.load(Ordering::Relaxed) && waiting.len() < IN_FLIGHT {
            let handle = client
                .enqueue(WorkerHere::QUICK, &TASK_MS)
                .await
                .expect("it is accepted");
            waiting.spawn(async move {
                let run = handle
                    .result()
                    .await
                    .unwrap_or_else(|error| panic!("{}: {error}", handle.id()));
                (handle, run)
            });
        }
        let Some(next) = waiting.join_next().await else {
            return ended;
        };
        ended.push(next.expect("a healthy task succeeds"));
    }
}

/// Cuts one worker off, so many times, and says how soon after each heal it began a run.
async fn cut(
    proxy: Proxy,
    worker: WorkerHere,
    cuts: usize,
    mut dice: Dice,
) -> (Proxy, WorkerHere, Vec<(Fault, Duration)>) {
    let mut consuming = Vec::new();
    for _ in 0..cuts {
        let (fault, time) = any(&mut dice);
        proxy.strike(fault);
        sleep(time).await;
        let (healed, begun) = (now(), worker.begun());
        proxy.heal();
        eventually(&format!("a run after {fault:?} of {time:?}"), PATIENCE, || async {
            (worker.begun() > begun).then_some(())
        })
        .await;
        consuming.push((fault, now() - healed));
        sleep(dice.time(ms(0..200))).await;
    }
    (proxy, worker, consuming)
}

#[tokio::test]
async fn workers_consume_again_after_each_cut_and_nothing_is_run_twice() {
    let cuts = if is_long() { 1_000 } else { 40 };
    let mut dice = dice("cuts");
    let cluster = Cluster::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let mut cutting = JoinSet::new();
    for _ in 0..WORKERS {
        let proxy = Proxy::to(cluster.broker.address()).await;
        let worker = WorkerHere::start(&proxy.url(), SLOTS).await;
        cutting.spawn(cut(proxy, worker, cuts / WORKERS, dice.fork()));
    }
    for _ in 0..CALLERS {
        callers.spawn(caller(cluster.client().await, stop.clone()));
    }
    let began = now();
    let (mut workers, mut consuming, mut connections) = (Vec::new(), Vec::new(), 0);
    while let Some(done) = cutting.join_next().await {
        let (proxy, worker, took) = done.expect("it consumes again");
        connections += proxy.accepted();
        // Both live on: what is left is still to be done.
        workers.push((proxy, worker));
        consuming.extend(took);
    }
    let took = now() - began;
    stop.store(true, Ordering::Relaxed);
    let callers = within("the end of all tasks", ALL_DONE, callers.join_all()).await;
    let ended: Vec<_> = callers.into_iter().flatten().collect();

    let client = cluster.client().await;
    let queue = client.queues().await.unwrap().pop().expect("there is a queue");
    assert_eq!(
        [queue.scheduled, queue.ready, queue.running, queue.succeeded, queue.dead],
        [0, 0, 0, ended.len() as u64, 0]
    );
    let mut twice = Vec::new();
    for (handle, run) in &ended {
        let id = Uuid::from_bytes(*handle.id().as_bytes());
        let of_worker = |(_, worker): &(Proxy, WorkerHere)| worker.runs_of(id);
        let runs: Vec<_> = workers.iter().flat_map(of_worker).collect();
        assert!(runs.contains(run), "{id}: {run} is a result of none of {runs:?}");
        if runs.len() > 1 {
            twice.push((id, client.history(handle.id()).await.unwrap()));
        }
    }
    println!(
        "{} cuts between the broker and {WORKERS} workers in {took:.0?}, {connections} connections: {} tasks, 0 lost, 0 dead, \
         {} run twice",
        consuming.len(),
        ended.len(),
        twice.len()
    );
    for (fault, ..) in FAULTS {
        let of = consuming.iter().filter(|(kind, _)| *kind == fault);
        println!(
            "consuming again after {fault:?}: {}",
            Spread(of.map(|(_, took)| *took).collect())
        );
    }
    assert!(twice.is_empty(), "no cut was longer than a grace: {twice:#?}");
    // Beside other tests the machine is too busy to judge by.
    if is_long() {
        let late: Vec<_> = consuming.iter().filter(|(_, took)| *took > CONSUMES).collect();
        assert!(late.is_empty(), "{late:?}");
    }
}
