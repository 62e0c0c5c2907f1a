//! `asynq doctor` against brokers in all states: what it finds, and how it ends.

use serde_json::Value;
use tokio::net::TcpListener;

use crate::{asynq, end, fake::Fake, ok, run};

const CHECKS: [&str; 12] = [
    "address",
    "name",
    "connection",
    "tls",
    "session",
    "round trip",
    "version",
    "clock",
    "workers",
    "tasks",
    "queues",
    "open files",
];

async fn checks(fake: &Fake, args: &[&str], code: i32) -> Vec<Value> {
    let (got, out, err) = run(fake, &[&["doctor", "-o", "json"], args].concat()).await;
    assert_eq!((got, err.as_str()), (code, ""), "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["ok"], code == 0);
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(names, CHECKS);
    checks.clone()
}

#[track_caller]
fn says(checks: &[Value], name: &str, verdict: &str, found: &str) {
    let check = checks.iter().find(|check| check["check"] == name).unwrap();
    assert_eq!(check["verdict"], verdict, "{check}");
    assert!(check["found"].as_str().unwrap().contains(found), "{check}");
    let advised = check["advice"].as_str().is_some_and(|advice| !advice.is_empty());
    assert_eq!(advised, matches!(verdict, "warn" | "fail"), "{check}");
}

#[tokio::test]
async fn it_goes_from_here_to_the_tasks_and_changes_nothing() {
    let fake = Fake::start().await;
    ok(&fake, &["enqueue", "slow"]).await;
    ok(&fake, &["enqueue", "nobody"]).await;
    let enqueued = fake.messages().len();
    let checks = checks(&fake, &[], 0).await;
    says(&checks, "address", "ok", "from ASYNQ_BROKER");
    says(&checks, "name", "ok", "no name to look up");
    says(&checks, "connection", "ok", "answers in");
    says(&checks, "tls", "ok", "nothing leaves this machine");
    says(&checks, "session", "ok", "without a token");
    // On a busy machine it may be slow.
    let round_trip = checks.iter().find(|check| check["check"] == "round trip").unwrap();
    assert!(round_trip["found"].as_str().unwrap().ends_with(" ms"), "{round_trip}");
    // The fake is of another version and of another time.
    says(&checks, "version", "warn", "the broker is 0.0.1");
    says(&checks, "clock", "warn", "behind this machine's");
    says(&checks, "workers", "ok", "1 connected, 5 of 8 slots free");
    says(&checks, "tasks", "warn", "have no worker: nobody, slow");
    says(&checks, "queues", "ok", "1, none paused");
    let asked = fake.messages().split_off(enqueued);
    // All it asks for are lists, by calls of their own.
    assert_eq!(asked.iter().flatten().next(), None, "{asked:?}");
}

#[tokio::test]
async fn people_get_a_line_for_each_check() {
    let fake = Fake::start().await;
    let out = ok(&fake, &["doctor", "--broker", &fake.url()]).await;
    assert_eq!(out.lines().count(), CHECKS.len(), "{out}");
    let first = format!("ok    address     {}, from --broker", fake.url());
    assert_eq!(out.lines().next(), Some(first.as_str()));
    assert!(out.contains("\nwarn  clock       the broker's is "), "{out}");
}

#[tokio::test]
async fn each_way_to_fail_has_its_cause_and_skips_the_rest() {
    let fake = Fake::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_at = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let tls = fake.url().replace("http://", "https://");
    let ca = tempfile::NamedTempFile::new().unwrap();
    let no_ca = ca.path().to_str().unwrap();
    for (args, failed, found) in [
        (&["--broker", "nonsense"][..], 0, "\"nonsense\" is not the address"),
        (
            &["--broker", "http://broker.invalid"],
            1,
            "broker.invalid has no address",
        ),
        (&["--broker", &closed_at], 2, "nothing listens at"),
        (&["--ca", no_ca], 3, "what is to be shown is of no use"),
        (
            &["--broker", &tls, "--ca", no_ca],
            3,
            "what is to be shown is of no use",
        ),
    ] {
        let checks = checks(&fake, args, 1).await;
        for (number, name) in CHECKS.iter().enumerate().take(CHECKS.len() - 1) {
            match number {
                number if number < failed => says(&checks, name, "ok", ""),
                number if number == failed => says(&checks, name, "fail", found),
                _ => says(&checks, name, "skipped", "it needs what failed"),
            }
        }
        says(
            &checks,
            "open files",
            checks.last().unwrap()["verdict"].as_str().unwrap(),
            "",
        );
    }
}

/// Takes connections and says nothing: every check has its bound in time.
#[tokio::test]
async fn a_silent_listener_is_no_broker() {
    let fake = Fake::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", silent.local_addr().unwrap());
    let (code, out, err) = end(asynq(&fake, &["doctor", "--broker", &at]).spawn().unwrap()).await;
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert!(out.contains("\nFAIL  session     no broker at"), "{out}");
    assert!(out.contains("is it asynqd that listens there"), "{out}");
    let skipped = "\n-     not checked, for it needs what failed: round trip, version, clock, workers, tasks, queues\n";
    assert!(out.contains(skipped), "{out}");
}
