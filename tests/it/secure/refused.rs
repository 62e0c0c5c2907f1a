//! Who is refused reads what to do, and the broker's log tells who it was.

use asynq_tests::{PATIENCE, Process, run, within};
use asynq_worker::{Context, Iter, OnLoss, Task, TaskError, Worker};
use tokio::sync::oneshot;

use super::{Secured, ok, with};

#[tokio::test]
async fn who_is_refused_reads_what_to_do() {
    let secured = Secured::start().await;
    ok("asynqd", &["tls", "init", &secured.at("others")]).await;
    std::fs::write(secured.at("forged"), "asynq_0000").unwrap();
    let good = secured.flags("caller");
    let but = |flag: &str, value: Option<&str>| with(&good, flag, value);
    let file = |name: &str| format!("@{}", secured.at(name));
    let foreign = with(
        &but("--cert", Some(&secured.at("others/caller.pem"))),
        "--tls-key",
        Some(&secured.at("others/caller.key")),
    );
    let servers = with(
        &but("--cert", Some(&secured.at("certs/server.pem"))),
        "--tls-key",
        Some(&secured.at("certs/server.key")),
    );
    let plain = vec!["--broker".to_owned(), format!("http://localhost:{}", secured.port)];
    let by_address = format!("https://127.0.0.2:{}", secured.port);
    for (flags, code, said) in [
        (
            but("--ca", Some(&secured.at("others/ca.pem"))),
            3,
            "TLS: no connection to https://localhost",
        ),
        (but("--ca", Some(&secured.at("others/ca.pem"))), 3, "give --ca FILE"),
        (but("--broker", Some(&by_address)), 3, "is not for \"127.0.0.2\""),
        (plain, 3, "speaks TLS: write its address as https://"),
        (
            with(&but("--cert", None), "--tls-key", None),
            6,
            "CERTIFICATE_REFUSED: no connection to",
        ),
        (
            with(&but("--cert", None), "--tls-key", None),
            6,
            "give --cert FILE and --tls-key FILE",
        ),
        (foreign, 6, "give a --cert that its --client-ca signed"),
        (servers, 6, "give one made for clients"),
        (
            but("--token", None),
            6,
            "TOKEN_MISSING: this broker wants a token: give --token @FILE",
        ),
        (
            but("--token", Some(&file("forged"))),
            6,
            "TOKEN_UNKNOWN: this broker does not know the token",
        ),
        (
            but("--token", Some(&file("worker"))),
            6,
            "ROLE_MISSING: the token \"worker\" does not have the role",
        ),
        (but("--tls-key", None), 2, "CREDENTIALS: --cert needs --tls-key"),
        (
            but("--ca", Some("/no/such/ca.pem")),
            2,
            "CREDENTIALS: cannot use /no/such/ca.pem as a CA",
        ),
        (
            but("--tls-key", Some(&secured.at("others/caller.key"))),
            2,
            "CREDENTIALS: cannot use",
        ),
        (but("--token", Some("@/no/such/token")), 2, "/no/such/token"),
        (but("--token", Some("two words")), 2, "printable ASCII"),
    ] {
        let ended = secured.asynq(&flags, &["call", "echo", "1"]).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(code), ""),
            "{flags:?}: {}",
            ended.err
        );
        assert!(
            ended.err.starts_with("asynq: ") && ended.err.contains(said),
            "{said}: {}",
            ended.err
        );
        assert!(!ended.err.contains("asynq_0000"), "{}", ended.err);
    }
    let ended = run("asynq", &["call", "echo", "--tls-key", "k"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("--tls-key needs --cert"), "{}", ended.err);
    // A token goes in clear to nobody but this machine.
    let away = ["--broker", "http://192.0.2.1", "--token", "s3cret", "call", "echo"];
    let ended = run("asynq", &away).await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(
        ended.err.contains("in clear") && !ended.err.contains("s3cret"),
        "{}",
        ended.err
    );

    let log = secured.log();
    for reason in [
        "it does not take this broker's certificate: UnknownCA",
        "it does not speak TLS, which this port wants",
        "it showed no client certificate",
        "its certificate is not signed by --client-ca",
        "its certificate is not made for clients",
        "this broker wants a token",
    ] {
        let line = log.lines().find(|line| line.contains(reason));
        assert!(
            line.is_some_and(|line| line.contains("WARN") && line.contains("127.0.0.1:")),
            "{reason}: {log}"
        );
    }
}

