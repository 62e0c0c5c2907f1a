//! `asynq map` and `asynq enqueue --jsonl`: many inputs, one line each.

use std::process::Stdio;

use asynq_proto::v1::operation::Op;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

use crate::{DEADLINE, asynq, end, fake::Fake, interrupt, ok, run};

/// Runs it with this on stdin.
async fn fed(fake: &Fake, args: &[&str], input: &str) -> (i32, String, String) {
    let mut child = asynq(fake, args).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // It may end before it has read all.
    tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    end(child).await
}

fn numbers(n: u32) -> String {
    (0..n).map(|i| format!("{i}\n")).collect()
}

#[tokio::test]
async fn results_are_printed_in_order() {
    let fake = Fake::start().await;
    let (code, out, err) = fed(
        &fake,
        &["map", "late", "--jsonl", "-", "--look-ahead", "8"],
        &numbers(3_000),
    )
    .await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out == numbers(3_000));
    assert!(fake.counts().0 <= 8);

    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"{ \"a\": 1.10 }\n\"last\"").unwrap();
    let path = file.path().display().to_string();
    let out = ok(
        &fake,
        &["map", "echo", "--jsonl", &path, "--series", "s", "--unordered"],
    )
    .await;
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["\"last\"", "{\"a\":1.10}"]);
}

#[tokio::test]
async fn a_result_is_printed_before_the_next_input_comes() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["map", "echo", "--jsonl", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["1", "2"] {
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        assert_eq!(
            timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap(),
            line
        );
    }
    // Although stdin stays open and silent.
    drop(lines);
    assert_eq!(end(child).await.0, 0);
    drop(stdin);
}

#[tokio::test]
async fn the_first_failure_ends_a_map_unless_told_otherwise() {
    let fake = Fake::start().await;
    let (code, out, err) = fed(&fake, &["map", "fussy", "--jsonl", "-"], "1\n3\n100\n").await;
    assert_eq!((code, out.as_str()), (1, "1\n"));
    assert!(err.starts_with("asynq: ERROR: line 2: it broke"), "{err}");
    fake.received(|op| matches!(op, Op::Cancel(_)).then_some(())).await;

    let (code, out, err) = fed(&fake, &["map", "fussy", "--jsonl", "-", "--keep-going"], "1\n3\n2\n").await;
    let expected = "1\n{\"error\":{\"kind\":\"error\",\"message\":\"it broke\",\"trace\":null}}\n2\n";
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (1, expected, "asynq: FAILED: 1 tasks failed\n")
    );
}

#[tokio::test]
async fn ctrl_c_cancels_what_a_map_has_under_way() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["map", "nobody", "--jsonl", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"1\n2\n").await.unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(
        warning.starts_with("asynq: NO_WORKER: no worker has registered nobody"),
        "{warning}"
    );
    interrupt(&child);
    assert_eq!(end(child).await.0, 5);
    let cancels = fake.messages().into_iter().flatten();
    assert_eq!(
        cancels
            .filter(|operation| matches!(operation.op, Some(Op::Cancel(_))))
            .count(),
        2
    );
}

#[tokio::test]
async fn many_are_enqueued_and_their_ids_printed() {
    let fake = Fake::start().await;
    let (code, out, err) = fed(&fake, &["enqueue", "echo", "--jsonl", "-"], &numbers(3_000)).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let ids: Vec<_> = out.lines().collect();
    assert!(ids.len() == 3_000 && ids.is_sorted_by(|a, b| a < b));
    let last = ok(&fake, &["task", "wait", ids[2_999]]).await;
    assert_eq!(last, "2999\n");
    assert_eq!(ok(&fake, &["enqueue", "echo", "--jsonl", "/dev/null"]).await, "");
}

#[tokio::test]
async fn a_bad_line_is_named_after_the_good_ones_before_it() {
    let fake = Fake::start().await;
    let huge = format!("1\n\"{}\"\n", "x".repeat(4 * 1024 * 1024));
    for (input, lines, words) in [
        ("1\n2\n{\n4\n", 2, "asynq: USAGE: line 3 of stdin: not JSON: EOF"),
        ("1\n\n", 1, "asynq: USAGE: line 2 of stdin: not JSON: EOF"),
        (
            &huge,
            1,
            "asynq: PAYLOAD_TOO_LARGE: line 2 of stdin: the arguments are 4194306 bytes",
        ),
    ] {
        for args in [["enqueue", "echo", "--jsonl", "-"], ["map", "echo", "--jsonl", "-"]] {
            let (code, out, err) = fed(&fake, &args, input).await;
            assert_eq!((code, out.lines().count()), (2, lines), "{args:?} {err}");
            assert!(err.starts_with(words), "{args:?} {err}");
        }
    }
    let (code, _, err) = run(&fake, &["map", "echo", "--jsonl", "/nowhere"]).await;
    assert_eq!(code, 2);
    assert!(err.starts_with("asynq: USAGE: failed to read /nowhere"), "{err}");

    let (code, out, err) = fed(&fake, &["enqueue", "refused.8", "--jsonl", "-"], "1\n").await;
    assert_eq!((code, out.as_str()), (6, ""));
    assert!(err.starts_with("asynq: TEST: line 1"), "{err}");
}
