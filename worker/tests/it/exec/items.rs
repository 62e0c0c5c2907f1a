//! Programs whose lines are items.

use asynq_proto::Place;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::{Assignment, OnLoss};

use super::{Daemon, credit, read, shell};
use crate::broker::{Emit, end_of};

/// Items until there are this many.
async fn items(emit: &mut Emit, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let Some(Frame::Items(batch)) = emit.next().await else {
            panic!("the stream ended after {} items", all.len())
        };
        let mut rest = &batch.data[..];
        for length in batch.lengths {
            let (item, behind) = rest.split_at(length as usize);
            all.push(String::from_utf8(item.to_vec()).unwrap());
            rest = behind;
        }
    }
    all
}

#[tokio::test]
async fn lines_are_items_and_an_array_for_who_calls() {
    let mut daemon = Daemon::start(&shell("lines", "stdout = \"lines\"", r"printf 'a b\n\n\377\t\\last'")).await;
    let expected = ["\"a b\"", "\"\"", "\"\u{fffd}\\t\\\\last\""];
    daemon.link.assign(read(1, "lines", "null", 10)).await;
    let mut emit = daemon.broker.emit().await;
    assert_eq!(items(&mut emit, 3).await, expected);
    assert_eq!(emit.next().await, end_of(expected));
    emit.ack().await;
    assert_eq!(
        String::from_utf8(daemon.result(2, "lines", "null").await).unwrap(),
        format!("[{}]", expected.join(","))
    );
}

