//! `asynq iterate`: what it prints, how it stops.

use asynq_proto::v1::operation::Op;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

use crate::{DEADLINE, asynq, end, fake::Fake, interrupt, ok, run};

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
        (&["iterate", "cut", "3"], 3, "0\n1\n2\n", "asynq: STREAM_BROKEN: "),
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
