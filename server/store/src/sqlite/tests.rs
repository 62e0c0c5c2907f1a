//! The suite every store passes, and what only a file can go through.

use std::sync::Mutex;
use std::time::Duration;

use asynq_core::Outcome;
use tempfile::TempDir;

use super::*;
use crate::conformance::samples::{finish, id, task, value};
use crate::conformance::{Owner, START, Shard};
use crate::limits::{CHECKPOINT_PAGES, PAGE_BYTES};

impl Shard for TempDir {
    fn connect(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::create_or_open(self.path()).expect("the database opens"))
    }
}

fn fresh() -> TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

fn database(dir: &TempDir) -> Connection {
    Connection::open(dir.path().join(FILE)).expect("the database opens")
}

fn insert(n: u64, bytes: usize) -> Change {
    let record = task(id(START, n), START, &value(bytes));
    Change::Insert {
        seq: Seq(n),
        record: Box::new(record),
        payload: value(bytes),
    }
}

fn open(dir: &TempDir) -> Result<(SqliteStore, Opened), StoreError> {
    let mut store = SqliteStore::create_or_open(dir.path())?;
    let opened = store.open(START, &mut |_, _| {})?;
    Ok((store, opened))
}

crate::conformance!(fresh());

/// The files as a crash leaves them, with the log cut anywhere: what is found
/// is a prefix of the batches, and all of them if the log is whole.
#[test]
fn a_crash_leaves_a_prefix_of_the_batches() {
    const BATCHES: u64 = 12;
    let dir = fresh();
    let mut owner = Owner::open(&dir, START);
    let file = dir.path().join(FILE);
    // The tables are there before anything else is.
    database(&dir)
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
        .expect("the log is copied");
    for n in 1..=BATCHES {
        owner.commit(&[insert(2 * n - 1, 100), insert(2 * n, 3_000)]);
    }
    let wal = fs::read(dir.path().join("asynq.db-wal")).expect("there is a log");
    let mut found = Vec::new();
    let cuts = (0..wal.len()).step_by(1_801).chain([wal.len()]);
    for cut in cuts {
        let crashed = fresh();
        fs::copy(&file, crashed.path().join(FILE)).expect("copied");
        fs::write(crashed.path().join("asynq.db-wal"), &wal[..cut]).expect("copied");
        let owner = Owner::open(&crashed, START);
        let batches = owner.opened.last_batch;
        let live: Vec<_> = owner.live.iter().map(|(seq, _)| seq.0).collect();
        assert_eq!(live, (1..=2 * batches).collect::<Vec<_>>(), "the log cut at byte {cut}");
        for n in 1..=batches {
            assert_eq!(
                owner.payload(Seq(2 * n)),
                Some(value(3_000)),
                "the log cut at byte {cut}"
            );
        }
        found.push(batches);
    }
    assert!(found.is_sorted());
    found.dedup();
    assert_eq!(found, (0..=BATCHES).collect::<Vec<_>>());
}

/// A process that is killed closes nothing.
#[test]
fn committed_batches_outlive_a_store_never_closed() {
    let dir = fresh();
    let (mut killed, opened) = open(&dir).expect("it opens");
    for n in 1..=50 {
        killed.commit(opened.epoch, n, &[insert(n, 100)]).expect("committed");
    }
    let (mut next, found) = open(&dir).expect("it opens beside one never closed");
    assert_eq!((found.last_batch, found.next_seq), (50, Seq(51)));
    let late = killed.commit(opened.epoch, 51, &[insert(51, 100)]);
    assert!(matches!(late, Err(StoreError::Deposed { stored, held }) if stored > held));
    next.commit(found.epoch, 51, &[insert(51, 100)])
        .expect("the place is free");
}

/// Nothing of the batch is there, and it can be committed again.
#[test]
fn a_full_disk_is_told_apart_and_got_over() {
    let dir = fresh();
    let (mut store, opened) = open(&dir).expect("it opens");
    store.commit(opened.epoch, 1, &[insert(1, 100)]).expect("committed");
    let limit = |store: &SqliteStore, pages: u32| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        store
            .connection
            .query_row(&pragma, (), |_| Ok(()))
            .expect("the limit is set");
    };
    limit(&store, 20);
    let large = [insert(2, 100), insert(3, 1_000_000)];
    match store.commit(opened.epoch, 2, &large) {
        Err(StoreError::Full(what)) => assert!(what.contains("free space"), "{what}"),
        other => panic!("the disk is full, not {other:?}"),
    }
    store
        .commit(opened.epoch, 2, &[insert(2, 100)])
        .expect("a small batch still fits");
    limit(&store, 1_000_000);
    store
        .commit(opened.epoch, 3, &[insert(3, 1_000_000)])
        .expect("there is space again");
    assert_eq!(open(&dir).expect("it opens").1.next_seq, Seq(4));
}

