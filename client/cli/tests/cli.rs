//! The command against a fake broker: what it prints, how it exits.

#[path = "cli/doctor.rs"]
mod doctor;
#[path = "../../tests/fake/mod.rs"]
mod fake;
#[path = "cli/iterate.rs"]
mod iterate;
#[path = "cli/listing.rs"]
mod listing;
#[path = "cli/many.rs"]
mod many;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/verbs.rs"]
mod verbs;

use std::{
    io::Write,
    process::{Output, Stdio},
    time::Duration,
};

use asynq_proto::v1::operation::Op;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::fake::Fake;

/// A time that is over only if something is broken.
const DEADLINE: Duration = Duration::from_secs(30);

fn asynq(fake: &Fake, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asynq"));
    command.args(args).env("ASYNQ_BROKER", fake.url()).kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn end(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn run(fake: &Fake, args: &[&str]) -> (i32, String, String) {
    end(asynq(fake, args).spawn().unwrap()).await
}

/// Runs what must go well, and gives its output.
async fn ok(fake: &Fake, args: &[&str]) -> String {
    let (code, out, err) = run(fake, args).await;
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    out
}

fn interrupt(child: &Child) {
    signal(child, Signal::INT);
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    let fake = Fake::start().await;
    let value = r#"{"b":1,"a":1.10,"n":12345678901234567890}"#;
    assert_eq!(ok(&fake, &["call", "echo", value]).await, format!("{value}\n"));
    assert_eq!(
        ok(&fake, &["call", "echo", " [ 1, -2.50e+3 ,\n\"a b\" ] "]).await,
        "[1,-2.50e+3,\"a b\"]\n"
    );
    assert_eq!(ok(&fake, &["call", "echo", "-5"]).await, "-5\n");
    assert_eq!(ok(&fake, &["call", "echo"]).await, "null\n");
}

#[tokio::test]
async fn arguments_come_from_files_and_stdin() {
    let fake = Fake::start().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{ \"from\": \"file\" }\n").unwrap();
    let at = format!("@{}", file.path().display());
    assert_eq!(ok(&fake, &["call", "echo", &at]).await, "{\"from\":\"file\"}\n");

    let mut child = asynq(&fake, &["call", "echo", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let large = format!("\"{}\"", "x".repeat(3_000_000));
    child.stdin.take().unwrap().write_all(large.as_bytes()).await.unwrap();
    let (code, out, _) = end(child).await;
    assert!(code == 0 && out == large + "\n");
    assert_eq!(fake.counts().1, 1);
}

#[tokio::test]
async fn bytes_are_printed_as_they_are() {
    let fake = Fake::start().await;
    let output = asynq(&fake, &["call", "bytes"]).output().await.unwrap();
    assert_eq!(output.stdout, [0, 159, 10]);
}

#[tokio::test]
async fn exit_codes_and_their_words() {
    let fake = Fake::start().await;
    let huge = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(huge.path(), format!("\"{}\"", "x".repeat(4 * 1024 * 1024))).unwrap();
    let huge = format!("@{}", huge.path().display());
    let unknown = "019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1";
    for (args, code, words) in [
        (&["call", "dead.error"][..], 1, "asynq: ERROR: it broke"),
        (&["call", "dead.panic"], 1, "asynq: ERROR: panic: it broke"),
        (&["call", "refused.3"], 2, "asynq: TEST: refused as asked"),
        (&["call", "echo", "{"], 2, "asynq: USAGE: the argument is not JSON: EOF"),
        (
            &["call", "echo", "@/nowhere"],
            2,
            "asynq: USAGE: failed to read /nowhere",
        ),
        (
            &["call", "echo", &huge],
            2,
            "asynq: PAYLOAD_TOO_LARGE: the arguments are 4194306 bytes; the limit is 4194304",
        ),
        (
            &["call", "echo", "--colour"],
            2,
            "asynq: USAGE: unexpected argument '--colour'",
        ),
        (
            &["call", "echo", "--delay", "soon"],
            2,
            "asynq: USAGE: invalid value 'soon' for '--delay <D>': write it like",
        ),
        (
            &["call", "echo", "--timeout", "0"],
            2,
            "asynq: USAGE: invalid value '0' for '--timeout <D>': it must be longer than 0",
        ),
        (
            &["call", "echo", "--broker", "nonsense"],
            2,
            "asynq: INVALID_ADDRESS: \"nonsense\"",
        ),
        (&["task", "show", "42"], 2, "asynq: USAGE: invalid value '42'"),
        (&["call", "dead.timeout"], 4, "asynq: TIMEOUT: it broke"),
        (
            &["call", "slow", "--wait", "100ms"],
            4,
            "asynq: WAIT_PASSED: the time to wait has passed; the task",
        ),
        (&["call", "cancelled"], 5, "asynq: CANCELLED: the task"),
        (&["call", "expired"], 5, "asynq: EXPIRED: the task"),
        (&["enqueue", "refused.6"], 6, "asynq: TEST: refused"),
        (&["call", "refused.7"], 6, "asynq: TEST: refused"),
        (&["call", "refused.8"], 6, "asynq: TEST: refused"),
        (
            &["task", "show", unknown],
            6,
            "asynq: TASK_NOT_FOUND: there is no such task",
        ),
        (
            &["task", "wait", unknown],
            6,
            "asynq: TASK_NOT_FOUND: there is no such task",
        ),
        (
            &["task", "cancel", unknown],
            6,
            "asynq: TASK_NOT_FOUND: there is no such task",
        ),
    ] {
        let (got, out, err) = run(&fake, args).await;
        assert_eq!((got, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(err.starts_with(words), "{args:?}: {err}");
    }
}

#[tokio::test]
async fn no_broker_is_exit_3() {
    let fake = Fake::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broker = format!("http://{closed}");
    let (code, out, err) = run(&fake, &["--broker", &broker, "call", "echo", "--wait", "100ms"]).await;
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(
        err.starts_with(&format!("asynq: NO_BROKER: no broker at {broker}")),
        "{err}"
    );
}

#[tokio::test]
async fn help_is_no_error() {
    let fake = Fake::start().await;
    for args in [
        &["--help"][..],
        &["call", "--help"],
        &["task", "ls", "--help"],
        &["task", "wait", "--help"],
        &["queue", "ls", "--help"],
    ] {
        assert!(ok(&fake, args).await.contains("Examples:"), "{args:?}");
    }
    assert!(ok(&fake, &["--version"]).await.starts_with("asynq "));
}

#[tokio::test]
async fn a_bench_nobody_can_run_says_so_before_it_begins() {
    let fake = Fake::start().await;
    // The fake's worker has echo, and no count.
    let (code, _, err) = run(&fake, &["bench", "--tasks", "10"]).await;
    assert!(code == 0 && !err.contains("NO_WORKER"), "{err}");
    let (_, _, err) = run(&fake, &["bench", "--mode", "iterate", "--tasks", "10"]).await;
    let warning = "asynq: NO_WORKER: no worker has registered count; start one with: asynq-worker --builtins";
    assert_eq!(err.lines().next(), Some(warning), "{err}");
}

#[tokio::test]
async fn a_call_nobody_can_run_says_so_and_ctrl_c_cancels_it() {
    let fake = Fake::start().await;
    let mut child = asynq(&fake, &["call", "nobody"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(
        warning,
        "asynq: NO_WORKER: no worker has registered nobody; the task waits for one"
    );

    interrupt(&child);
    let goodbye = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(goodbye.starts_with("asynq: CANCELLED: the task "), "{goodbye}");
    assert_eq!(end(child).await.0, 5);
    fake.received(|op| matches!(op, Op::Cancel(_)).then_some(())).await;
}

#[tokio::test]
async fn a_wait_outlives_a_broken_stream_and_ctrl_c_detaches_it() {
    let fake = Fake::start().await;
    let id = ok(&fake, &["enqueue", "slow"]).await.trim().to_owned();
    let child = asynq(&fake, &["task", "wait", &id]).spawn().unwrap();
    let waits = |fake: &Fake| {
        let operations = fake.messages().into_iter().flatten();
        operations
            .filter(|operation| matches!(operation.op, Some(Op::Wait(_))))
            .count()
    };
    fake.received(|op| matches!(op, Op::Wait(_)).then_some(())).await;
    fake.cut();
    let twice = async {
        while waits(&fake) < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, twice).await.unwrap();

    interrupt(&child);
    let (code, out, err) = end(child).await;
    assert_eq!(
        (code, out, err),
        (130, String::new(), format!("asynq: DETACHED: the task {id} goes on\n"))
    );
    assert!(ok(&fake, &["task", "show", &id]).await.contains("ready"));
}

#[tokio::test]
async fn a_reader_that_hangs_up_is_no_error() {
    let fake = Fake::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("\"{}\"", "x".repeat(3_000_000))).unwrap();
    let at = format!("@{}", file.path().display());
    let mut child = asynq(&fake, &["call", "echo", &at]).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).await.unwrap();
    let (code, _, err) = end(child).await;
    assert_eq!((code, err.as_str()), (0, ""));
}

#[tokio::test]
async fn json_objects_have_all_their_fields() {
    let fake = Fake::start().await;
    let id = ok(&fake, &["enqueue", "dead.panic"]).await.trim().to_owned();
    let task = format!(
        concat!(
            r#"{{"id":"{}","name":"dead.panic","queue":"default","series":"","niceness":0,"state":"dead","#,
            r#""reason":null,"cancel_requested":false,"attempt":0,"failures":0,"timeouts":0,"crashes":0,"losses":0,"#,
            r#""releases":0,"enqueued_at":"2023-11-14T22:13:20.123Z","start_at":null,"started_at":null,"#,
            r#""finished_at":null,"worker":null,"labels":[],"#,
            r#""error":{{"kind":"panic","message":"it broke","trace":null}},"#,
            r#""payload_bytes":4,"result_bytes":0,"content_type":"application/json","key":null,"checkpoint":null}}"#,
        ),
        id
    );
    assert_eq!(
        ok(&fake, &["task", "show", &id, "-o", "json"]).await,
        task.clone() + "\n"
    );
    let (code, out, err) = run(&fake, &["task", "wait", &id, "-o", "json"]).await;
    assert_eq!((code, out), (1, task + "\n"));
    assert!(err.starts_with("asynq: ERROR: panic: it broke"), "{err}");

    let called: Value = serde_json::from_str(&ok(&fake, &["call", "echo", "1", "-o", "json"]).await).unwrap();
    assert_eq!(
        (&called["name"], &called["state"], &called["error"]),
        (&"echo".into(), &"succeeded".into(), &Value::Null)
    );

    let cancelled = ok(&fake, &["task", "cancel", &id, "-o", "json"]).await;
    assert_eq!(
        cancelled,
        format!("{{\"id\":\"{id}\",\"outcome\":\"finished\",\"state\":\"dead\"}}\n")
    );
    let told: Value = serde_json::from_str(&ok(&fake, &["task", "history", &id, "-o", "json"]).await).unwrap();
    let expected = r#"{"at":"2023-11-14T22:13:20.040Z","from":"running","to":"scheduled","attempt":1,"worker":"node-1",
        "cause":"failed","message":"error: no space left on\ndevice","left_out":0}"#;
    assert_eq!(told[2], serde_json::from_str::<Value>(expected).unwrap());
    assert_eq!(
        (&told[0]["from"], &told[0]["worker"], &told[0]["message"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let explained = ok(&fake, &["task", "explain", &id, "-o", "json"]).await;
    let expected = r#""state":"ready","reason":"no_free_slot","message":"a sentence","details":{"workers":"0"}}"#;
    assert_eq!(explained, format!("{{\"id\":\"{id}\",{expected}\n"));
    assert_eq!(
        ok(&fake, &["queue", "ls", "-o", "json"]).await,
        concat!(
            r#"[{"name":"default","policy":"fair","durability":"sync","paused":false,"scheduled":0,"ready":12,"#,
            r#""running":0,"succeeded":0,"dead":0,"cancelled":0,"expired":0,"oldest_ready_ms":null}]"#,
            "\n"
        )
    );
    assert_eq!(
        ok(&fake, &["worker", "ls", "-o", "json"]).await,
        concat!(
            r#"[{"name":"node-1","session":"abababababababababababababababab","state":"active","slots":8,"busy":3,"#,
            r#""leaked":0,"tasks":["echo","sleep"],"labels":[],"series":[],"connected_at":"2023-11-14T22:13:20.000Z"}]"#,
            "\n"
        )
    );
}

#[tokio::test]
async fn text_is_aligned_for_people() {
    let fake = Fake::start().await;
    let workers = "NAME    STATE   BUSY  CONNECTED                 TASKS\n\
                   node-1  active   3/8  2023-11-14T22:13:20.000Z  echo sleep\n";
    assert_eq!(ok(&fake, &["worker", "ls"]).await, workers);
    let queues = "NAME     SCHEDULED  READY  RUNNING  SUCCEEDED  DEAD  CANCELLED  EXPIRED  OLDEST\n\
                  default          0     12        0          0     0          0        0  -\n";
    assert_eq!(ok(&fake, &["queue", "ls"]).await, queues);

    let slow = ok(&fake, &["enqueue", "slow", "{\"a\":1}"]).await.trim().to_owned();
    assert_eq!(
        ok(&fake, &["task", "explain", &slow]).await,
        "ready, no_free_slot: a sentence\n  workers  0\n"
    );
    let told = "AT                        STATE      TRY  WHAT HAPPENED\n\
                2023-11-14T22:13:20.000Z  ready      -    enqueued\n\
                2023-11-14T22:13:20.002Z  running    1    node-1 took it\n\
                2023-11-14T22:13:20.040Z  scheduled  1    error: no space left on device (node-…\n\
                2023-11-14T22:14:20.000Z  ready      7    … 12 steps are not kept …\n\
                2023-11-14T22:14:20.100Z  running    8    node-1 took it\n\
                2023-11-14T23:14:21.000Z  succeeded  8    node-1 completed it\n";
    assert_eq!(ok(&fake, &["task", "history", &slow]).await, told);
    let shown = ok(&fake, &["task", "show", &slow]).await;
    assert!(
        shown.contains(&format!("id           {slow}\nname         slow\nstate        ready\n")),
        "{shown}"
    );
    assert!(shown.contains("arguments    7 bytes of application/json\n"), "{shown}");
    let done = ok(&fake, &["enqueue", "echo"]).await.trim().to_owned();
    let cancelled = ok(&fake, &["task", "cancel", &slow, &done]).await;
    assert_eq!(
        cancelled,
        format!("{slow} cancelled\n{done} had ended before: succeeded\n")
    );
}
