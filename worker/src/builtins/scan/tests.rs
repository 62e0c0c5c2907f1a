//! Scans of whole files, and of whatever else a file may be.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use crate::calls::OfRun;
use crate::context::{Control, LeaseToken, Run, StopCause};
use crate::limits::MAX_LOG_LINE_BYTES;

fn context() -> (Context, Control) {
    let control = Control::default();
    let run = Run {
        token: LeaseToken {
            task_id: uuid::Uuid::nil(),
            epoch: 1,
            attempt: 1,
        },
        name: "scan".into(),
        queue: "default".into(),
        series: String::new(),
        time: crate::extend::RunTime::default(),
        at_most_once: false,
        control: control.clone(),
        calls: OfRun::default(),
        start: crate::emit::Start::default(),
    };
    (Context::new(run), control)
}

const LOG: &str = "2026-11-22 21:12:01 startup archives unpack\nodd\n2026-11-22 21:12:02 configure a:all 1 2\n";

fn file(name: &str, content: &[u8]) -> (TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    let files = Files::under(folder.path()).unwrap();
    (folder, files)
}

/// All rows, and how the scan failed if it did.
fn rows(files: &Files, args: Json) -> (Vec<Json>, Option<TaskError>) {
    let (mut rows, mut failed) = (Vec::new(), None);
    for row in scan(files, context().0, serde_json::from_value(args).unwrap()) {
        assert!(failed.is_none(), "an error is the last item");
        match row {
            Ok(row) => rows.push(serde_json::to_value(row).unwrap()),
            Err(error) => failed = Some(error),
        }
    }
    (rows, failed)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_file_is_the_same_plain_compressed_and_in_parts() {
    let (_folder, files) = file("a.log", LOG.as_bytes());
    let (plain, failed) = rows(&files, json!({"path": "a.log"}));
    assert_eq!(failed, None);
    assert_eq!(plain.len(), 3);
    assert_eq!(plain[1], json!({"line": 2, "raw": "odd"}));
    assert_eq!(
        (&plain[2]["line"], &plain[2]["fields"]["package"]),
        (&json!(3), &json!("a:all"))
    );
    let (_folder, files) = file("a.log", &gzip(LOG.as_bytes()));
    assert_eq!(rows(&files, json!({"path": "a.log"})), (plain.clone(), None));
    let members = [gzip(&LOG.as_bytes()[..20]), gzip(b""), gzip(&LOG.as_bytes()[20..])].concat();
    let (_folder, files) = file("a.log", &members);
    assert_eq!(rows(&files, json!({"path": "a.log"})), (plain.clone(), None));
    // The rest of a lost scan has the format of the whole.
    assert_eq!(
        rows(&files, json!({"path": "a.log", "from": 3})),
        (plain[2..].to_vec(), None)
    );
    assert_eq!(rows(&files, json!({"path": "a.log", "from": 9})), (vec![], None));
    // By another format, all is raw.
    let (raw, _) = rows(&files, json!({"path": "a.log", "format": "syslog"}));
    assert!(raw.iter().all(|row| row.get("raw").is_some()), "{raw:?}");
}

#[test]
fn what_is_not_to_be_read_is_said() {
    let failure = |content: &[u8], args: Json| {
        let (_folder, files) = file("a", content);
        let (rows, failed) = rows(&files, args);
        let failed = failed.expect("a failure");
        assert!(!failed.retryable);
        (rows.len(), failed.kind, failed.message)
    };
    let path = json!({"path": "a"});
    let (rows, kind, message) = failure(b"x", json!({"path": "a", "format": "json"}));
    assert_eq!((rows, kind.as_str()), (0, "rejected"));
    assert_eq!(
        message,
        "there is no format \"json\"; there are auto, access, nginx-error, dpkg, syslog"
    );
    let (rows, kind, _) = failure(b"PNG\n\0\0\n", path.clone());
    assert_eq!((rows, kind.as_str()), (0, "not_text"));
    let (rows, kind, _) = failure(&gzip(b"PNG\n\0\0\n"), path.clone());
    assert_eq!((rows, kind.as_str()), (0, "not_text"));
    let (rows, kind, _) = failure(b"", json!({"path": "b"}));
    assert_eq!((rows, kind.as_str()), (0, "rejected"));

    // Rows that do not compress to nothing.
    let log: String = (0..5000)
        .map(|i| format!("2026-11-22 21:12:01 configure p{} {i} {}\n", i * 7919 % 5000, i * i))
        .collect();
    let whole = gzip(log.as_bytes());
    for cut in [
        whole.len() - 1,
        whole.len() - 8,
        whole.len() - 9,
        whole.len() / 2,
        10,
        3,
    ] {
        let (rows, kind, message) = failure(&whole[..cut], path.clone());
        assert_eq!(kind, "truncated", "{cut}: {message}");
        assert!(message.contains(&format!("whole up to line {rows}")), "{message}");
        match cut {
            cut if cut >= whole.len() - 8 => assert_eq!(rows, 5000),
            cut if cut > 10 => assert!((1000..=5000).contains(&rows), "{cut}: {rows}"),
            _ => assert_eq!(rows, 0),
        }
    }
    let mut damaged = whole.clone();
    damaged[whole.len() - 6] ^= 1; // of the checksum
    let (rows, kind, message) = failure(&damaged, path.clone());
    assert_eq!(kind, "corrupt", "{message}");
    assert_eq!(rows, 5000);
    // Something after the end.
    let (rows, kind, _) = failure(&[&whole[..], b"more of it"].concat(), path);
    assert_eq!((rows, kind.as_str()), (5000, "corrupt"));
}

#[test]
fn the_page_for_users_names_every_format_and_kind() {
    let page = include_str!("../../../../docs/logs.md");
    let kinds = [
        KIND_NOT_TEXT,
        KIND_TRUNCATED,
        KIND_CORRUPT,
        crate::files::KIND_UNREADABLE,
        asynq_proto::KIND_REJECTED,
    ];
    for name in Format::ALL.map(Format::name).into_iter().chain(kinds).chain([AUTO]) {
        assert!(page.contains(&format!("\n| `{name}` | ")), "{name}");
    }
}

#[test]
fn bad_bytes_become_marks_and_long_lines_are_cut() {
    let long = "y".repeat(MAX_LOG_LINE_BYTES + 1);
    let (_folder, files) = file("a", &[b"caf\xe9\n", long.as_bytes(), b"\n\nlast"].concat());
    let (rows, failed) = rows(&files, json!({"path": "a"}));
    assert_eq!(failed, None);
    assert_eq!(rows[0], json!({"line": 1, "raw": "caf\u{fffd}"}));
    assert_eq!(
        (&rows[1]["cut"], rows[1]["raw"].as_str().unwrap().len()),
        (&json!(true), long.len() - 1)
    );
    assert_eq!(
        rows[2..],
        [json!({"line": 3, "raw": ""}), json!({"line": 4, "raw": "last"})]
    );
}

#[test]
fn a_stopped_scan_ends() {
    let (_folder, files) = file("a", &b"x".repeat(50_000_000));
    let (context, control) = context();
    control.stop(StopCause::Cancelled);
    let args = serde_json::from_value(json!({"path": "a"})).unwrap();
    assert!(scan(&files, context, args).next().is_none());
}

#[test]
fn this_machines_own_logs_parse() {
    // A machine without dpkg has none; the fixtures above hold the rules.
    let Ok(files) = Files::under(Path::new("/var/log")) else {
        return;
    };
    let (rows, failed) = rows(&files, json!({"path": "dpkg.log"}));
    if failed.is_none() {
        let raw: Vec<_> = rows.iter().filter(|row| row.get("raw").is_some()).collect();
        assert!(raw.is_empty(), "{raw:?}");
    }
}

proptest! {
    #[test]
    fn no_input_panics_and_every_line_gives_one_row(bytes in lines()) {
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 0).collect();
        let lines = bytes.split(|byte| *byte == b'\n').count() - usize::from(bytes.is_empty() || bytes.ends_with(b"\n"));
        let (_folder, files) = file("a", &bytes);
        for format in ["auto", "access", "nginx-error", "dpkg", "syslog"] {
            let (rows, failed) = rows(&files, json!({"path": "a", "format": format}));
            prop_assert_eq!(failed, None);
            prop_assert_eq!(rows.len(), lines);
        }
    }
}