/// Whatever failed may have left the file in doubt: only a new process knows.
#[test]
fn after_a_failure_nothing_is_tried_again() {
    let dir = fresh();
    let (mut store, opened) = open(&dir).expect("it opens");
    assert!(matches!(store.commit(opened.epoch, 9, &[]), Err(StoreError::Failed(_))));
    let again = store
        .commit(opened.epoch, 1, &[])
        .expect_err("nothing goes any more")
        .to_string();
    assert!(
        again.contains("batch 9") && again.contains("start the broker again"),
        "{again}"
    );
    assert!(store.prune(opened.epoch, START, 1).is_err() && store.open(START, &mut |_, _| {}).is_err());
}

/// Gives a lock back when the store says that it waits for it.
struct GivesBack(Mutex<Option<Connection>>);

impl tracing::Subscriber for GivesBack {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn event(&self, _: &tracing::Event<'_>) {
        drop(self.0.lock().expect("no test panicked with it").take());
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
    fn enter(&self, _: &tracing::Id) {}
    fn exit(&self, _: &tracing::Id) {}
}

#[test]
fn a_place_is_taken_once() {
    let dir = fresh();
    let (mut store, opened) = open(&dir).expect("opens");
    store.commit(opened.epoch, 1, &[insert(1, 10)]).expect("committed");
    let twice: Vec<_> = (2..=70).chain([1]).map(|n| insert(n, 10)).collect();
    let done = store.commit(opened.epoch, 2, &twice);
    assert!(matches!(done, Err(StoreError::Failed(_))), "{done:?}");
    drop(store);
    assert_eq!(open(&dir).expect("opens").1.next_seq, Seq(2));
}

/// Nothing moves in a page for the end of an ordinary task.
#[test]
fn an_end_takes_the_place_of_what_stood_there() {
    for (arguments, result) in [
        (100, 100),
        (10, 10),
        (1_500, 1_500),
        (100, 50),
        (70, 40),
        (2_000, 1_950),
    ] {
        let dir = fresh();
        let (mut store, opened) = open(&dir).expect("opens");
        store
            .commit(opened.epoch, 1, &[insert(1, arguments)])
            .expect("committed");
        let bytes = || -> i64 {
            let all = "SELECT sum(payload) FROM dbstat WHERE name = 'tasks'";
            database(&dir).query_row(all, (), |row| row.get(0)).expect("counted")
        };
        let new = bytes();
        let mut record = task(id(START, 1), START, &value(arguments));
        record.grant.epoch = opened.epoch;
        let mut result = value(result);
        result.content_type = "".into();
        let kept = Some((result.clone(), START));
        let end = finish(Seq(1), record, Outcome::Succeeded, START, kept, START);
        store.commit(opened.epoch, 2, &[end]).expect("committed");
        let result = result.data.len();
        assert_eq!(bytes(), new, "{arguments} bytes of arguments, {result} of result");
    }
}

/// Somebody looks around with the `sqlite3` shell: nothing was written by then,
/// so nothing has failed.
#[test]
fn a_lock_another_program_holds_for_a_while_is_waited_for() {
    let dir = fresh();
    let (mut store, opened) = open(&dir).expect("opens");
    let tries = Duration::from_millis(1);
    store.connection.busy_timeout(tries).expect("set");
    let locked = |step: &mut dyn FnMut()| {
        let other = database(&dir);
        other.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
        let other = GivesBack(Mutex::new(Some(other)));
        tracing::subscriber::with_default(other, step);
    };
    locked(&mut || store.commit(opened.epoch, 1, &[insert(1, 10)]).expect("committed"));
    locked(&mut || drop(store.prune(opened.epoch, START, 100).expect("pruned")));
    drop(store);
    assert_eq!(open(&dir).expect("opens").1.last_batch, 1);
}

#[test]
fn a_damaged_record_is_named() {
    let dir = fresh();
    Owner::open(&dir, START).commit(&[insert(1, 1), insert(2, 1)]);
    let change = "UPDATE tasks SET record = CAST(substr(record, 1, length(record) - 1) AS BLOB) WHERE seq = 2";
    database(&dir).execute(change, ()).expect("damaged");
    match open(&dir) {
        Err(StoreError::Failed(what)) => assert!(what.contains("task 2"), "{what}"),
        other => panic!("a damaged record is noticed: {other:?}"),
    }
    let change = "UPDATE tasks SET record = CAST(x'63' || substr(record, 2) AS BLOB) WHERE seq = 2";
    database(&dir).execute(change, ()).expect("changed");
    assert!(matches!(open(&dir), Err(StoreError::Incompatible(what)) if what.contains("format 99")));
}

/// Of the versions before keys, and before settings of queues. The epoch was the time
/// of the last open then.
#[test]
fn an_older_database_is_brought_up_to_date() {
    for (version, older) in [
        (1, "DROP TABLE queue_settings; DROP TABLE keys;"),
        (2, "DROP TABLE queue_settings;"),
    ] {
        older_is_brought_up_to_date(version, older);
    }
}

fn older_is_brought_up_to_date(version: u32, older: &str) {
    let dir = fresh();
    Owner::open(&dir, START).commit(&[insert(1, 1)]);
    database(&dir)
        .execute_batch(&format!("{older} UPDATE meta SET version = {version}, latest = 0;"))
        .expect("made older");
    let mut owner = Owner::open(&dir, START);
    assert_eq!(
        (owner.live.len(), owner.opened.latest),
        (1, START),
        "what was there is there"
    );
    let mut record = task(id(START, 2), START, &value(1));
    let key = asynq_core::Key::new("k").expect("a key");
    record.options.key = Some(key.clone());
    let seq = owner.insert(&record, &value(1));
    let owner = Owner::open(&dir, START);
    let found = owner.reader().keyed(&record.queue, &key).expect("a look-up");
    assert_eq!(found, Some((seq, record)));
}

#[test]
fn a_database_not_ours_is_left_alone() {
    let dir = fresh();
    drop(open(&dir).expect("it opens"));
    database(&dir)
        .execute("UPDATE meta SET version = 4", ())
        .expect("changed");
    assert!(matches!(open(&dir), Err(StoreError::Incompatible(what)) if what.contains("schema version 4")));

    let dir = fresh();
    database(&dir).execute("CREATE TABLE theirs (x)", ()).expect("made");
    assert!(matches!(open(&dir), Err(StoreError::Incompatible(what)) if what.contains("another program")));
    assert_eq!(database(&dir).execute("INSERT INTO theirs VALUES (1)", ()), Ok(1));

    let dir = fresh();
    fs::write(dir.path().join(FILE), "notes to myself\n".repeat(500)).expect("written");
    assert!(matches!(open(&dir), Err(StoreError::Incompatible(what)) if what.contains("not a SQLite database")));
}

/// The log is copied between commits, so it stays short, and its file too.
#[test]
fn the_log_stays_short() {
    let dir = fresh();
    let (mut store, opened) = open(&dir).expect("it opens");
    let mib = 1024 * 1024;
    for n in 1..=15 {
        store.commit(opened.epoch, n, &[insert(n, 4 * mib)]).expect("committed");
        let length = fs::metadata(dir.path().join("asynq.db-wal"))
            .expect("there is a log")
            .len();
        let most = u64::from(CHECKPOINT_PAGES * PAGE_BYTES) + 5 * mib as u64;
        assert!(length <= most, "{length} bytes after {n} commits of 4 MiB");
    }
}

/// Large values leave nothing behind, the index neither, and the file gives
/// space back.
#[test]
fn what_is_forgotten_leaves_no_trace() {
    let dir = fresh();
    let (mut store, opened) = open(&dir).expect("it opens");
    let seconds = |n| START + Duration::from_secs(n);
    let large = 4 * 1024 * 1024;
    for n in 1..=30 {
        let record = task(id(START, n), START, &value(large));
        let outcome = if n % 2 == 0 {
            Outcome::Succeeded
        } else {
            Outcome::Dead(asynq_core::DeadReason::Rejected)
        };
        let result = Some((value(5_000), seconds(1)));
        let end = finish(Seq(n), record, outcome, START, result, seconds(2));
        // Together they would leave less behind.
        for (batch, change) in [(2 * n - 1, insert(n, large)), (2 * n, end)] {
            store.commit(opened.epoch, batch, &[change]).expect("committed");
        }
    }
    let count = |what: &str| -> i64 { database(&dir).query_row(what, (), |row| row.get(0)).expect("counted") };
    let blobs = || count("SELECT count(*) FROM blobs");
    assert_eq!(blobs(), 45, "30 results, and the arguments of 15 dead tasks");
    store.prune(opened.epoch, seconds(1), 100).expect("swept");
    assert_eq!(blobs(), 15);
    let before = count("PRAGMA page_count");
    for _ in 0..20 {
        store.prune(opened.epoch, seconds(2), 100).expect("swept");
    }
    assert_eq!((blobs(), count("SELECT count(*) FROM tasks")), (0, 0));
    let index = store.index.read().expect("no panic");
    assert!((1..=30).all(|n| index.candidates(id(START, n)).is_empty()));
    let after = count("PRAGMA page_count");
    assert!(after < before, "{after} pages of {before} are left");
}

#[test]
fn the_file_is_set_up_as_promised() {
    let dir = fresh();
    let (store, _) = open(&dir).expect("it opens");
    let pragma = |name: &str| -> String {
        store
            .connection
            .query_row(&format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"), (), |row| {
                row.get(0)
            })
            .expect("a pragma")
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2");
    assert_eq!(pragma("auto_vacuum"), "2");
    assert_eq!(pragma("application_id"), schema::APPLICATION_ID.to_string());
}
