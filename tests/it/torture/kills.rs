//! kill −9 of the broker and of workers, again and again, under load.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asynq_client::{Client, Handle, State, WorkerInfo};
use asynq_core::limits::RESUME_GRACE;
use asynq_core::{SessionId, StateName, TaskId};
use asynq_tests::dice::Dice;
use asynq_tests::history::{End, History, Record};
use asynq_tests::journal::{Deed, Line, WORK, Work, now, read};
use asynq_tests::{Cluster, PATIENCE, Process, eventually, within};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use super::reruns::{Acked, Kill, Life, judge};
use super::{ALL_DONE, Spread, core_id, dice, is_long};

const CALLERS: usize = 8;
/// Enqueues each caller has in flight.
const IN_FLIGHT: usize = 8;
/// Results each of them waits for.
const WAITING: usize = 64;
/// Workers that are killed, besides the one that is not.
const WORKERS: usize = 4;
const SLOTS: u32 = 16;
/// From the start of a broker to its first acknowledgement, at most.
const SERVES: Duration = Duration::from_secs(2);

struct Size {
    tasks: u64,
    broker_kills: usize,
    worker_kills: usize,
    /// Between two kills.
    pause: Range<Duration>,
}

fn size() -> Size {
    if is_long() {
        Size {
            tasks: 50_000,
            broker_kills: 100,
            worker_kills: 200,
            pause: Duration::from_millis(100)..Duration::from_millis(1_900),
        }
    } else {
        Size {
            tasks: 1_000,
            broker_kills: 2,
            worker_kills: 4,
            pause: Duration::from_millis(100)..Duration::from_millis(900),
        }
    }
}

/// What one caller was told.
#[derive(Default)]
struct Told {
    records: Vec<(Duration, Record)>,
    acked: Vec<Acked>,
    handles: Vec<(Handle<u64>, End)>,
}

/// How many tasks may have been enqueued by now.
struct Quota {
    next: AtomicU64,
    allowed: watch::Receiver<u64>,
}

impl Quota {
    /// The number of the next task, once it may come; none if there were enough.
    async fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut allowed = self.allowed.clone();
        // An end of the sender says that all were allowed.
        let is_allowed = allowed.wait_for(|&allowed| number < allowed).await.is_ok();
        is_allowed.then_some(number)
    }
}

/// What a task is to be like.
struct Sort {
    work: Work,
    delay: Option<Duration>,
    once: bool,
}

impl Sort {
    fn any(dice: &mut Dice) -> Self {
        let is_long = dice.chance(100);
        let ms = if is_long { dice.int(100..1_500) } else { dice.int(0..20) };
        let once = dice.chance(50);
        let fails = !once && dice.chance(100);
        let delay = dice
            .chance(50)
            .then(|| dice.time(Duration::from_millis(1)..Duration::from_secs(1)));
        Self {
            work: Work { ms, fails },
            delay,
            once,
        }
    }
}

/// Enqueues, and waits for what comes of it, until there are enough.
async fn caller(client: Client, series: String, quota: Arc<Quota>, mut dice: Dice) -> Told {
    let mut told = Told::default();
    let mut waiting = JoinSet::new();
    while quota.next().await.is_some() {
        let Sort { work, delay, once } = Sort::any(&mut dice);
        let mut enqueue = client.enqueue(WORK, &work).series(&series);
        if let Some(delay) = delay {
            enqueue = enqueue.delay(delay);
        }
        if once {
            enqueue = enqueue.at_most_once();
        } else if work.fails {
            enqueue = enqueue.retries(1);
        }
        let sent = now();
        let handle = enqueue.await.expect("the SDK gets over a restart");
        let (task, acked) = (core_id(handle.id()), now());
        told.records.push((sent, Record::Asked(task)));
        told.records.extend(once.then_some((sent, Record::Once(task))));
        told.records.push((acked, Record::Acknowledged(task, 0)));
        told.acked.push(Acked { task, sent, acked });
        waiting.spawn(end_of(handle, once));
        if waiting.len() >= WAITING {
            told.ended(waiting.join_next().await.expect("some are waited for"));
        }
    }
    while let Some(ended) = waiting.join_next().await {
        told.ended(ended);
    }
    told
}

/// How a task ended, and when that was told.
async fn end_of(handle: Handle<u64>, once: bool) -> (Duration, Handle<u64>, End) {
    let end = match handle.result().await {
        Ok(value) => End {
            state: StateName::Succeeded,
            value: Some(value),
        },
        // What must not begin twice may end with its worker.
        Err(error) if once && error.reason() == "WORKER_LOST" => End {
            state: StateName::Dead,
            value: None,
        },
        Err(error) => panic!("{}: {error}", handle.id()),
    };
    (now(), handle, end)
}

