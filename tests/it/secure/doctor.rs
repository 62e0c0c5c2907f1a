//! `asynq doctor` on a secured wire: what is shown on either side, and what it
//! says where the two do not get together.

use serde_json::Value;

use super::{Secured, ok, with};

/// What it found, by check; fails unless it ends with this code.
async fn doctor(secured: &Secured, flags: &[String], code: i32) -> impl Fn(&str) -> (String, String) + use<> {
    let ended = secured.asynq(flags, &["doctor", "-o", "json"]).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(code), ""), "{}", ended.out);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    move |name| {
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == name).unwrap();
        let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
        (text("verdict"), format!("{}; {}", text("found"), text("advice")))
    }
}

#[tokio::test]
async fn doctor_knows_a_good_wire_from_a_bad_one() {
    let secured = Secured::start().await;
    let _worker = secured.worker().await;
    let flags = secured.flags("caller");
    let found = doctor(&secured, &flags, 0).await;
    let (verdict, tls) = found("tls");
    assert_eq!(verdict, "ok", "{tls}");
    for part in ["a certificate for localhost, ", "127.0.0.1", "good for 82"] {
        assert!(tls.contains(part), "{tls}");
    }
    assert_eq!(
        found("session"),
        (
            "ok".into(),
            "the broker takes the token, for role caller or admin; ".into()
        )
    );
    // Round trip and clock depend on how busy the machine is.
    for name in ["name", "connection", "version", "workers", "tasks", "queues"] {
        assert_eq!(found(name).0, "ok", "{name}: {:?}", found(name));
    }

    ok("asynqd", &["tls", "init", &secured.at("others")]).await;
    let clear = format!("http://localhost:{}", secured.port);
    let without = with(&with(&with(&flags, "--token", None), "--cert", None), "--tls-key", None);
    let plain = with(&with(&without, "--ca", None), "--broker", Some(&clear));
    let foreign = with(&flags, "--ca", Some(&secured.at("others/ca.pem")));
    for (flags, check, words) in [
        (foreign, "tls", "not signed by a CA this client trusts"),
        (without, "session", "give --cert FILE and --tls-key FILE"),
        (plain, "session", "write its address as https://"),
        (with(&flags, "--token", None), "session", "TOKEN_MISSING"),
        (
            with(&flags, "--token", Some(&format!("@{}", secured.at("worker")))),
            "session",
            "a token that has the role caller",
        ),
    ] {
        let found = doctor(&secured, &flags, 1).await;
        let (verdict, said) = found(check);
        assert!(
            verdict == "fail" && said.contains(words),
            "{flags:?}: {verdict}: {said}"
        );
        assert_eq!(found("workers").0, "skipped");
    }
}

/// A broker that has its certificates but a short while.
#[tokio::test]
async fn doctor_warns_of_a_certificate_that_ends_soon() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| super::path(folder.path(), name);
    ok("asynqd", &["tls", "init", &at("certs"), "--days", "7"]).await;
    let args = ["--listen", "127.0.0.1:0", "--store", "memory"].map(str::to_owned);
    let tls = [("--tls-cert", "certs/server.pem"), ("--tls-key", "certs/server.key")];
    let args = args
        .into_iter()
        .chain(tls.into_iter().flat_map(|(flag, file)| [flag.to_owned(), at(file)]));
    let broker = super::Process::start("asynqd", args, at("asynqd.log").into())
        .await
        .unwrap();
    let address = broker.ready().split(' ').nth(2).unwrap();
    let url = format!("https://{address}");
    let ended = super::run("asynq", &["doctor", "--broker", &url, "--ca", &at("certs/ca.pem")]).await;
    let line = ended
        .out
        .lines()
        .find(|line| line.starts_with("warn  tls         a certificate for "));
    assert!(
        line.is_some_and(|line| line.contains("good for 6 days; have a new one made")),
        "{}",
        ended.out
    );
    // There is no worker, which is what fails.
    assert_eq!(ended.code, Some(1), "{}", ended.out);
}
