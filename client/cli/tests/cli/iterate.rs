//! `asynq iterate`: what it prints, how it stops, how another goes on.

use asynq_proto::v1::operation::Op;
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Child,
    time::timeout,
};

use crate::{DEADLINE, asynq, end, fake::Fake, interrupt, ok, run, signal};

const FOREVER: &str = "18446744073709551615";

async fn stopped(fake: &Fake) {
    fake.received(|op| matches!(op, Op::Stop(_)).then_some(())).await;
    fake.until(|streams| streams[0].stopped && !streams[0].gone).await;
}

#[tokio::test]
async fn items_are_lines() {
    let fake = Fake::start().await;
    let lines = |n| (0..n).map(|i| format!("{i}\n")).collect::<String>();
    assert_eq!(ok(&fake, &["iterate", "count", "100000"]).await, lines(100_000));
    assert_eq!(ok(&fake, &["iterate", "count", "5", "--window", "1"]).await, lines(5));
    assert_eq!(ok(&fake, &["iterate", "count"]).await, "");
    assert_eq!(fake.streams()[1].credit.limit_index - fake.streams()[1].credit.acked, 1);
}

#[tokio::test]
async fn an_item_is_printed_when_it_comes() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["iterate", "slow", "2"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["0", "1"] {
        assert_eq!(
            timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap(),
            line
        );
    }
    // Nothing more will come, and still it notices that nobody listens.
    drop(lines);
    let (code, _, err) = end(child).await;
    assert_eq!((code, err.as_str()), (0, ""));
    stopped(&fake).await;
}

#[tokio::test]
async fn a_reader_that_has_enough_stops_the_task() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["iterate", "count", FOREVER]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["0", "1", "2"] {
        assert_eq!(
            timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap(),
            line
        );
    }
    drop(lines);
    let (code, _, err) = end(child).await;
    assert_eq!((code, err.as_str()), (0, ""));
    stopped(&fake).await;
}

#[tokio::test]
async fn ctrl_c_stops_the_task_even_while_nobody_reads() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["iterate", "count", FOREVER]).spawn().unwrap();
    let unread = child.stdout.take().unwrap();
    // The pipe is full when the task has run ahead as far as it may.
    let mut sent = 0;
    fake.until(|streams| {
        let before = std::mem::replace(&mut sent, streams.first().map_or(0, |stream| stream.sent));
        sent > 10_000 && sent == before
    })
    .await;
    interrupt(&child);
    let (code, _, err) = end(child).await;
    drop(unread);
    assert_eq!(code, 5);
    assert!(
        err.starts_with("asynq: CANCELLED: the task ") && err.ends_with("was cancelled\n"),
        "{err}"
    );
    stopped(&fake).await;
}

#[tokio::test]
async fn ends_and_their_exit_codes() {
    let fake = Fake::start().await;
    for (args, code, out, words) in [
        (
            &["iterate", "dead.error", "2"][..],
            1,
            "0\n1\n",
            "asynq: ERROR: it broke",
        ),
        (&["iterate", "cancelled", "1"], 5, "0\n", "asynq: CANCELLED: the task"),
        (&["iterate", "refused.3"], 2, "", "asynq: TEST: refused as asked"),
        (
            &["iterate", "slow", "1", "--wait", "500ms"],
            4,
            "0\n",
            "asynq: WAIT_PASSED: the time to wait has passed; the task",
        ),
        (&["iterate", "cut", "3"], 0, "0\n1\n2\n", ""),
    ] {
        let (got, printed, err) = run(&fake, args).await;
        assert_eq!((got, printed.as_str()), (code, out), "{args:?}: {err}");
        assert!(err.starts_with(words), "{args:?}: {err}");
    }
}

#[tokio::test]
async fn nobody_to_run_it_is_said() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["iterate", "nobody"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(
        warning,
        "asynq: NO_WORKER: no worker has registered nobody; the task waits for one"
    );
    interrupt(&child);
    assert_eq!(end(child).await.0, 5);
    stopped(&fake).await;
}