impl Told {
    fn ended(&mut self, ended: Result<(Duration, Handle<u64>, End), tokio::task::JoinError>) {
        let (at, handle, end) = ended.expect("it ended as it should");
        self.records.push((at, Record::Told(core_id(handle.id()), end)));
        self.handles.push((handle, end));
    }
}

/// A worker that is killed and started again.
struct Victim {
    name: String,
    process: Process,
    journal: PathBuf,
}

impl Victim {
    async fn start(cluster: &Cluster, name: String, slots: u32, lives: &mut usize) -> Self {
        *lives += 1;
        let journal = cluster.broker.folder().join(format!("journal-{lives}"));
        let (url, slots) = (cluster.broker.url(), slots.to_string());
        let args = [url.as_str(), &name, &slots, journal.to_str().expect("UTF-8")];
        let log = cluster.broker.folder().join(format!("{name}.log"));
        let process = Process::start("asynq-torture-worker", args, log).await;
        let process = process.unwrap_or_else(|said| panic!("{name}: {said}"));
        Self { name, process, journal }
    }

    /// Takes its process for dead from now on.
    async fn kill9(&mut self) -> Duration {
        let at = now();
        self.process.kill9().await;
        at
    }

    fn life(&self, killed: Option<Duration>, steady: bool) -> Life {
        let journal = read(&self.journal);
        Life {
            killed,
            steady,
            journal,
        }
    }
}

/// Kills the broker and starts it again; says how long it took to serve, and to have the steady worker back.
async fn kill_broker(
    cluster: &mut Cluster,
    client: &Client,
    told: &mut Told,
    probes: &mut JoinSet<(Duration, Handle<u64>, End)>,
) -> (Kill, Duration, Duration) {
    let at = now();
    cluster.broker.kill9().await;
    let begun = now();
    cluster.broker.restart().await;
    let sent = now();
    let enqueue = client.enqueue(WORK, &Work::default()).series("probe");
    let handle = within("an answer after a restart", PATIENCE, enqueue.into_future()).await;
    let handle = handle.expect("the broker takes tasks in");
    let (task, acked) = (core_id(handle.id()), now());
    told.records.push((sent, Record::Asked(task)));
    told.records.push((acked, Record::Acknowledged(task, 0)));
    told.acked.push(Acked { task, sent, acked });
    probes.spawn(end_of(handle, false));
    eventually("the steady worker to be back", PATIENCE, || async {
        let workers = client.workers().await.ok()?;
        let is_back = |worker: &WorkerInfo| worker.name == "steady" && worker.state == "active";
        workers.iter().any(is_back).then_some(())
    })
    .await;
    let back = now() - begun;
    let back_in_grace = back < RESUME_GRACE;
    (Kill { at, back_in_grace }, acked - begun, back)
}

#[tokio::test]
async fn nothing_is_lost_done_twice_or_stuck_under_kills() {
    let size = size();
    let mut dice = dice("kills");
    let mut cluster = Cluster::start().await;
    let mut started = 0;
    let steady = Victim::start(&cluster, "steady".into(), 2 * SLOTS, &mut started).await;
    let mut victims = Vec::new();
    for n in 1..=WORKERS {
        victims.push(Victim::start(&cluster, format!("victim-{n}"), SLOTS, &mut started).await);
    }
    let began = now();
    let (allow, allowed) = watch::channel(0);
    let quota = Arc::new(Quota {
        next: AtomicU64::new(0),
        allowed,
    });
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let client = cluster.client().await;
        for _ in 0..IN_FLIGHT {
            callers.spawn(caller(
                client.clone(),
                format!("caller-{n}"),
                quota.clone(),
                dice.fork(),
            ));
        }
    }

    let mut faults: Vec<bool> = [true].repeat(size.broker_kills);
    faults.extend([false].repeat(size.worker_kills));
    for n in (1..faults.len()).rev() {
        faults.swap(n, dice.index(n + 1));
    }
    let probe = cluster.client().await;
    let (mut lives, mut kills, mut serving, mut backs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut all, mut probes) = (Told::default(), JoinSet::new());
    for (n, &is_broker) in faults.iter().enumerate() {
        allow.send_replace(size.tasks * (n as u64 + 1) / faults.len() as u64);
        sleep(dice.time(size.pause.clone())).await;
        if is_broker {
            let (kill, serves, back) = kill_broker(&mut cluster, &probe, &mut all, &mut probes).await;
            kills.push(kill);
            serving.push(serves);
            backs.push(back);
        } else {
            let victim = dice.index(WORKERS);
            let killed = victims[victim].kill9().await;
            lives.push(victims[victim].life(Some(killed), false));
            let name = victims[victim].name.clone();
            victims[victim] = Victim::start(&cluster, name, SLOTS, &mut started).await;
        }
    }
    drop(allow);
    let healed = now();
    let deadline = tokio::time::Instant::now() + ALL_DONE;
    while let Some(told) = timeout_at(deadline, callers.join_next())
        .await
        .expect("all tasks to end in time")
    {
        let told = told.expect("a caller gets what it asks for");
        all.records.extend(told.records);
        all.acked.extend(told.acked);
        all.handles.extend(told.handles);
    }
    while let Some(ended) = timeout_at(deadline, probes.join_next())
        .await
        .expect("all probes to end in time")
    {
        all.ended(ended);
    }
    let took = now() - healed;
    lives.push(steady.life(None, true));
    lives.extend(victims.iter().map(|victim| victim.life(None, false)));

    let found = end_of_all(&probe, &mut all).await;
    assert_eq!(found, all.handles.len());
    assert_eq!(found as u64, size.tasks + size.broker_kills as u64);
    let begun_late = begun_after_the_end(&all, &lives);
    let died = all
        .handles
        .iter()
        .filter(|(_, end)| end.state == StateName::Dead)
        .count();
    history(&all, &lives, healed)
        .check()
        .unwrap_or_else(|broken| panic!("{broken}"));
    let (tally, wrong) = judge(&lives, &kills, &all.acked);
    assert!(wrong.is_empty(), "{} runs were run again: {wrong:#?}", wrong.len());
    println!(
        "{found} tasks acknowledged, {} kills of the broker and {} of workers in {:.0?}: 0 lost, 0 ended twice, 0 stuck; \
         {died} that must not begin twice died with their workers; the last ended {took:.1?} after the last kill",
        size.broker_kills,
        size.worker_kills,
        healed - began,
    );
    println!("run again: {tally:?}; begun after the end was told: {begun_late}");
    println!(
        "from the start of the broker to its first acknowledgement: {}",
        Spread(serving.clone())
    );
    println!("to the steady worker's return: {}", Spread(backs));
    // Beside other tests the machine is too busy to judge by.
    if is_long() {
        assert!(serving.iter().all(|&serves| serves < SERVES), "{serving:?}");
        assert_eq!(begun_late, 0);
        // A few kills may have met none.
        assert!(tally.outlived > 0, "no run went on through a kill");
    }
}

