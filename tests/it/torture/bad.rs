//! Bad tasks among good ones: each ends with its own reason, and no good one with them.

use std::fs;
use std::time::Duration;

use asynq_client::{Client, Error, Payload, State, TaskInfo};
use asynq_tests::dice::Dice;
use asynq_tests::{Cluster, PATIENCE, Process, within};
use serde_json::json;
use tokio::task::JoinSet;

use super::{dice, is_long};

const SLOTS: usize = 8;
/// Enqueues and waits at a time.
const IN_FLIGHT: usize = 256;

/// A program to go wrong, and what is to be said of it.
struct Bad {
    name: &'static str,
    /// Its shell script.
    script: &'static str,
    retries: u32,
    /// The reason, as an error's word, and part of its message.
    reason: &'static str,
    says: &'static str,
    /// Attempts, failures, timeouts, crashes.
    counts: [u32; 4],
    /// What it has written to stderr is kept.
    has_trace: bool,
}

const fn bad(name: &'static str, script: &'static str, reason: &'static str, says: &'static str) -> Bad {
    Bad {
        name,
        script,
        retries: 0,
        reason,
        says,
        counts: [1, 1, 0, 0],
        has_trace: true,
    }
}

const KINDS: [Bad; 10] = [
    Bad {
        counts: [3, 0, 0, 3],
        ..bad("segfault", "kill -SEGV $$", "POISON", "killed by signal 11")
    },
    Bad {
        counts: [3, 0, 0, 3],
        ..bad("abort", "kill -ABRT $$", "POISON", "killed by signal 6")
    },
    Bad {
        counts: [3, 0, 0, 3],
        ..bad("killed", "kill -KILL $$", "POISON", "killed by signal 9")
    },
    Bad {
        counts: [1, 0, 1, 0],
        has_trace: false,
        ..bad("loops", "while :; do :; done", "TIMEOUT", "")
    },
    Bad {
        counts: [1, 0, 1, 0],
        has_trace: false,
        ..bad("deaf", "trap '' TERM; while :; do sleep 0.05; done", "TIMEOUT", "")
    },
    bad("garbled", "echo not JSON", "ERROR", "bad_output"),
    bad("mute", "exit 0", "ERROR", "bad_output"),
    Bad {
        retries: 5,
        ..bad("terminal", "exit 65", "ERROR", "code 65")
    },
    Bad {
        retries: 2,
        counts: [3, 3, 0, 0],
        ..bad("retryable", "exit 75", "ERROR", "code 75")
    },
    Bad {
        has_trace: false,
        ..bad("rejected", "echo '{nobody}'", "REJECTED", "no member \"nobody\"")
    },
];

fn worker_toml(url: &str) -> String {
    let mut text = format!("broker = \"{url}\"\nname = \"exec\"\nslots = {SLOTS}\n");
    text += "[task.good]\nkind = \"exec\"\ncmd = [\"cat\"]\nstdin = \"json\"\n";
    for Bad { name, script, .. } in &KINDS {
        text +=
            &format!("[task.{name}]\nkind = \"exec\"\ncmd = [\"sh\", \"-c\", \"\"\"echo why >&2; {script}\"\"\"]\n");
    }
    text
}

/// A good one, or a bad one of this kind.
async fn end_of(client: Client, number: u64, kind: Option<&'static Bad>) -> bool {
    let args = Payload::json(&json!({ "number": number })).expect("JSON");
    let Some(kind) = kind else {
        let handle = client.enqueue_raw("good", args.clone()).await.expect("it is accepted");
        assert_eq!(handle.result().await.expect("a good one succeeds"), args);
        let shown = client.show(handle.id()).await.expect("it is known");
        let TaskInfo { attempt, losses, .. } = shown;
        assert_eq!((shown.state, attempt, losses), (State::Succeeded, 1, 0));
        return true;
    };
    let enqueue = client.enqueue_raw(kind.name, args).timeout(Duration::from_secs(2));
    let handle = enqueue.retries(kind.retries).await.expect("it is accepted");
    let error = handle.result().await.expect_err("a bad one does not succeed");
    let shown = client.show(handle.id()).await.expect("it is known");
    let said = format!("{}: {error}, {shown:?}", kind.name);
    assert_eq!((error.reason(), shown.state), (kind.reason, State::Dead), "{said}");
    assert_eq!(shown.reason.as_deref(), Some(&kind.reason.to_lowercase()[..]), "{said}");
    let counts = [shown.attempt, shown.failures, shown.timeouts, shown.crashes];
    assert_eq!((counts, shown.losses), (kind.counts, 0), "{said}");
    assert!(error.to_string().contains(kind.says), "{said}");
    if kind.has_trace {
        assert!(matches!(&error, Error::Dead { .. }), "{said}");
        let trace = shown.error.map(|failure| failure.trace).unwrap_or_default();
        assert_eq!(trace, "why\n", "{said}");
    }
    false
}

/// All of them, in any order.
fn shuffled(dice: &mut Dice, good: usize, each: usize) -> Vec<Option<&'static Bad>> {
    let mut all: Vec<_> = [None].repeat(good);
    for kind in &KINDS {
        all.extend([Some(kind)].repeat(each));
    }
    for n in (1..all.len()).rev() {
        all.swap(n, dice.index(n + 1));
    }
    all
}

#[tokio::test]
async fn each_bad_task_ends_with_its_own_reason_and_every_good_one_well() {
    let (good, each) = if is_long() { (5_000, 10) } else { (200, 1) };
    let mut dice = dice("bad tasks");
    let cluster = Cluster::start().await;
    let file = cluster.broker.folder().join("worker.toml");
    fs::write(&file, worker_toml(&cluster.broker.url())).expect("it can be written");
    let log = cluster.broker.folder().join("worker.log");
    let worker = Process::start("asynq-worker", ["--config".as_ref(), file.as_os_str()], log).await;
    let worker = worker.unwrap_or_else(|said| panic!("asynq-worker: {said}"));
    let client = cluster.client().await;
    let session = async || client.workers().await.expect("they are listed")[0].session.clone();
    let before = session().await;

    let (mut running, mut well, mut ended) = (JoinSet::new(), 0, 0);
    let mut all = shuffled(&mut dice, good, each).into_iter().zip(0..);
    loop {
        while running.len() < IN_FLIGHT
            && let Some((kind, number)) = all.next()
        {
            running.spawn(end_of(client.clone(), number, kind));
        }
        let next = within("the next end", 4 * PATIENCE, running.join_next()).await;
        let Some(next) = next else { break };
        ended += 1;
        well += usize::from(next.expect("it ends as it should"));
    }
    let bad = KINDS.len() * each;
    assert_eq!((ended, well), (good + bad, good));
    assert_eq!(session().await, before, "the worker was started anew");
    let queue = client
        .queues()
        .await
        .expect("they are listed")
        .pop()
        .expect("there is one");
    assert_eq!(
        [queue.scheduled, queue.ready, queue.running, queue.succeeded, queue.dead],
        [0, 0, 0, good as u64, bad as u64]
    );
    println!(
        "{bad} bad tasks of {} kinds among {good} good ones: each dead with its own reason, counts and stderr, every good one \
         done at its first attempt, the worker (process {}) in its first session",
        KINDS.len(),
        worker.pid()
    );
}
