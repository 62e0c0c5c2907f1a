//! Bad input: refused, named, and nothing else is harmed.

use std::future::IntoFuture;
use std::path::Path;

use asynq_client::{DeadReason, Error};
use asynq_tests::{Broker, Cluster, PATIENCE, WorkerHere, run, within};

#[tokio::test]
async fn a_wrong_command_line_exits_with_2_and_is_named() {
    let cluster = Cluster::start().await;
    for (args, named) in [
        (&["call", "echo", "{\"a\":"][..], "the argument is not JSON"),
        (&["call", "echo", "@/no/such/file"], "/no/such/file"),
        (&["call", "echo", "--colour"], "--colour"),
        (&["call", "echo", "--niceness", "21"], "21 is not in -20..=20"),
        (&["call", "echo", "--niceness", "nice"], "'nice'"),
        (&["call", "echo", "--delay", "soon"], "'soon'"),
        (&["call", "echo", "--delay=-1s"], "'-1s'"),
        (&["call", "echo", "--at", "tomorrow"], "'tomorrow'"),
        (&["call", "echo", "--retries", "1000"], "1000 is not in 0..=999"),
        (&["call", "echo", "1", "2"], "'2'"),
        (&["task", "show", "42"], "'42'"),
        (&["task", "cancel"], "--all"),
        (&["queue", "drop"], "'drop'"),
        (&["queue", "ls", "-o", "yaml"], "'yaml'"),
        (&["queue", "ls", "--broker", "nonsense"], "\"nonsense\""),
    ] {
        let ended = cluster.run(args).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.err
        );
        assert!(
            ended.err.starts_with("asynq: ") && ended.err.contains(named),
            "{args:?}: {}",
            ended.err
        );
    }
    assert_eq!(
        cluster.ok(&["queue", "ls", "-o", "json"]).await,
        "[]",
        "nothing was stored"
    );
}

#[tokio::test]
async fn a_wrong_setting_of_a_daemon_exits_with_2_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let unknown_key = file("unknown.toml", "slotz = 3\n");
    let wrong_value = file("wrong.toml", "log = \"verse\"\n");
    let no_toml = file("no.toml", "log: text\n");
    for (program, args, named) in [
        ("asynqd", &["--slotz"][..], "--slotz"),
        ("asynqd", &["--listen", "7740"], "7740"),
        ("asynqd", &["--store", "tape"], "tape"),
        ("asynqd", &["--config", "/no/such/file"], "/no/such/file"),
        ("asynqd", &["--config", &unknown_key], "slotz"),
        ("asynqd", &["--config", &wrong_value], "verse"),
        ("asynqd", &["--config", &no_toml], "no.toml"),
        ("asynq-worker", &["--builtins", "--slotz"], "--slotz"),
        (
            "asynq-worker",
            &["--builtins", "--slots", "0"],
            "slots must be 1 to 65536",
        ),
        ("asynq-worker", &["--builtins", "--name", "a b"], "\"a b\""),
        ("asynq-worker", &["--builtins", "--broker", "here"], "\"here\""),
        ("asynq-worker", &["--config", &unknown_key], "slotz"),
        ("asynq-worker", &["--config", &no_toml], "no.toml"),
    ] {
        let ended = run(program, args).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(2), ""),
            "{program} {args:?}: {}",
            ended.err
        );
        assert!(ended.err.contains(named), "{program} {args:?}: {}", ended.err);
    }
}

#[tokio::test]
async fn a_second_broker_on_the_same_data_is_told_who_has_it() {
    let mut broker = Broker::start().await;
    let data = broker.data_dir();
    let second = ["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let ended = run("asynqd", &second).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{}", ended.err);
    let holder = format!(
        "in use by asynqd, pid {}, listening on {}",
        broker.process().pid(),
        broker.address()
    );
    assert!(ended.err.contains(&holder), "{}", ended.err);
    // The first has not noticed.
    broker.stop().await;
}

/// A broker's database as it leaves it, and what another one says of it once it is spoiled.
async fn start_on_spoiled(spoil: impl FnOnce(&Path)) -> String {
    let mut broker = Broker::start().await;
    broker.stop().await;
    let file = broker.data_dir().join("asynq.db");
    // Without its log, which has all that is not in it yet.
    sql(&file, "PRAGMA wal_checkpoint(TRUNCATE)");
    spoil(&file);
    let spoiled = std::fs::read(&file).unwrap();
    let data = broker.data_dir();
    let ended = run(
        "asynqd",
        &["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()],
    )
    .await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{}", ended.err);
    assert!(ended.err.contains("asynq.db"), "{}", ended.err);
    assert!(
        std::fs::read(&file).unwrap() == spoiled,
        "the file was changed: {}",
        ended.err
    );
    ended.err
}

fn sql(file: &Path, text: &str) {
    rusqlite::Connection::open(file).unwrap().execute_batch(text).unwrap();
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_left_alone_and_named() {
    let garbage = |file: &Path| std::fs::write(file, vec![b'x'; 10_000]).unwrap();
    let said = start_on_spoiled(garbage).await;
    assert!(said.contains("is not a SQLite database"), "{said}");
    let said = start_on_spoiled(|file| sql(file, "UPDATE meta SET version = 99")).await;
    assert!(said.contains("schema version 99"), "{said}");
    let said = start_on_spoiled(|file| sql(file, "PRAGMA application_id = 7")).await;
    assert!(said.contains("another program"), "{said}");
}

#[tokio::test]
async fn a_damaged_database_is_named() {
    // The page that says where a broker stands.
    let damage = |file: &Path| {
        let number = |sql: &str| -> usize {
            let database = rusqlite::Connection::open(file).unwrap();
            let number: i64 = database.query_row(sql, (), |row| row.get(0)).unwrap();
            number.try_into().unwrap()
        };
        let page = number("PRAGMA page_size");
        let root = number("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'");
        let mut bytes = std::fs::read(file).unwrap();
        bytes[(root - 1) * page..root * page].fill(0xff);
        std::fs::write(file, bytes).unwrap();
    };
    let said = start_on_spoiled(damage).await;
    assert!(said.contains("is damaged"), "{said}");
}

#[tokio::test]
async fn a_panic_is_its_tasks_own() {
    let cluster = Cluster::start().await;
    let worker = WorkerHere::start(&cluster.broker.url(), 1).await;
    let client = cluster.client().await;
    let panicked = within("a panic", PATIENCE, client.call(WorkerHere::PANICS, &()).into_future()).await;
    let Err(Error::Dead { reason, failure, .. }) = panicked else {
        panic!("{panicked:?}");
    };
    assert_eq!(
        (reason, failure.kind.as_str(), failure.message.as_str()),
        (DeadReason::Error, "panic", "it panics as asked")
    );
    // The one slot of this worker serves on.
    let quick = client.call(WorkerHere::QUICK, &0).into_future();
    within("another task", PATIENCE, quick).await.unwrap();
    worker.stop().await;
}