/// Begins a stream of which three items come, reads them, and names its task.
async fn three(fake: &Fake) -> (Child, String) {
    let mut child = asynq(fake, &["iterate", "slow", "3"]).spawn().unwrap();
    let mut lines = [0; 6];
    let out = child.stdout.as_mut().unwrap();
    timeout(DEADLINE, out.read_exact(&mut lines)).await.unwrap().unwrap();
    assert_eq!(&lines, b"0\n1\n2\n");
    let listed = ok(fake, &["task", "ls", "-o", "json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    (child, listed["tasks"][0]["id"].as_str().unwrap().to_owned())
}

/// What a command says that leaves a stream.
fn detached(id: &str, from: u64) -> String {
    format!(
        "asynq: DETACHED: the task {id} waits 30.0s for a reader; go on with: asynq iterate --task {id} --from {from}\n"
    )
}

#[tokio::test]
async fn a_broker_that_goes_and_comes_is_not_noticed() {
    let fake = Fake::start().await;
    fake.fail(&["2", "before", "1", "4", "3"]);
    let lines = (0..5_000).map(|i| format!("{i}\n")).collect::<String>();
    assert_eq!(ok(&fake, &["iterate", "count", "5000"]).await, lines);
    assert_eq!(fake.openings().len(), 6);
}

#[tokio::test]
async fn one_that_is_told_to_end_says_how_to_go_on() {
    let fake = Fake::start().await;
    let (child, id) = three(&fake).await;
    signal(&child, Signal::TERM);
    let (code, _, err) = end(child).await;
    assert_eq!((code, err), (130, detached(&id, 3)));
    fake.until(|streams| streams[0].gone && !streams[0].stopped).await;

    // And the next one is left with Ctrl-C.
    let args = ["iterate", "--task", &id, "--from", "2", "--detach-grace", "30s"];
    let mut child = asynq(&fake, &args).spawn().unwrap();
    let mut line = [0; 2];
    let out = child.stdout.as_mut().unwrap();
    timeout(DEADLINE, out.read_exact(&mut line)).await.unwrap().unwrap();
    assert_eq!(&line, b"2\n");
    interrupt(&child);
    let (code, _, err) = end(child).await;
    assert_eq!((code, err), (130, detached(&id, 3)));
    fake.until(|streams| streams[0].gone && !streams[0].stopped).await;
    let openings = fake.openings();
    let flags = openings
        .iter()
        .map(|it| (it.attach, it.take_over, it.detach_on_reset, it.detach_grace_ms));
    let expected = [(false, false, true, Some(30_000)), (true, true, true, Some(30_000))];
    assert!(flags.eq(expected), "{openings:?}");
}

#[tokio::test]
async fn one_that_was_killed_can_be_gone_on_with() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["iterate", "count", "30000"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in 0..20_000 {
        let next = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(next, line.to_string());
    }
    signal(&child, Signal::KILL);
    // What was in the pipe has been printed.
    let mut printed = 20_000;
    while let Some(line) = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
        // The last may have been cut short.
        printed += u64::from(line == printed.to_string());
    }
    timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    let listed = ok(&fake, &["task", "ls", "-o", "json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let id = listed["tasks"][0]["id"].as_str().unwrap();
    let (code, out, err) = run(&fake, &["iterate", "--task", id]).await;
    assert_eq!((code, out.as_str()), (6, ""));
    assert!(err.starts_with("asynq: BELOW_FLOOR: item "), "{err}");

    let rest = (printed..30_000).map(|i| format!("{i}\n")).collect::<String>();
    let from = printed.to_string();
    assert_eq!(ok(&fake, &["iterate", "--task", id, "--from", &from]).await, rest);
}

#[tokio::test]
async fn a_task_of_others_is_left_to_them() {
    let fake = Fake::start().await;
    let (first, id) = three(&fake).await;
    // The output ends.
    let mut child = asynq(&fake, &["iterate", "--task", &id]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(
        timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap(),
        "0"
    );
    drop(lines);
    let (code, _, err) = end(child).await;
    assert_eq!((code, err.as_str()), (0, ""));
    // The first has been told that another reads it.
    let (code, _, err) = end(first).await;
    assert_eq!(code, 6);
    assert!(err.starts_with("asynq: STALE_READER: "), "{err}");
    // The time passes.
    let (code, out, err) = run(&fake, &["iterate", "--task", &id, "--from", "1", "--wait", "300ms"]).await;
    assert_eq!((code, out.as_str()), (4, "1\n2\n"));
    let how = format!("go on with: asynq iterate --task {id} --from 3\n");
    assert!(err.starts_with("asynq: WAIT_PASSED: ") && err.ends_with(&how), "{err}");
    fake.until(|streams| streams[0].gone && !streams[0].stopped).await;
    let echo = ok(&fake, &["enqueue", "echo"]).await;
    let (code, _, err) = run(&fake, &["iterate", "--task", echo.trim()]).await;
    assert_eq!(
        (code, err.as_str()),
        (
            6,
            "asynq: NOT_A_STREAM: it yields no items
"
        )
    );
}