#[tokio::test]
async fn lines_of_json_are_items_and_a_result() {
    let tasks = [
        shell(
            "both",
            "stdout = \"jsonl\"",
            r#"echo '{"item": {"a": 1.50}}'; echo '{"item":null}'; echo '{"result":"two"}'"#,
        ),
        shell(
            "items",
            "stdout = \"jsonl\"",
            r#"echo '{"item":1}'; echo; echo '{"item":2}'"#,
        ),
        shell("none", "stdout = \"jsonl\"", ":"),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    daemon.link.assign(read(1, "both", "null", 10)).await;
    let mut emit = daemon.broker.emit().await;
    assert_eq!(items(&mut emit, 2).await, [r#"{"a": 1.50}"#, "null"]);
    assert_eq!(emit.next().await, end_of([r#"{"a": 1.50}"#, "null"]));
    emit.ack().await;
    assert_eq!(daemon.result(2, "both", "null").await, b"\"two\"");
    assert_eq!(daemon.result(3, "items", "null").await, b"[1,2]");
    assert_eq!(daemon.result(4, "none", "null").await, b"[]");
}

#[tokio::test]
async fn a_failure_comes_after_the_items_before_it() {
    let tasks = [
        shell("exit", "stdout = \"lines\"", "echo a; echo b; echo why >&2; exit 65"),
        shell("long", "stdout = \"lines\"", "echo a; echo b; cat /dev/zero"),
        shell(
            "wrong",
            "stdout = \"jsonl\"",
            r#"echo '{"item":1}'; echo '{"item":2}'; echo 3"#,
        ),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    for (n, name, said) in [
        (1, "exit", "sh exited with code 65: why"),
        (2, "long", "line 3 of stdout"),
        (3, "wrong", "line 3 of stdout"),
    ] {
        daemon.link.assign(read(n, name, "null", 10)).await;
        let mut emit = daemon.broker.emit().await;
        assert_eq!(items(&mut emit, 2).await.len(), 2);
        match emit.next().await {
            Some(Frame::Failure(failure)) => assert!(failure.message.contains(said), "{failure:?}"),
            other => panic!("{name}: {other:?}"),
        }
        emit.ack().await;
    }
}

/// While its reader has no room, a program waits for its pipe; and when it
/// ends meanwhile, what it has written is not lost.
#[tokio::test]
async fn the_pipe_is_the_backpressure() {
    let tasks = [
        shell(
            "endless",
            "stdout = \"lines\"",
            "i=0; pad=$(printf %0500d 0); while :; do echo $i $pad; i=$((i+1)); echo $i >count; done",
        ),
        shell("short", "stdout = \"lines\"", "seq 1000; echo over >over"),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    daemon.link.assign(read(1, "endless", "null", 5)).await;
    let mut endless = daemon.broker.emit().await;
    assert_eq!(items(&mut endless, 5).await.len(), 5);
    let written = || {
        let count = std::fs::read_to_string(daemon.path("count"));
        count.ok().and_then(|count| count.trim().parse::<u64>().ok())
    };
    assert_eq!(endless.next().await, Some(Frame::Blocked(credit(5))));
    let mut before = None;
    let count = loop {
        daemon.link.beats(10).await;
        let now = written();
        if now.is_some() && now == before {
            break now;
        }
        before = now;
    };
    // Two pipes' worth, 64 KiB each: one that is full, one read ahead.
    assert!(count.is_some_and(|count| count < 600), "{count:?}");

    daemon.link.assign(read(2, "short", "null", 10)).await;
    let mut short = daemon.broker.emit().await;
    assert_eq!(items(&mut short, 10).await.len(), 10);
    crate::broker::until(|| daemon.path("over").exists()).await;
    daemon.link.beats(5).await;
    short.grant(credit(2_000)).await;
    let rest = items(&mut short, 990).await;
    assert_eq!((rest[0].as_str(), rest[989].as_str()), ("\"11\"", "\"1000\""));
    assert_eq!(short.next().await, end_of((1..=1_000).map(|i| format!("\"{i}\""))));
    short.ack().await;

    endless.grant(credit(1_000)).await;
    let rest = items(&mut endless, 995).await;
    assert!(rest[0].starts_with("\"5 0") && rest[994].starts_with("\"999 0"));
}

/// Lines from the item it is told to begin with, or from the first.
const COUNT: &str = "seq ${ASYNQ_START_INDEX:-0} 4; echo x >>runs";

fn lines() -> Vec<String> {
    (0..5).map(|i| format!("\"{i}\"")).collect()
}

fn behind(n: usize) -> Place {
    let mut place = Place::START;
    lines()[..n].iter().for_each(|line| place.pass(line.as_bytes()));
    place
}

#[tokio::test]
async fn a_program_goes_on_when_its_stream_breaks() {
    let mut daemon = Daemon::start(&shell("counts", "stdout = \"lines\"", COUNT)).await;
    let declared = |task: &&asynq_proto::v1::TaskDeclaration| task.name == "counts";
    let task = daemon.link.hello.tasks.iter().find(declared).unwrap();
    assert_eq!((task.iterator, task.on_loss()), (true, OnLoss::Fail));
    daemon.link.assign(read(1, "counts", "null", 3)).await;
    let mut emit = daemon.broker.emit().await;
    assert_eq!(items(&mut emit, 3).await, lines()[..3]);
    drop(emit);
    let mut emit = daemon.broker.emit().await;
    assert_eq!(emit.hello.resume.as_ref().unwrap().head, 3);
    emit.go_on_from(1).await;
    emit.grant(credit(10)).await;
    assert_eq!(items(&mut emit, 4).await, lines()[1..]);
    assert_eq!(emit.next().await, end_of(lines()));
    emit.ack().await;
    assert_eq!(std::fs::read_to_string(daemon.path("runs")).unwrap(), "x\n");
}

#[tokio::test]
async fn a_program_that_is_run_again_says_again_what_it_said_or_seeks() {
    let replays = "stdout = \"lines\"\non_loss = \"replay\"";
    let tasks = [
        shell("replays", replays, COUNT),
        shell("seeks", &format!("{replays}\nseeks = true"), COUNT),
        shell("differs", replays, "echo 0; echo 1; echo 3"),
        shell("elsewhere", &format!("{replays}\nseeks = true"), "seq 0 4"),
        shell("ends", replays, "echo 0"),
        shell("fails", replays, "echo 0; echo why >&2; exit 65"),
    ];
    let mut daemon = Daemon::start(&tasks.concat()).await;
    let declared = |task: &&asynq_proto::v1::TaskDeclaration| task.name == "seeks";
    let task = daemon.link.hello.tasks.iter().find(declared).unwrap();
    assert_eq!((task.iterator, task.on_loss()), (true, OnLoss::Replay));
    let rerun = |n, name: &str| Assignment {
        start: Some(behind(3).into()),
        ..read(n, name, "null", 10)
    };
    for (n, name) in [(1, "replays"), (2, "seeks")] {
        daemon.link.assign(rerun(n, name)).await;
        let mut emit = daemon.broker.emit().await;
        assert_eq!(items(&mut emit, 2).await, lines()[3..], "{name}");
        assert_eq!(emit.next().await, end_of(lines()), "{name}");
        emit.ack().await;
    }
    // The first time there is nothing to skip.
    daemon.link.assign(read(3, "seeks", "null", 10)).await;
    let mut emit = daemon.broker.emit().await;
    assert_eq!(items(&mut emit, 5).await, lines());
    assert_eq!(emit.next().await, end_of(lines()));
    emit.ack().await;
    let other = "non_deterministic";
    for (n, name, kind, said) in [
        (4, "differs", other, "item 2, or one before it, is not what was sent"),
        (
            5,
            "elsewhere",
            other,
            "item 2, with which it began, is not what was sent",
        ),
        (6, "ends", other, "it ended before item 1, and 3 had been sent"),
        (7, "fails", "error", "sh exited with code 65: why"),
    ] {
        daemon.link.assign(rerun(n, name)).await;
        let mut emit = daemon.broker.emit().await;
        match emit.next().await {
            Some(Frame::Failure(failure)) => {
                assert_eq!((failure.kind.as_str(), failure.retryable), (kind, false), "{name}");
                assert!(failure.message.ends_with(said), "{failure:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        emit.ack().await;
    }
}
