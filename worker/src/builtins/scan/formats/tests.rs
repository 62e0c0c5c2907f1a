//! Lines of each format, and those that nearly are.

use serde_json::{Value as Json, json};

use super::*;
use crate::builtins::scan::lines::Line;
use crate::builtins::scan::row::Row;

fn now() -> Now {
    Now("2026-11-22T21:12:02Z".parse().unwrap())
}

/// A line as a row.
fn row(format: Option<Format>, line: &str) -> Json {
    let line = Line {
        number: 7,
        bytes: line.as_bytes(),
        cut: false,
    };
    serde_json::to_value(Row::of(&line, format, now())).unwrap()
}

#[track_caller]
fn parses(format: &str, line: &str, time: &str, level: Json, fields: Json) {
    let read = row(Format::named(format), line);
    let expected = json!({"line": 7, "format": format, "time": time, "level": level, "fields": fields});
    assert_eq!(read, expected, "{line}");
}

#[track_caller]
fn stays_raw(format: &str, lines: &[&str]) {
    for line in lines {
        assert_eq!(
            row(Format::named(format), line),
            json!({"line": 7, "raw": line}),
            "{line}"
        );
    }
}

#[test]
fn access_logs() {
    let time = "2026-11-22T21:12:01.000Z";
    parses(
        "access",
        r#"192.0.2.7 - - [22/Nov/2026:21:12:01 +0000] "GET /a?b=c HTTP/1.1" 200 612 "-" "curl/8.5""#,
        time,
        json!(null),
        json!({"client": "192.0.2.7", "user": null, "method": "GET", "path": "/a?b=c", "protocol": "HTTP/1.1",
            "status": 200, "bytes": 612, "referer": null, "agent": "curl/8.5"}),
    );
    // Common; a user with a space; no length.
    parses(
        "access",
        r#"::1 - anna b [22/Nov/2026:22:12:01 +0100] "POST /x y HTTP/2.0" 304 -"#,
        time,
        json!(null),
        json!({"client": "::1", "user": "anna b", "method": "POST", "path": "/x y", "protocol": "HTTP/2.0",
            "status": 304, "bytes": null}),
    );
    // As nginx and Apache escape; more after it.
    parses(
        "access",
        r#"h - - [22/Nov/2026:21:12:01 +0000] "GET /\xC3\xA9\xFF\x22 HTTP/1.0" 404 0 "http://a/\"b\"" "x\\y\tz\q\x" "-""#,
        time,
        json!(null),
        json!({"client": "h", "user": null, "method": "GET", "path": "/é\u{fffd}\"", "protocol": "HTTP/1.0",
            "status": 404, "bytes": 0, "referer": "http://a/\"b\"", "agent": "x\\y\tz\\q\\x"}),
    );
    // No HTTP at all; nothing; HTTP/0.9.
    for (request, fields) in [
        (r"\x16\x03\x01", json!({"request": "\u{16}\u{3}\u{1}"})),
        ("", json!({"request": ""})),
        ("-", json!({"request": null})),
        ("GET /", json!({"method": "GET", "path": "/", "protocol": null})),
        ("get / HTTP/1.1", json!({"request": "get / HTTP/1.1"})),
    ] {
        let line = format!(r#"h - - [22/Nov/2026:21:12:01 +0000] "{request}" 400 0 "-" "-""#);
        let read = row(Some(Format::Access), &line);
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(read["fields"].get(name), Some(value), "{line}");
        }
    }
    stays_raw(
        "access",
        &[
            "",
            "h - - [22/Nov/2026:21:12:01 +0000]",
            r#"h - - [22/Nov/2026:21:12:01 +0000] "GET / HTTP/1.1" 2000 1"#,
            r#"h - - [22/Nov/2026:21:12:01 +0000] "GET / HTTP/1.1" 200 x"#,
            r#"h - - [22/Nov/2026:21:12:01 +0000] "GET / HTTP/1.1" 200"#,
            r#"h - - [22/Nov/2026:21:12:01 +0000] "GET / HTTP/1.1\" 200 1"#,
            r#"h - - [22/Nov/2026:21:12:01 +0000] "GET / HTTP/1.1" 200 1 "only one""#,
        ],
    );
}

#[test]
fn error_logs_of_nginx() {
    let time = "2026-11-22T21:12:01.000Z";
    parses(
        "nginx-error",
        r#"2026/11/22 21:12:01 [error] 12#34: *5 open() "/srv/a, b" failed (2: No such file or directory), client: 127.0.0.1, server: localhost, request: "GET /a, host: b HTTP/1.1", host: "x:80", referrer: "http://y/""#,
        time,
        json!("error"),
        json!({"pid": 12, "message": "open() \"/srv/a, b\" failed (2: No such file or directory)",
            "client": "127.0.0.1", "server": "localhost", "method": "GET", "path": "/a, host: b",
            "protocol": "HTTP/1.1", "host": "x:80", "referrer": "http://y/"}),
    );
    parses(
        "nginx-error",
        "2026/11/22 21:12:01 [warn] 1#1: the \"user\" directive makes sense only as root",
        time,
        json!("warning"),
        json!({"pid": 1, "message": "the \"user\" directive makes sense only as root"}),
    );
    stays_raw(
        "nginx-error",
        &[
            "2026/11/22 21:12:01 [loud] 1#1: x",
            "2026/13/22 21:12:01 [warn] 1#1: x",
            "2026/11/22 21:12:01 [warn] one#1: x",
            "goroutine 1 [running]:",
        ],
    );
}

