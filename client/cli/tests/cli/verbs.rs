//! `asynq task cancel|retry|purge` and `asynq series cancel`, over one task and many.

use crate::{fake::Fake, ok, run};

async fn enqueue(fake: &Fake, name: &str) -> String {
    ok(fake, &["enqueue", name]).await.trim().to_owned()
}

#[tokio::test]
async fn each_task_named_has_its_line() {
    let fake = Fake::start().await;
    let (dead, slow) = (enqueue(&fake, "dead.error").await, enqueue(&fake, "slow").await);
    let late = enqueue(&fake, "dead.timeout").await;
    assert_eq!(
        ok(&fake, &["task", "retry", &dead, &slow]).await,
        format!("{dead} retried\n{slow} lives already: ready\n")
    );
    let (code, out, err) = run(&fake, &["task", "retry", &late, &slow, "-o", "json"]).await;
    assert_eq!(
        (code, out),
        (
            6,
            format!("{{\"id\":\"{slow}\",\"outcome\":\"alive\",\"state\":\"ready\"}}\n")
        )
    );
    assert_eq!(err, "asynq: NOT_RETRYABLE: a reason why not\n");
}

#[tokio::test]
async fn many_are_told_in_numbers() {
    let fake = Fake::start().await;
    for name in ["slow", "dead.error", "slow", "dead.error", "dead.timeout", "echo"] {
        enqueue(&fake, name).await;
    }
    let (code, out, err) = run(&fake, &["task", "retry", "--all"]).await;
    assert_eq!((code, out.as_str()), (6, "2 retried, 1 refused\n"));
    assert_eq!(
        err,
        "asynq: NOT_RETRYABLE: 1 tasks were refused, the first: a reason why not\n"
    );
    assert_eq!(
        ok(&fake, &["task", "retry", "--name", "dead.error", "-o", "json"]).await,
        "{\"retried\":2,\"changed\":0,\"refused\":0}\n"
    );
    assert_eq!(ok(&fake, &["series", "cancel", "s"]).await, "2 cancelled\n");
    assert_eq!(
        ok(&fake, &["task", "purge", "--state", "dead,succeeded"]).await,
        "4 purged\n"
    );
    assert_eq!(
        ok(&fake, &["task", "cancel", "--state", "ready", "-o", "json"]).await,
        "{\"cancelled\":0,\"stopping\":0,\"finished\":0}\n"
    );
}
