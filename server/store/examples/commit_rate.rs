//! How many tasks per second the SQLite store takes: enqueue and finish with a
//! small result, in batches, each made durable, with the sweep running along.
//!
//! ```text
//! cargo run -p asynq-store --example commit_rate -- [SECONDS] [DIR]
//! ```
//!
//! `DIR` is where a temporary database is made: name one on the disk to measure.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use asynq_core::{
    Change, Counters, Epoch, Finish, Grant, Name, Options, Outcome, Payload, ResultInfo, Seq, State, TaskId,
    TaskRecord, Timestamp,
};
use asynq_store::{SqliteStore, Store};
use bytes::Bytes;

/// How long a result and a task are remembered, in the time the batches tell.
const TTL: Duration = Duration::from_millis(500);
/// Batches from one sweep to the next.
const SWEEP_EVERY: u64 = 16;
/// Tasks live at a time.
const DEPTH: u64 = 4_096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let length = Duration::from_secs(arguments.next().map_or(Ok(5), |seconds| seconds.parse())?);
    let base = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
    for size in [256, 1_024] {
        let dir = base.join(format!("asynq-commit-rate-{}", process::id()));
        let measured = measure(&dir, size, length);
        fs::remove_dir_all(&dir)?;
        let Measured {
            tasks,
            commits,
            kept,
            elapsed,
            file_bytes,
        } = measured?;
        let seconds = elapsed.as_secs_f64();
        println!(
            "batch {size:>5}: {:>8.0} tasks/s  {:>6.2} µs/task  {:>6.0} commits/s  {kept} tasks kept in {} MiB",
            tasks as f64 / seconds,
            seconds * 1e6 / tasks as f64,
            commits as f64 / seconds,
            file_bytes / 1_048_576,
        );
    }
    Ok(())
}

struct Measured {
    /// Enqueued and finished.
    tasks: u64,
    commits: u64,
    kept: u64,
    elapsed: Duration,
    file_bytes: u64,
}

/// Batches of changes: half enqueue, half finish what came [`DEPTH`] before.
fn measure(dir: &Path, size: u64, length: Duration) -> Result<Measured, Box<dyn Error>> {
    let start = Timestamp::from_millis(1_800_000_000_000);
    let mut store = SqliteStore::create_or_open(dir)?;
    let opened = store.open(start, &mut |_, _| {})?;
    let begun = Instant::now();
    let now = || start + begun.elapsed();
    let (mut next, mut done, mut forgotten, mut batch) = (1, 1, 0, 0);
    let template = record(start)?;
    let payload = Payload {
        content_type: "".into(),
        data: Bytes::from_static(&[b'x'; 100]),
    };
    let mut changes = Vec::new();
    while begun.elapsed() < length {
        changes.clear();
        let at = now();
        for _ in 0..size / 2 {
            let record = TaskRecord {
                id: id(at, next),
                enqueued_at: at,
                ..template.clone()
            };
            changes.push(Change::Insert {
                seq: Seq(next),
                record: Box::new(record),
                payload: payload.clone(),
            });
            next += 1;
        }
        while next - done > DEPTH {
            changes.push(finish(
                Seq(done),
                TaskRecord {
                    id: id(at, done),
                    ..template.clone()
                },
                at,
                &payload,
            ));
            done += 1;
        }
        batch += 1;
        store.commit(opened.epoch, batch, &changes)?;
        if batch % SWEEP_EVERY == 0 {
            let pruned = store.prune(opened.epoch, now(), usize::try_from(4 * SWEEP_EVERY * size)?)?;
            forgotten += pruned.forgotten.values().sum::<u64>();
        }
    }
    let elapsed = begun.elapsed();
    let file_bytes = fs::metadata(dir.join("asynq.db"))?.len();
    Ok(Measured {
        tasks: done - 1,
        commits: batch,
        kept: next - 1 - forgotten,
        elapsed,
        file_bytes,
    })
}

fn record(enqueued_at: Timestamp) -> Result<TaskRecord, Box<dyn Error>> {
    Ok(TaskRecord {
        id: id(enqueued_at, 0),
        name: Name::new("resize")?,
        queue: Name::new("default")?,
        series: Name::or_empty("")?,
        options: Options::default(),
        enqueued_at,
        start_at: None,
        payload_bytes: 100,
        content_type: "".into(),
        digest: 0x0123_4567_89ab_cdef,
        state: State::Ready,
        grant: Grant::default(),
        counters: Counters::default(),
        failure: None,
        notes: None,
        called_by: None,
        checkpoint: None,
    })
}

fn finish(seq: Seq, mut record: TaskRecord, at: Timestamp, result: &Payload) -> Change {
    record.grant = Grant {
        epoch: Epoch(at.as_micros()),
        attempt: 1,
    };
    record.state = State::Finished(Finish {
        outcome: Outcome::Succeeded,
        at,
        started_at: Some(at),
        worker: Some(record.name.clone()),
        result: Some(ResultInfo {
            bytes: 100,
            content_type: "".into(),
            until: at + TTL,
        }),
        replaced_by: None,
        purged: false,
    });
    Change::Finish {
        seq,
        record: Box::new(record),
        result: Some(result.clone()),
        forget_at: at + 2 * TTL,
    }
}

/// A `UUIDv7`, but for its version.
fn id(at: Timestamp, n: u64) -> TaskId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&at.as_millis().to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    TaskId(bytes)
}