/// Anything, and what is nearly right.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let near = prop::sample::select(vec![
        r#"192.0.2.7 - - [22/Nov/2026:21:12:01 +0000] "GET /a HTTP/1.1" 200 612 "-" "curl/8.5""#,
        r#"2026/11/22 21:12:01 [error] 12#34: *5 open() failed, client: 127.0.0.1, request: "GET / HTTP/1.1""#,
        "2026-11-22 21:12:01 upgrade libc6:amd64 2.36-9 2.36-10",
        "<11>Nov 22 21:12:01 h sshd[7]: hello",
        "2026-11-22T22:12:01.004567+01:00 h cron[9]: x",
        "<165>1 2026-11-22T21:12:01Z h app 9 ID47 [a@1 b=\"c\\]\"] hello",
    ]);
    let damaged = (near, any::<prop::sample::Index>(), any::<u8>(), 0_usize..3).prop_map(|(line, at, byte, how)| {
        let mut line = line.as_bytes().to_vec();
        let at = at.index(line.len());
        match how {
            0 => line[at] = byte,
            1 => line.truncate(at),
            _ => line.insert(at, byte),
        }
        line
    });
    let anything = prop::collection::vec(1_u8.., 0..80);
    prop::collection::vec(prop_oneof![damaged, anything], 0..12).prop_map(|lines| lines.join(&b'\n'))
}