/// Asks for the end of each task once more, and for all tasks there are.
async fn end_of_all(client: &Client, all: &mut Told) -> usize {
    let mut again = JoinSet::new();
    for share in all.handles.chunks(all.handles.len().div_ceil(CALLERS)) {
        let share = share.to_vec();
        again.spawn(async move {
            let mut told = Vec::with_capacity(share.len());
            for (handle, end) in share {
                told.push(end_of(handle, end.state == StateName::Dead).await);
            }
            told
        });
    }
    for (at, handle, end) in within("all ends once more", ALL_DONE, again.join_all())
        .await
        .into_iter()
        .flatten()
    {
        all.records.push((at, Record::Told(core_id(handle.id()), end)));
    }
    let (mut found, mut page) = (0, Some(String::new()));
    while let Some(next) = page {
        let listed = client.tasks().limit(10_000).page(next).await.expect("a page of tasks");
        for task in &listed.tasks {
            let state = match task.state {
                State::Succeeded => Some(StateName::Succeeded),
                State::Dead => Some(StateName::Dead),
                _ => None,
            };
            let end = state.map(|state| End { state, value: None });
            all.records.push((now(), Record::Found(core_id(task.id), end)));
        }
        found += listed.tasks.len();
        page = listed.next;
    }
    found
}

/// Runs that began more than a moment after a caller had been told of the end.
fn begun_after_the_end(all: &Told, lives: &[Life]) -> usize {
    let told = all.records.iter().filter_map(|(at, record)| match record {
        Record::Told(task, _) => Some((*task, *at)),
        _ => None,
    });
    let mut ends: BTreeMap<TaskId, Duration> = BTreeMap::new();
    for (task, at) in told {
        let first = ends.entry(task).or_insert(at);
        *first = at.min(*first);
    }
    let late = |line: &&Line| {
        let end = ends.get(&line.token.task).copied().unwrap_or(Duration::MAX);
        line.deed == Deed::Began && line.at > end.saturating_add(Duration::from_secs(1))
    };
    lives.iter().map(|life| life.journal.iter().filter(late).count()).sum()
}

/// All that was seen, in order.
fn history(all: &Told, lives: &[Life], healed: Duration) -> History {
    let mut records = all.records.clone();
    records.push((healed, Record::Healed));
    for (n, life) in lives.iter().enumerate() {
        let mut session = [0; 16];
        session[..8].copy_from_slice(&(n as u64).to_be_bytes());
        for line in &life.journal {
            let record = match line.deed {
                Deed::Began => Record::Began(line.token, SessionId(session)),
                Deed::Returned(value) => Record::Returned(line.token, value),
                Deed::Failed | Deed::Dropped => Record::Quit(line.token),
            };
            records.push((line.at, record));
        }
    }
    records.sort_by_key(|(at, _)| *at);
    let mut history = History::default();
    for (at, record) in records {
        history.push(at, record);
    }
    history
}
