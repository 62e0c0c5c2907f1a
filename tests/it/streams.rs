//! Items stream back: through real processes, to the command and to the SDK.

use asynq_client::{Client, Payload};
use asynq_tests::{Cluster, Ended, PATIENCE, eventually, interrupt, memory, within};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_stream::StreamExt;

use crate::exec::guide::{blocks, commands, fits, typed};

/// More items than any test reads.
const ENDLESS: &str = r#"{"n":1000000000}"#;

async fn count(client: &Client, args: &str, window: u32) -> asynq_client::Items<Payload> {
    let args = Payload::bytes("application/json", args.to_owned());
    client
        .iterate_raw("count", args)
        .window(window)
        .await
        .expect("the broker takes it")
}

fn index(item: &Payload) -> u64 {
    item.decode::<serde_json::Value>().expect("JSON")["i"]
        .as_u64()
        .expect("an index")
}

/// Ends of the tasks of the one queue, as (succeeded, cancelled, dead).
async fn ends(client: &Client) -> (u64, u64, u64) {
    let queues = client.queues().await.expect("the broker is there");
    queues
        .first()
        .map_or((0, 0, 0), |queue| (queue.succeeded, queue.cancelled, queue.dead))
}

#[tokio::test]
async fn every_item_is_a_line() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let out = cluster.ok(&["iterate", "count", r#"{"n":100000}"#]).await;
    for (i, line) in out.lines().enumerate() {
        assert_eq!(line, format!(r#"{{"i":{i}}}"#));
    }
    assert_eq!(out.lines().count(), 100_000);
    assert_eq!(ends(&cluster.client().await).await, (1, 0, 0));
    // A plain task yields its result; an iterator that is called, an array.
    assert_eq!(cluster.ok(&["iterate", "echo", "[7]"]).await, "[7]");
    assert_eq!(
        cluster.ok(&["call", "count", r#"{"n":3}"#]).await,
        r#"[{"i":0},{"i":1},{"i":2}]"#
    );
}

#[tokio::test]
async fn a_closed_pipe_stops_the_generator() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let mut iterate = cluster.spawn(&["iterate", "count", ENDLESS]);
    let mut lines = BufReader::new(iterate.stdout.take().expect("a pipe")).lines();
    for i in 0..3 {
        let line = within("a line", PATIENCE, lines.next_line())
            .await
            .expect("a pipe can be read");
        assert_eq!(line, Some(format!(r#"{{"i":{i}}}"#)));
    }
    drop(lines);
    let ended = Ended::of(iterate).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let client = cluster.client().await;
    assert_eq!(ends(&client).await, (0, 1, 0), "it is over when the command is");
    assert_eq!(client.workers().await.expect("workers")[0].busy, 0);
}

#[tokio::test]
async fn ctrl_c_stops_the_generator() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let mut iterate = cluster.spawn(&["iterate", "count", r#"{"n":1000000,"delay_us":1000}"#]);
    let mut lines = BufReader::new(iterate.stdout.take().expect("a pipe")).lines();
    within("a line", PATIENCE, lines.next_line())
        .await
        .expect("a pipe can be read");
    interrupt(&iterate);
    while within("the rest", PATIENCE, lines.next_line())
        .await
        .expect("a pipe can be read")
        .is_some()
    {}
    assert_eq!(Ended::of(iterate).await.code, Some(5));
    assert_eq!(ends(&cluster.client().await).await, (0, 1, 0));
}

/// A caller that does not read holds up nobody: not its own calls, not the one
/// slot of the worker; and what it does not read is not produced.
#[tokio::test]
async fn a_stalled_reader_costs_nothing() {
    const WINDOW: u64 = 100;
    let (mut cluster, worker) = Cluster::with_worker(1).await;
    let client = cluster.client().await;
    let mut items = count(&client, r#"{"n":10000000,"bytes":100}"#, WINDOW as u32).await;
    for i in 0..10 {
        let item = within("an item", PATIENCE, items.next()).await;
        assert_eq!(index(&item.expect("an item").expect("good")), i);
    }
    let sent =
        |details: &std::collections::BTreeMap<String, String>| details["items"].parse::<u64>().expect("a number");
    let why = eventually("the generator to wait for credit", PATIENCE, || async {
        let why = client.explain(items.id()).await.expect("it goes on");
        (why.details.get("blocked_on").map(String::as_str) == Some("credit")).then_some(why)
    })
    .await;
    // Asking for item 10 took the ten before it; each is acknowledged by asking for the next.
    assert!(sent(&why.details) <= 10 + WINDOW, "{:?}", why.details);
    let before = [memory(cluster.broker.process().pid()), memory(worker.pid())];
    assert_eq!(cluster.ok(&["call", "echo", "1"]).await, "1", "the slot is lent");
    let again = client.explain(items.id()).await.expect("it goes on");
    assert_eq!(sent(&again.details), sent(&why.details), "nothing more was produced");
    let after = [memory(cluster.broker.process().pid()), memory(worker.pid())];
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + (8 << 20), "from {before} to {after} bytes");
    }

    // It goes on where it was.
    for i in 10..1_000 {
        let item = within("an item", PATIENCE, items.next()).await;
        assert_eq!(index(&item.expect("an item").expect("good")), i);
    }
    drop(items);
    eventually("the task to be cancelled", PATIENCE, || async {
        (ends(&client).await == (1, 1, 0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stalled_stream_stalls_no_other() {
    let (cluster, _worker) = Cluster::with_worker(8).await;
    let client = cluster.client().await;
    let mut stalled = Vec::new();
    for _ in 0..6 {
        stalled.push(count(&client, r#"{"n":10000000,"bytes":1000}"#, 1_000).await);
    }
    let mut live = count(&client, r#"{"n":20000,"bytes":100}"#, 256).await;
    for i in 0..20_000 {
        let item = within("an item", PATIENCE, live.next()).await;
        assert_eq!(index(&item.expect("an item").expect("good")), i);
    }
    assert!(within("the end", PATIENCE, live.next()).await.is_none());
    for items in stalled {
        within("the stop", PATIENCE, items.stop()).await.expect("stopped");
    }
    assert_eq!(ends(&client).await, (1, 6, 0));
}

/// docs/guides/iteration.md does what it says: its commands are typed as they stand
/// there, and what is printed is what stands there.
#[tokio::test]
async fn the_guide_does_what_it_says() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/iteration.md");
    let page = std::fs::read_to_string(page).expect("the guide is there");
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let (mut run, mut last) = (0, 0);
    for block in blocks(&page) {
        match block.language.as_str() {
            "console" => {}
            // The SDK's own tests have the one; the other is a picture.
            "rust" | "text" => continue,
            other => panic!("what is {other}?"),
        }
        for (command, printed) in commands(&block.text) {
            let (code, got) = typed(&cluster, command, last).await;
            assert!(fits(&got, &printed), "$ {command}\n{got}instead of\n{printed}");
            (run, last) = (run + 1, code);
        }
    }
    assert!(run >= 8, "only {run} commands found: has the guide's form changed?");
}