#[tokio::test]
async fn a_worker_that_is_refused_ends_and_says_why() {
    let secured = Secured::start().await;
    ok("asynqd", &["tls", "init", &secured.at("others")]).await;
    let good = secured.flags("worker");
    for (flags, code, said) in [
        (
            with(&good, "--ca", Some(&secured.at("others/ca.pem"))),
            1,
            "give --ca FILE",
        ),
        (
            with(&with(&good, "--cert", None), "--tls-key", None),
            1,
            "give --cert FILE and --tls-key FILE",
        ),
        (with(&good, "--token", None), 1, "this broker wants a token"),
        (
            with(&good, "--token", Some(&format!("@{}", secured.at("caller")))),
            1,
            "Workers/Work",
        ),
        (with(&good, "--tls-key", None), 2, "--cert needs --tls-key"),
        (with(&good, "--token", Some("@/no/such/token")), 2, "/no/such/token"),
    ] {
        let args: Vec<&str> = flags.iter().map(String::as_str).chain(["--builtins"]).collect();
        let ended = run("asynq-worker", &args).await;
        assert_eq!(ended.code, Some(code), "{}", ended.err);
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
    // worker.toml has the same keys, with `_`.
    let keys = good.chunks(2).map(|pair| {
        format!(
            "{} = {:?}\n",
            pair[0].trim_start_matches('-').replace('-', "_"),
            pair[1]
        )
    });
    std::fs::write(
        secured.at("worker.toml"),
        keys.collect::<String>() + "builtins = true\n",
    )
    .unwrap();
    let args = ["--config".to_owned(), secured.at("worker.toml")];
    let started = Process::start("asynq-worker", args, secured.at("worker.log").into()).await;
    started.unwrap_or_else(|said| panic!("{said}")).stop(PATIENCE).await;
}

const ADD: Task<u64, u64> = Task::new("add");
const NUMBERS: Iter<u64, u64> = Iter::new("numbers", OnLoss::Replay);

async fn add(context: Context, n: u64) -> Result<u64, TaskError> {
    let mut items = context.iterate(NUMBERS, &n).await?;
    let mut sum = 0;
    while let Some(item) = items.try_next().await? {
        sum += item;
    }
    Ok(sum)
}

/// A run that reads the items of others is a caller, too.
#[tokio::test]
async fn a_worker_that_iterates_needs_the_role_of_a_caller() {
    let secured = Secured::start().await;
    let caller = secured.client().connect().await.unwrap();
    for (token, sum) in [("worker", None), ("both", Some(45))] {
        let worker = Worker::builder(&secured.url())
            .ca(secured.at("certs/ca.pem"))
            .cert(secured.at("certs/worker.pem"), secured.at("certs/worker.key"))
            .token(&format!("@{}", secured.at(token)))
            .iter(NUMBERS, |_, n| tokio_stream::iter((0..n).map(Ok)))
            .task(ADD, add);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        let called = within("the answer", PATIENCE, async { caller.call(ADD, &10).await }).await;
        match sum {
            Some(sum) => assert_eq!(called.unwrap(), sum),
            None => {
                let error = called.unwrap_err().to_string();
                let said = "calling numbers was refused: ";
                assert!(
                    error.contains(said) && error.contains("\"worker\" does not have the role"),
                    "{error}"
                );
            }
        }
        drop(stop);
        running.await.unwrap().unwrap();
    }
}
