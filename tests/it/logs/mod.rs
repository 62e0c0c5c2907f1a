//! Log files of real programs, through real processes: broker, workers, command.

mod broken;
mod pictures;

use std::fs;
use std::path::{Path, PathBuf};

use asynq_tests::{Cluster, Ended, Nginx, Process};
use serde_json::json;

/// A folder for logs, and a worker that may read it and nothing else.
async fn cluster(workers: usize) -> (Cluster, PathBuf, Vec<Process>) {
    let cluster = Cluster::start().await;
    let logs = cluster.broker.folder().join("logs");
    fs::create_dir(&logs).unwrap();
    let mut running = Vec::new();
    for n in 1..=workers {
        running.push(worker(&cluster, &logs, n).await);
    }
    (cluster, logs, running)
}

/// Worker `n`, with two slots.
async fn worker(cluster: &Cluster, files: &Path, n: usize) -> Process {
    let (url, name) = (cluster.broker.url(), format!("worker-{n}"));
    let args = [
        "--broker",
        &url,
        "--name",
        &name,
        "--slots",
        "2",
        "--builtins",
        "--files",
    ];
    let args = args.into_iter().map(AsRef::as_ref).chain([files.as_os_str()]);
    let log = cluster.broker.folder().join(format!("{name}.log"));
    let worker = Process::start("asynq-worker", args, log).await;
    worker.unwrap_or_else(|said| panic!("asynq-worker: {said}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// Runs `demo logs` with these arguments.
async fn demo(cluster: &Cluster, args: &[&str]) -> Ended {
    cluster.run(&[&["demo", "logs"], args].concat()).await
}

/// The numbers that a line of the summary gives after a label: `status   200 3, 404 1`.
#[track_caller]
fn counts(out: &str, format: &str, label: &str) -> Vec<(String, u64)> {
    let mut lines = out.lines().skip_while(|line| !line.starts_with(&format!("{format}: ")));
    let line = lines.find(|line| line.trim_start().starts_with(&format!("{label} ")));
    let line = line.unwrap_or_else(|| panic!("no {label} of {format} in\n{out}"));
    let values = line.trim_start()[label.len()..].trim_start().split(", ");
    let count = |value: &str| {
        let (name, n) = value.rsplit_once(' ')?;
        Some((name.to_owned(), n.parse().ok()?))
    };
    values.filter_map(count).collect()
}

/// Format, rows, unparsed and end of a file in the table.
#[track_caller]
fn row(out: &str, path: &str) -> (String, u64, u64, String) {
    let line = out.lines().find(|line| line.ends_with(&format!(" {path}")));
    let line = line.unwrap_or_else(|| panic!("no {path} in\n{out}"));
    let cells: Vec<_> = line.split_whitespace().collect();
    let number = |cell: &str| cell.parse().unwrap_or_else(|_| panic!("{line}"));
    (
        cells[0].to_owned(),
        number(cells[1]),
        number(cells[2]),
        cells[5].to_owned(),
    )
}

/// So many requests of each sort, and what status nginx gives each.
const REQUESTS: [(usize, &[u8], u16); 8] = [
    (
        150,
        b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: plain/1\r\nConnection: close\r\n\r\n",
        200,
    ),
    (
        60,
        b"GET /old?from=\"here\" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        302,
    ),
    (
        70,
        b"GET /missing/\xc3\xa9/%7Euser HTTP/1.0\r\nUser-Agent: says \"hi\" \\o/\r\n\r\n",
        404,
    ),
    (
        20,
        b"GET /bad\xff\xfebytes HTTP/1.0\r\nReferer: \x01\x02\xff\"\r\nUser-Agent: \xf0\x9f\x92\xa9\r\n\r\n",
        404,
    ),
    (9, b"GET /teapot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 418),
    (5, b"GET /broken HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 502),
    (4, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (
        2,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        405,
    ),
];

/// Has nginx write its logs; gives how many requests there were.
async fn nginx_logs(folder: &Path) -> u64 {
    let nginx = Nginx::start(folder).await;
    for (times, request, status) in REQUESTS {
        for _ in 0..times {
            assert_eq!(
                nginx.send(request).await,
                status,
                "{:?}",
                String::from_utf8_lossy(request)
            );
        }
    }
    nginx.stop().await;
    REQUESTS.iter().map(|(times, ..)| *times as u64).sum()
}

#[tokio::test]
async fn every_request_that_nginx_served_is_a_row() {
    let (cluster, logs, _workers) = cluster(2).await;
    let sent = nginx_logs(&logs).await;
    let (access, error) = (logs.join("access.log"), logs.join("error.log"));
    let ended = demo(&cluster, &[text(&access), text(&error)]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let out = &ended.out;
    assert_eq!(
        row(out, text(&access)),
        ("access".into(), sent, 0, "ok".into()),
        "{out}"
    );
    let (format, errors, unparsed, end) = row(out, text(&error));
    assert_eq!(
        (format.as_str(), unparsed, end.as_str()),
        ("nginx-error", 0, "ok"),
        "{out}"
    );
    // The busiest; a request that is none has the seventh.
    let statuses = [("200", 150), ("404", 90), ("302", 60), ("418", 9), ("502", 5)];
    assert_eq!(
        counts(out, "access", "status")[..5],
        statuses.map(|(status, n)| (status.to_owned(), n)),
        "{out}"
    );
    assert_eq!(counts(out, "access", "client"), [("127.0.0.1".to_owned(), sent)]);
    let paths = counts(out, "access", "path");
    assert_eq!(paths[0], ("/".to_owned(), 152));
    assert!(paths.contains(&("/missing/é/%7Euser".to_owned(), 70)), "{paths:?}");
    assert!(
        paths.contains(&("/bad\u{fffd}\u{fffd}bytes".to_owned(), 20)),
        "{paths:?}"
    );
    let levels = counts(out, "nginx-error", "level");
    assert!(
        levels.contains(&("error".to_owned(), 95)),
        "90 files not found, 5 servers not reached: {out}"
    );
    assert!(
        out.contains(&format!("2 files, {} rows, 0 unparsed, ", sent + errors)),
        "{out}"
    );
    assert!(
        ended.err.contains("2 of 2 files") && ended.err.contains(" rows/s"),
        "{}",
        ended.err
    );
    // Without a file to draw into, the terminal is drawn on.
    assert!(out.contains("\nrows in each ") && out.contains('█'), "{out}");
    assert!(
        out.lines()
            .filter(|line| !line.ends_with("access.log") && !line.ends_with("error.log"))
            .all(|line| line.chars().count() <= 120)
    );
}

const DPKG: &str = include_str!("dpkg.log");

#[tokio::test]
async fn what_dpkg_did_is_told_and_paths_are_those_of_the_workers() {
    let (cluster, logs, _workers) = cluster(1).await;
    fs::write(logs.join("dpkg.log"), DPKG).unwrap();
    // Nothing of this name where the command runs: the workers' own.
    let ended = demo(&cluster, &["dpkg.log"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let lines = DPKG.lines().count() as u64;
    assert_eq!(row(&ended.out, "dpkg.log"), ("dpkg".into(), lines, 0, "ok".into()));
    let actions = counts(&ended.out, "dpkg", "action");
    let count = |action: &str| {
        DPKG.lines()
            .filter(|line| line.split(' ').nth(2) == Some(action))
            .count() as u64
    };
    for action in ["status", "configure", "install"] {
        assert!(actions.contains(&(action.to_owned(), count(action))), "{actions:?}");
    }
    // And the one of this machine, if it has one.
    let own = Path::new("/var/log/dpkg.log");
    if let Ok(own) = fs::read(own) {
        fs::write(logs.join("own.log"), &own).unwrap();
        let ended = demo(&cluster, &["own.log"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let lines = own.iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(row(&ended.out, "own.log"), ("dpkg".into(), lines, 0, "ok".into()));
    }
}

#[tokio::test]
async fn a_digest_is_that_of_the_file() {
    let (cluster, logs, _workers) = cluster(1).await;
    fs::write(logs.join("abc"), "abc").unwrap();
    let out = cluster.ok(&["call", "sha256", r#"{"path":"abc"}"#]).await;
    let digest: serde_json::Value = serde_json::from_str(&out).unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest, json!({"path": "abc", "bytes": 3, "sha256": abc}));
    for path in ["/etc/passwd", "../data", "nothing"] {
        let ended = cluster
            .run(&["call", "sha256", &json!({ "path": path }).to_string()])
            .await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(
            ended.err.contains("REJECTED") && ended.err.contains("nothing outside it is read"),
            "{}",
            ended.err
        );
    }
    let out = cluster.ok(&["iterate", "scan", r#"{"path":"abc","from":1}"#]).await;
    assert_eq!(out, r#"{"line":1,"raw":"abc"}"#);
}
