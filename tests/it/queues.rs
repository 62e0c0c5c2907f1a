//! `asynq queue show` and `set`, against a broker.

use asynq_tests::Cluster;
use serde_json::json;

#[tokio::test]
async fn a_queue_is_set_shown_and_remembered() {
    let (mut cluster, _worker) = Cluster::with_worker(1).await;
    let none = cluster.run(&["queue", "show", "photos"]).await;
    assert_eq!(none.code, Some(6));
    assert!(
        none.err.starts_with("asynq: QUEUE_NOT_FOUND: queue photos"),
        "{}",
        none.err
    );
    for wrong in [
        &["queue", "set", "photos"][..],
        &["queue", "set", "photos", "--fast-requeue", "maybe"],
    ] {
        assert_eq!(cluster.run(wrong).await.code, Some(2));
    }
    let on = cluster.json(&["queue", "set", "photos", "--fast-requeue", "on"]).await;
    assert_eq!(
        (&on["name"], &on["fast_requeue"], &on["ready"]),
        (&json!("photos"), &json!(true), &json!(0))
    );
    cluster.broker.kill9().await;
    cluster.broker.restart().await;
    let shown = cluster.json(&["queue", "show", "photos"]).await;
    assert_eq!(shown, on);
    let text = cluster.ok(&["queue", "show", "photos"]).await;
    assert!(
        text.lines()
            .any(|line| line.split_whitespace().eq(["fast", "requeue", "on"])),
        "{text}"
    );
    let off = cluster.json(&["queue", "set", "photos", "--fast-requeue", "off"]).await;
    assert_eq!(off["fast_requeue"], json!(false));
    cluster.broker.stop().await;
}