#[test]
fn logs_of_dpkg() {
    let time = "2026-11-22T21:12:01.000Z";
    let at = |rest: &str| format!("2026-11-22 21:12:01 {rest}");
    for (rest, fields) in [
        (
            "startup archives unpack",
            json!({"action": "startup", "type": "archives", "command": "unpack"}),
        ),
        (
            "upgrade libc6:amd64 2.36-9 2.36-10",
            json!({"action": "upgrade", "package": "libc6:amd64", "from": "2.36-9", "to": "2.36-10"}),
        ),
        (
            "install nginx:all <none> 1.22",
            json!({"action": "install", "package": "nginx:all", "from": null, "to": "1.22"}),
        ),
        (
            "status half-configured libc6:amd64 2.36-9",
            json!({"action": "status", "state": "half-configured", "package": "libc6:amd64", "version": "2.36-9"}),
        ),
        (
            "conffile /etc/a keep",
            json!({"action": "conffile", "file": "/etc/a", "decision": "keep"}),
        ),
    ] {
        parses("dpkg", &at(rest), time, json!(null), fields);
    }
    let bad = [
        "",
        "status",
        "status installed",
        "explode a b c",
        "startup archives unpack more",
    ]
    .map(at);
    stays_raw("dpkg", &bad.each_ref().map(String::as_str));
}

#[test]
fn syslogs() {
    let time = "2026-11-22T21:12:01.000Z";
    let fields =
        |program: Json, pid: Json, message| json!({"host": "h", "program": program, "pid": pid, "message": message});
    parses(
        "syslog",
        "Nov 22 21:12:01 h sshd[7]: hello: you",
        time,
        json!(null),
        fields(json!("sshd"), json!(7), "hello: you"),
    );
    parses(
        "syslog",
        "Nov  2 21:12:01 h kernel: [1.0] up",
        "2026-11-02T21:12:01.000Z",
        json!(null),
        fields(json!("kernel"), json!(null), "[1.0] up"),
    );
    parses(
        "syslog",
        "<11>Nov 22 21:12:01 h su(pam)[x]: y",
        time,
        json!("error"),
        fields(json!("su(pam)[x]"), json!(null), "y"),
    );
    parses(
        "syslog",
        "Nov 22 21:12:01 h -- MARK --",
        time,
        json!(null),
        fields(json!(null), json!(null), "-- MARK --"),
    );
    parses(
        "syslog",
        "2026-11-22T22:12:01.004567+01:00 h cron[9]: (root) CMD (true)",
        "2026-11-22T21:12:01.004Z",
        json!(null),
        fields(json!("cron"), json!(9), "(root) CMD (true)"),
    );
    parses(
        "syslog",
        r#"<165>1 2026-11-22T21:12:01Z h app 9 ID47 [a@1 b="c\]"][d] hello"#,
        time,
        json!("notice"),
        fields(json!("app"), json!(9), "hello"),
    );
    parses(
        "syslog",
        "<0>1 2026-11-22T21:12:01Z h - - - - \u{feff}über",
        time,
        json!("emerg"),
        fields(json!(null), json!(null), "über"),
    );
    parses(
        "syslog",
        "<15>1 2026-11-22T21:12:01Z h a b - -",
        time,
        json!("debug"),
        fields(json!("a"), json!("b"), ""),
    );
    stays_raw(
        "syslog",
        &[
            "<192>Nov 22 21:12:01 h a: b",
            "<1>",
            "Nov 32 21:12:01 h a: b",
            "2026-11-22T21:12:01Z  INFO some::program: no syslog",
            "2026-11-22T21:12:01Z INFO no syslog",
            "<1>1 2026-11-22T21:12:01Z h a b - [x",
            "<1>1 2026-11-22T21:12:01Z h a b - x",
            "[    0.000000] Linux version",
        ],
    );
}

#[test]
fn the_format_that_fits_most_of_the_first_lines_is_taken() {
    let dpkg = "2026-11-22 21:12:01 startup archives unpack\n";
    let syslog = "Nov 22 21:12:01 h a: b\n";
    for (head, format) in [
        (String::new(), None),
        ("plain words\n".repeat(9), None),
        (format!("# a remark\n{dpkg}"), Some(Format::Dpkg)),
        (format!("{syslog}{dpkg}{syslog}"), Some(Format::Syslog)),
        (format!("{}{}", "x\n".repeat(DETECT_LINES), dpkg), None),
    ] {
        assert_eq!(Format::detect(head.as_bytes(), now()), format, "{head}");
    }
}
