//! `asynq task ls`: what is asked, what is printed, how to go on.

use asynq_proto::v1;
use serde_json::Value;

use crate::{fake::Fake, ok, run};

/// Enqueues these, one after the other; gives their ids, newest first.
async fn enqueue(fake: &Fake, names: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for name in names {
        ids.push(ok(fake, &["enqueue", name]).await.trim().to_owned());
    }
    ids.reverse();
    ids
}

#[tokio::test]
async fn tasks_are_a_table_for_people() {
    let fake = Fake::start().await;
    assert_eq!(ok(&fake, &["task", "ls"]).await, "ID  NAME  STATE  AGE\n");
    let ids = enqueue(&fake, &["echo", "slow", "dead.error"]).await;
    let lines = |rows: [String; 3]| rows.join("\n") + "\n";
    assert_eq!(
        ok(&fake, &["task", "ls"]).await,
        format!("{:36}  NAME        STATE      AGE\n", "ID")
            + &lines([
                format!("{}  dead.error  dead       1m 0s", ids[0]),
                format!("{}  slow        ready      1m 0s", ids[1]),
                format!("{}  echo        succeeded  1m 0s", ids[2]),
            ])
    );

    let (code, out, err) = run(&fake, &["task", "ls", "--limit", "2"]).await;
    assert_eq!((code, out.lines().count()), (0, 3));
    assert_eq!(err, "There are more: go on with --page 2\n");
    let rest = ok(&fake, &["task", "ls", "--limit", "2", "--page", "2"]).await;
    assert_eq!(
        rest.lines().nth(1),
        Some(format!("{}  echo  succeeded  1m 0s", ids[2]).as_str())
    );
}

#[tokio::test]
async fn a_long_name_does_not_push_all_rows_apart() {
    let fake = Fake::start().await;
    let (long, edge) = ("n".repeat(200), "e".repeat(32));
    let ids = enqueue(&fake, &["slow", &edge, &long]).await;
    let cut = "n".repeat(31) + "…";
    let expected = [
        format!("{}  {cut}  succeeded  1m 0s", ids[0]),
        format!("{}  {edge}  succeeded  1m 0s", ids[1]),
        format!("{}  {:32}  ready      1m 0s", ids[2], "slow"),
    ];
    let listed = ok(&fake, &["task", "ls"]).await;
    assert!(listed.lines().skip(1).eq(&expected), "{listed}");
    assert!(ok(&fake, &["task", "show", &ids[0]]).await.contains(&long));
}

#[tokio::test]
async fn tasks_are_objects_for_programs() {
    let fake = Fake::start().await;
    let empty = ok(&fake, &["task", "ls", "-o", "json"]).await;
    assert_eq!(empty, "{\"tasks\":[],\"next\":null}\n");
    let ids = enqueue(&fake, &["echo", "slow", "dead.error", "slow", "echo"]).await;
    let page = async |args: &[&str]| -> Value {
        let out = ok(&fake, &[&["task", "ls", "-o", "json"], args].concat()).await;
        serde_json::from_str(&out).unwrap()
    };
    let all = page(&[]).await;
    let tasks = all["tasks"].as_array().unwrap();
    assert!(tasks.iter().map(|task| &task["id"]).eq(&ids));
    for task in tasks {
        let id = task["id"].as_str().unwrap();
        let shown = ok(&fake, &["task", "show", id, "-o", "json"]).await;
        assert_eq!(shown.trim(), task.to_string(), "as `task show` has it");
    }
    let first = page(&["--state", "ready,dead", "--limit", "2"]).await;
    assert_eq!(
        (&first["tasks"][0]["id"], &first["tasks"][1]["id"]),
        (&ids[1].as_str().into(), &ids[2].as_str().into())
    );
    let next = first["next"].as_str().unwrap();
    let rest = page(&["--state", "ready", "--state", "dead", "--page", next]).await;
    assert_eq!(
        (&rest["tasks"][0]["id"], &rest["next"]),
        (&ids[3].as_str().into(), &Value::Null)
    );
}

#[tokio::test]
async fn filters_reach_the_broker() {
    let fake = Fake::start().await;
    let args = "task ls --state stopping --name resize --queue q --since 2023-11-14T22:13:20.5Z --limit 10000";
    let mut args: Vec<_> = args.split(' ').collect();
    args.extend(["--series", ""]);
    ok(&fake, &args).await;
    let expected = v1::ListTasksRequest {
        states: vec![v1::TaskState::Stopping.into()],
        name: "resize".to_owned(),
        queue: "q".to_owned(),
        series: Some(String::new()),
        since_ms: 1_700_000_000_500,
        limit: 10_000,
        page: String::new(),
    };
    assert_eq!(fake.listings(), [expected]);
    // Counted back on the broker's clock, which stood at 1.7e12 ms.
    ok(&fake, &["task", "ls", "--since", "1h"]).await;
    let since = fake.listings()[1].since_ms;
    assert!((1_699_996_400_000..1_699_996_460_000).contains(&since), "{since}");
}

#[tokio::test]
async fn what_makes_no_sense_is_named() {
    let fake = Fake::start().await;
    for (args, code, words) in [
        (
            &["--state", "done"][..],
            2,
            &["'done'", "--state", "scheduled, ready, running"][..],
        ),
        (&["--limit", "0"], 2, &["--limit", "1..=10000"]),
        (&["--limit", "10001"], 2, &["--limit", "1..=10000"]),
        (
            &["--since", "yesterday"],
            2,
            &["'yesterday'", "--since", "2030-01-31T12:00:00Z", "1h30m"],
        ),
        (&["--page", "bad"], 2, &["page is no token"]),
        (&["ID"], 2, &["'ID'"]),
    ] {
        let (got, out, err) = run(&fake, &[&["task", "ls"], args].concat()).await;
        assert_eq!((got, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(
            err.starts_with("asynq: ") && words.iter().all(|word| err.contains(word)),
            "{args:?}: {err}"
        );
    }
}
