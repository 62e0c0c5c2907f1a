//! Each check, driven through all it can find.

use std::slice::from_ref;
use std::time::UNIX_EPOCH;

use asynq_proto::v1;

use super::*;

fn worker(state: &str, slots: u32, busy: u32, tasks: &[&str]) -> WorkerInfo {
    v1::WorkerInfo {
        state: state.to_owned(),
        slots,
        busy,
        tasks: tasks.iter().map(|&name| name.to_owned()).collect(),
        ..v1::WorkerInfo::default()
    }
    .into()
}

fn queue(name: &str, paused: bool) -> QueueInfo {
    v1::QueueInfo {
        name: name.to_owned(),
        paused,
        ..v1::QueueInfo::default()
    }
    .into()
}

/// `ok`, `warn` or `fail`, and the words that must be in what is told.
#[track_caller]
fn says(verdict: &Verdict, word: &str, parts: &[&str]) {
    let got = match verdict {
        Verdict::Ok(_) => "ok",
        Verdict::Warn(_) => "warn",
        Verdict::Fail(_) => "fail",
        Verdict::Skipped => "skipped",
    };
    let told = format!("{verdict:?}");
    assert!(got == word && parts.iter().all(|part| told.contains(part)), "{told}");
}

#[test]
fn every_check_tells_good_from_bad() {
    let own = env!("CARGO_PKG_VERSION");
    says(&version(own), "ok", &[own]);
    says(&version("0.0.1"), "warn", &["the broker is 0.0.1", own]);
    says(&version(""), "warn", &["does not tell"]);

    let silent = || Err("no answer in 10 s".to_owned());
    says(&round_trip(Ok(Duration::from_micros(340))), "ok", &["0.3 ms"]);
    says(&round_trip(Ok(Duration::from_millis(250))), "warn", &["250 ms"]);
    says(&round_trip(silent()), "fail", &["no answer"]);

    let (now, far) = (UNIX_EPOCH + Duration::from_secs(1_000_000), Duration::from_secs(90));
    says(&clock(now, now, false), "ok", &["agree"]);
    says(
        &clock(now + far, now, false),
        "warn",
        &["1m 30s ahead of this", "--trust-clock"],
    );
    says(&clock(now, now + far, false), "warn", &["1m 30s behind this"]);
    says(
        &clock(now, now, true),
        "warn",
        &["no task expires", "with --trust-clock if"],
    );

    let no = silent().unwrap_err();
    says(&workers(Err(&no)), "fail", &["no answer"]);
    says(&workers(Ok(&[])), "fail", &["none takes tasks", "asynq-worker"]);
    let gone = worker("lost", 4, 4, &["echo"]);
    says(&workers(Ok(from_ref(&gone))), "fail", &["1 more drain or are lost"]);
    let here = worker("active", 8, 3, &["echo"]);
    says(
        &workers(Ok(&[here.clone(), gone])),
        "ok",
        &["1 connected, 5 of 8", "1 more"],
    );
    says(
        &workers(Ok(&[worker("active", 2, 2, &[])])),
        "warn",
        &["0 of 2 slots free"],
    );

    says(
        &queues(Ok(&[queue("a", false), queue("b", false)])),
        "ok",
        &["2, none paused"],
    );
    says(
        &queues(Ok(&[queue("a", true), queue("b", false)])),
        "warn",
        &["1 of 2 paused: a"],
    );
    says(&queues(Err(&no)), "fail", &["no answer"]);

    let waiting = |names: &[&str], more| Ready {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        more,
    };
    says(
        &tasks(Ok(&waiting(&["echo"], false)), Ok(from_ref(&here))),
        "ok",
        &["of 1 that"],
    );
    let stranded = waiting(&["echo", "b", "a", "a"], true);
    let told = tasks(Ok(&stranded), Ok(from_ref(&here)));
    says(&told, "warn", &["of the newest 4", "3 have no worker: a, b"]);
    let many = waiting(&["a", "b", "c", "d", "e", "f", "g"], false);
    says(&tasks(Ok(&many), Ok(&[here])), "warn", &["a, b, c, d, e and 2 more"]);
    let lost = worker("lost", 1, 0, &["echo"]);
    says(
        &tasks(Ok(&waiting(&["echo"], false)), Ok(&[lost])),
        "warn",
        &["1 have no worker: echo"],
    );
    says(&tasks(Err(&no), Ok(&[])), "fail", &["no answer"]);
}
