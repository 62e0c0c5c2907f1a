//! A disk that is full, and one that fails: brokers on a file system of their own,
//! and under strace, which has their syncs fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use asynq_client::{Client, Handle, Task};
use asynq_tests::{Broker, PATIENCE, Process, WorkerHere, eventually, get, program, run, within};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long after space has come back tasks are taken in again, at most.
const REOPENS: Duration = Duration::from_secs(5);
/// From a failed sync to the end of the process, at most.
const ENDS: Duration = Duration::from_secs(1);
/// What nobody runs.
const IDLE: Task<String, ()> = Task::new("nobody-runs-it");

async fn start(by: &str, args: &[&str], folder: &TempDir) -> Process {
    let log = folder.path().join("asynqd.log");
    let process = Process::start_at(Path::new(by), args, log).await;
    process.unwrap_or_else(|said| panic!("{by}: {said}"))
}

async fn connect(broker: &Process) -> Client {
    let url = format!("http://{}", Broker::address_in(broker.ready()));
    Client::connect(&url).await.expect("the broker is there")
}

/// A broker whose data lie on a disk of 16 MiB that only it sees: ext4 on an image, or a
/// tmpfs where only root may have the one.
async fn on_a_small_disk(folder: &TempDir, is_root: bool) -> Process {
    let disk = folder.path().join("disk");
    let image = folder.path().join("image");
    fs::create_dir_all(&disk).expect("a place to mount it");
    let mount = if is_root {
        if !image.exists() {
            let file = fs::File::create(&image).expect("an image");
            file.set_len(16 * 1024 * 1024).expect("it has its size");
            let made = Command::new("/usr/sbin/mkfs.ext4").arg("-q").arg(&image).status();
            assert!(made.expect("e2fsprogs is installed").success());
        }
        format!("mount -o loop '{}' '{}'", image.display(), disk.display())
    } else {
        format!("mount -t tmpfs -o size=16m none '{}'", disk.display())
    };
    // What is mounted must not be seen outside. In a chroot whose root is no mount
    // this cannot be said, and is so already.
    let script = format!(
        "mount --make-rprivate / 2>/dev/null; {mount} && exec '{}' --listen 127.0.0.1:0 --http 127.0.0.1:0 --data-dir '{}/data'",
        program("asynqd").display(),
        disk.display()
    );
    let mut args = vec!["--mount", "--propagation", "unchanged", "sh", "-c", &script];
    if !is_root {
        args.splice(..0, ["--user", "--map-root-user"]);
    }
    start("/usr/bin/unshare", &args, folder).await
}

/// The disk of a broker, seen from here.
fn disk_of(broker: &Process, folder: &TempDir) -> PathBuf {
    let disk = folder.path().join("disk");
    let disk = disk.strip_prefix("/").expect("an absolute path");
    Path::new("/proc")
        .join(broker.pid().to_string())
        .join("root")
        .join(disk)
}

/// Enqueues until it is refused for want of space.
async fn fill(client: &Client) -> Vec<Handle<()>> {
    let mut accepted = Vec::new();
    let text = "x".repeat(20_000);
    loop {
        match client.enqueue(IDLE, &text).await {
            Ok(handle) => accepted.push(handle),
            Err(error) => {
                let is = (error.reason(), error.is_retryable(), error.is_indefinite());
                assert_eq!(is, ("DISK_FULL", true, false), "{error}");
                let wait = error.retry_after().expect("it says when to try again");
                assert!((1..=5).contains(&wait.as_secs()), "{wait:?}");
                assert!(error.to_string().contains("MiB are free"), "{error}");
                return accepted;
            }
        }
        assert!(accepted.len() < 2_000, "the disk is larger than it should be");
    }
}

