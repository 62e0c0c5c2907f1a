//! The HTTP port: its pages, what it refuses, how it ends.

use std::io::ErrorKind;
use std::net::TcpStream;

use asynq_tests::{Cluster, PATIENCE, get, run, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn probes_are_answered_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    let http = cluster.broker.http();
    for (path, status, part) in [
        ("/healthz", 200, "ok\n"),
        ("/readyz", 200, "ok\n"),
        ("/metrics", 200, "asynqd_build_info{"),
        ("/", 404, "/healthz, /readyz and /metrics"),
        ("/healthz/", 404, "/readyz"),
    ] {
        let (got, _, text) = get(http, path).await;
        assert!(got == status && text.contains(part), "{path}: {got} {text}");
    }
    let (_, head, _) = get(http, "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    cluster.broker.stop().await;
    assert!(TcpStream::connect(http).is_err());
}

#[tokio::test]
async fn who_says_nothing_goes_before_who_is_slow() {
    let cluster = Cluster::start().await;
    let connect = || async { tokio::net::TcpStream::connect(cluster.broker.http()).await.unwrap() };
    let mut slow = connect().await;
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let mut silent = connect().await;
    let mut word = [0; 1];
    let end = within("the end of who says nothing", PATIENCE, silent.read(&mut word));
    assert_eq!(end.await.unwrap(), 0, "it is closed without a word");
    assert_eq!(slow.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_port_that_is_taken_or_open_to_strangers_is_refused_by_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let here = ["--store", "memory", "--listen", "127.0.0.1:0"];
    for (http, code, parts) in [
        (address.as_str(), 1, [address.as_str(), "--http"]),
        ("0.0.0.0:0", 2, ["refusing to serve HTTP on 0.0.0.0:0", "--insecure"]),
        ("7741", 2, ["7741", "none"]),
    ] {
        let ended = run("asynqd", &[&here[..], &["--http", http]].concat()).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{}", ended.err);
        assert!(parts.iter().all(|part| ended.err.contains(part)), "{}", ended.err);
    }
}
