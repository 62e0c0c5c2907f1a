//! Files that cannot be read, and workers that do not live to read them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use asynq_tests::{Ended, PATIENCE, Signal, eventually, within};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{cluster, demo, nginx_logs, row, text, worker};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Lines that do not compress to nothing.
fn syslog(lines: u64) -> String {
    let line = |n: u64| {
        let (minute, second) = (n / 60 % 60, n % 60);
        let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "Nov 21 {:02}:{minute:02}:{second:02} host prog-{}[{n}]: noise {noise:x}\n",
            n / 3600 % 24,
            n % 3
        )
    };
    (0..lines).map(line).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_named_and_the_rest_is_read() {
    let (cluster, logs, _workers) = cluster(2).await;
    let nginx = logs.join("nginx");
    let sent = nginx_logs(&nginx).await;
    let access = fs::read(nginx.join("access.log")).unwrap();
    // What is wanted lies apart from what nginx needs.
    let wanted = logs.join("wanted");
    fs::create_dir_all(wanted.join("old")).unwrap();
    let path = |name: &str| wanted.join(name);
    fs::rename(nginx.join("access.log"), path("access.log")).unwrap();
    fs::write(path("old/access.log.1.gz"), gzip(&access)).unwrap();
    // Compressed in two runs, under a name that does not tell.
    let half = access.len() / 2;
    fs::write(
        path("old/access.log.2"),
        [gzip(&access[..half]), gzip(&access[half..])].concat(),
    )
    .unwrap();
    let log = syslog(20_000);
    let whole = gzip(log.as_bytes());
    fs::write(path("truncated.gz"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path("picture.log"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    fs::write(path("secret.log"), "nobody may read this\n").unwrap();
    fs::set_permissions(path("secret.log"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::write(path("empty.log"), "").unwrap();
    fs::write(path("plain.log"), "no log\nthat anybody knows\ncaf\u{e9}\n").unwrap();
    // Never opened: a pipe, and a link to what lies outside.
    mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    symlink("/etc/passwd", path("link.log")).unwrap();

    let missing = logs.join("missing.log");
    let ended = demo(
        &cluster,
        &[text(&wanted), text(&missing), "../outside.log", "/etc/passwd"],
    )
    .await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let (out, err) = (&ended.out, &ended.err);
    for name in ["access.log", "old/access.log.1.gz", "old/access.log.2"] {
        assert_eq!(row(out, text(&path(name))), ("access".into(), sent, 0, "ok".into()));
    }
    let (format, rows, unparsed, end) = row(out, text(&path("truncated.gz")));
    assert_eq!((format.as_str(), unparsed, end.as_str()), ("syslog", 0, "truncated"));
    assert!((5_000..20_000).contains(&rows), "{rows}");
    assert_eq!(
        row(out, text(&path("picture.log"))),
        ("-".into(), 0, 0, "not_text".into())
    );
    assert_eq!(row(out, text(&path("empty.log"))), ("-".into(), 0, 0, "ok".into()));
    assert_eq!(row(out, text(&path("plain.log"))), ("-".into(), 3, 3, "ok".into()));
    for outside in [text(&missing), "../outside.log", "/etc/passwd"] {
        assert_eq!(row(out, outside).3, "rejected");
        assert!(err.contains(&format!("asynq: REJECTED: no file {outside:?} ")), "{err}");
    }
    assert!(
        err.contains(&format!(
            "asynq: NOT_TEXT: {:?} is no text: ",
            text(&path("picture.log"))
        )),
        "{err}"
    );
    assert!(
        err.contains("truncated.gz\" is compressed and ends too soon")
            && err.contains(&format!("whole up to line {rows}")),
        "{err}"
    );
    assert!(err.contains("asynq: SKIPPED: 2 paths are no regular files"), "{err}");
    // root may read everything.
    let failed = match rustix::process::geteuid().is_root() {
        true => 5,
        false => {
            assert_eq!(row(out, text(&path("secret.log"))).3, "unreadable");
            6
        }
    };
    assert!(out.contains(&format!("; {failed} files failed")), "{out}");
    // In the order of the names, each folder after its files.
    let named: Vec<_> = out
        .lines()
        .filter(|line| line.contains("/wanted/"))
        .map(|line| line.rsplit('/').next())
        .collect();
    let expected = [
        "access.log",
        "empty.log",
        "picture.log",
        "plain.log",
        "secret.log",
        "truncated.gz",
        "access.log.1.gz",
        "access.log.2",
    ];
    assert_eq!(named, expected.map(Some));

    let ended = demo(&cluster, &[text(&path("picture.log"))]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    assert!(
        ended.err.contains("asynq: FAILED: no file could be read to its end"),
        "{}",
        ended.err
    );
    let ended = demo(&cluster, &[text(&path("pipe"))]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.out);
    assert!(
        ended
            .err
            .contains("there is no file to read: 1 path is no regular file"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_file_whose_worker_dies_is_read_on_and_every_row_counts_once() {
    let (cluster, logs, mut workers) = cluster(1).await;
    let lines = 400_000;
    let log = logs.join("syslog.gz");
    fs::write(&log, gzip(syslog(lines).as_bytes())).unwrap();
    let mut demo = cluster.spawn(&["demo", "logs", text(&log)]);
    let client = cluster.client().await;
    let scans = async |name: &'static str| {
        eventually("the scan to be under way", PATIENCE, || async {
            let workers = client.workers().await.ok()?;
            let worker = workers.iter().find(|worker| worker.name == name)?;
            (worker.busy == 1).then_some(())
        })
        .await;
    };
    scans("worker-1").await;
    // Stopped first, so that it certainly has the scan when it dies.
    workers[0].signal(Signal::STOP);
    scans("worker-1").await;
    workers[0].kill9().await;
    let _second = worker(&cluster, &logs, 2).await;
    // It goes on.
    let mut lines_of = BufReader::new(demo.stderr.take().expect("a pipe")).lines();
    let ended = within("the end", 4 * PATIENCE, Ended::of(demo)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    assert_eq!(row(&ended.out, text(&log)), ("syslog".into(), lines, 0, "ok".into()));
    let scans = client.tasks().name("scan").await.expect("they are kept").tasks;
    let lost = scans.iter().map(|scan| (scan.attempt, scan.losses));
    assert_eq!(lost.collect::<Vec<_>>(), [(2, 1)], "it was run on by another worker");
    let mut said = Vec::new();
    while let Some(line) = lines_of.next_line().await.expect("a pipe can be read") {
        said.push(line);
    }
    assert!(
        said.last()
            .is_some_and(|last| last.contains("1 of 1 files, 400000 rows")),
        "{said:?}"
    );
}

#[tokio::test]
async fn ctrl_c_stops_the_scans() {
    let (cluster, logs, _workers) = cluster(1).await;
    let log = logs.join("syslog");
    fs::write(&log, syslog(2_000_000)).unwrap();
    let demo = cluster.spawn(&["demo", "logs", text(&log), "-o", text(&logs.join("never.svg"))]);
    let client = cluster.client().await;
    eventually("the scan to be under way", PATIENCE, || async {
        let workers = client.workers().await.ok()?;
        workers.iter().any(|worker| worker.busy == 1).then_some(())
    })
    .await;
    asynq_tests::interrupt(&demo);
    let ended = Ended::of(demo).await;
    assert_eq!(ended.code, Some(5), "{}", ended.err);
    assert!(ended.err.contains("asynq: CANCELLED: "), "{}", ended.err);
    eventually("the tasks to end", PATIENCE, || async {
        let queue = client.queues().await.ok()?.pop()?;
        (queue.ready + queue.running + queue.scheduled == 0).then_some(())
    })
    .await;
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 1, "nothing but the log");
}