#[tokio::test]
async fn on_a_full_disk_tasks_end_and_new_ones_wait_for_space() {
    let folder = tempfile::tempdir().expect("a folder");
    let is_root = rustix::process::geteuid().is_root();
    let mut broker = on_a_small_disk(&folder, is_root).await;
    let url = format!("http://{}", Broker::address_in(broker.ready()));
    let client = connect(&broker).await;
    let worker = WorkerHere::start(&url, 64).await;
    let dead = client.enqueue(WorkerHere::PANICS, &()).await.expect("there is space");
    let ended = within("its end", PATIENCE, dead.result()).await;
    assert_eq!(ended.expect_err("it panics").reason(), "ERROR");
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(client.enqueue(WorkerHere::HELD, &()).await.expect("there is space"));
    }
    eventually("the runs to begin", PATIENCE, || async {
        (worker.runs().len() == held.len()).then_some(())
    })
    .await;
    let ballast = disk_of(&broker, &folder).join("ballast");
    fs::write(&ballast, vec![1; 7 * 1024 * 1024]).expect("there is space for the ballast");
    let mut accepted = fill(&client).await;
    assert!(accepted.len() > 10, "only {} were accepted", accepted.len());
    // Something else takes the rest, but for what is put by.
    let rest = disk_of(&broker, &folder).join("rest");
    let full = fs::write(&rest, vec![1; 16 * 1024 * 1024]).expect_err("the disk is full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let http = broker.ready().split_once("(http ").expect("it has HTTP").1;
    let http = http.trim_end_matches(')').parse().expect("an address");
    // A refusal may come of what was taken in since the last look; the figure comes of a look.
    eventually("the metrics to say so", REOPENS, || async {
        let metrics = get(http, "/metrics").await.2;
        metrics.contains("\nasynq_store_full 1\n").then_some(())
    })
    .await;
    let refused = run("asynq", &["--broker", &url, "enqueue", "nobody-runs-it", "1"]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(6), ""), "{}", refused.err);
    assert!(refused.err.starts_with("asynq: DISK_FULL: "), "{}", refused.err);
    for handle in accepted.drain(..5) {
        within("a cancel", PATIENCE, handle.cancel()).await.expect("cancelled");
    }
    let refused = client.retry(dead.id()).await.expect_err("it would be a new task");
    assert_eq!(refused.reason(), "DISK_FULL", "{refused}");
    worker.open_the_gate();
    for handle in &held {
        within("a result", PATIENCE, handle.result())
            .await
            .expect("it succeeds");
    }
    assert!(
        client.enqueue(IDLE, &String::new()).await.is_err(),
        "the disk is still full"
    );

    for file in [&rest, &ballast] {
        fs::remove_file(file).expect("it was there");
    }
    accepted.push(
        eventually("tasks to be taken in again", REOPENS, || async {
            client.enqueue(IDLE, &String::new()).await.ok()
        })
        .await,
    );
    assert!(client.retry(dead.id()).await.expect("there is space").revived);
    assert!(broker.log().contains("no new tasks are taken in"));
    assert!(broker.log().contains("there is space on the disk again"));
    if is_root {
        broker.kill9().await;
        broker = on_a_small_disk(&folder, is_root).await;
        let client = connect(&broker).await;
        for handle in accepted.iter().map(Handle::id).chain(held.iter().map(Handle::id)) {
            client.show(handle).await.expect("what was acknowledged is kept");
        }
    }
    drop(worker);
}

/// The time of the first sync that failed, in seconds since 1970, by strace's log.
fn failed_at(log: &Path) -> Option<f64> {
    let log = fs::read_to_string(log).ok()?;
    let line = log.lines().find(|line| line.contains("EIO"))?;
    line.split_whitespace().find(|word| word.contains('.'))?.parse().ok()
}

fn now() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Counted per thread: opening the store takes fewer than 20.
async fn fail_a_sync(nth: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, data) = (folder.path().join("strace.log"), folder.path().join("data"));
    let (log, data) = (log.to_str().expect("UTF-8"), data.to_str().expect("UTF-8"));
    let asynqd = program("asynqd");
    let asynqd = asynqd.to_str().expect("UTF-8");
    let broker = ["--listen", "127.0.0.1:0", "--data-dir", data];
    let inject = format!("inject=fsync,fdatasync:error=EIO:when={nth}+");
    let strace = [
        "-f",
        "-ttt",
        "-o",
        log,
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        &inject,
        asynqd,
    ];
    let mut failing = start("strace", &[&strace[..], &broker].concat(), &folder).await;
    let client = connect(&failing).await;
    let (mut acknowledged, mut last) = (Vec::new(), 0.0);
    // The SDK would go on trying: it is left once the broker has ended.
    while let Ok(Ok(handle)) = timeout(ENDS, client.enqueue(IDLE, &String::new())).await {
        acknowledged.push(handle.id());
        last = now();
        assert!(acknowledged.len() <= 10 * nth, "no sync failed");
    }
    let status = failing.end(PATIENCE).await;
    assert_eq!(status.code(), Some(1), "{}", failing.log());
    let ended = fs::metadata(log)
        .and_then(|log| log.modified())
        .expect("strace wrote a log");
    let ended = ended.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let failed = failed_at(Path::new(log)).expect("a sync failed");
    assert!(
        ended - failed < ENDS.as_secs_f64(),
        "it ended {} s after the sync failed",
        ended - failed
    );
    // Each was sent after the one before was acknowledged.
    assert!(last < failed, "acknowledged {} s after a sync failed", last - failed);

    let again = start(asynqd, &broker, &folder).await;
    let client = connect(&again).await;
    for id in acknowledged {
        client.show(id).await.expect("what was acknowledged is kept");
    }
}

/// `ASYNQ_TORTURE=1` (`make torture`) has a hundred rounds.
#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_the_broker_ends() {
    let rounds = if std::env::var_os("ASYNQ_TORTURE").is_some_and(|yes| yes == "1") {
        100
    } else {
        1
    };
    for round in 0..rounds {
        fail_a_sync(20 + round % 20).await;
    }
}
