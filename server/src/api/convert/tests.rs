//! What is refused, and what passes.

use asynq_core::limits::MAX_FAILURE_BYTES;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn request() -> v1::EnqueueRequest {
    v1::EnqueueRequest {
        name: "echo".into(),
        ..Default::default()
    }
}

fn with(options: v1::TaskOptions) -> v1::EnqueueRequest {
    v1::EnqueueRequest {
        options: Some(options),
        ..request()
    }
}

fn refusal(request: v1::EnqueueRequest) -> String {
    enqueue(request, NOW).expect_err("must be refused").to_string()
}

fn id_at(ms: u64) -> Vec<u8> {
    Builder::from_unix_timestamp_millis(ms, &[7; 10])
        .as_uuid()
        .as_bytes()
        .to_vec()
}

#[test]
fn defaults_are_filled_in() {
    let Enqueue {
        spec, first_send, wait, ..
    } = enqueue(request(), NOW).unwrap();
    assert!(first_send && !wait, "an id made here is new");
    assert_eq!((spec.queue.as_str(), spec.series.as_str()), ("default", ""));
    assert_eq!((spec.options, spec.start_at), (Options::default(), None));
    assert_eq!(spec.id.made_at(), NOW);
    task_id("id", &spec.id.0).unwrap();
    let again = v1::EnqueueRequest {
        id: spec.id.0.to_vec().into(),
        ..request()
    };
    assert!(!enqueue(again, NOW).unwrap().first_send);
}

#[test]
fn options_reach_the_core() {
    let spec = enqueue(
        with(v1::TaskOptions {
            queue: "q".into(),
            series: "s".into(),
            niceness: -20,
            placement: v1::Placement::Last as i32,
            delay_ms: 1_500,
            timeout_ms: 10,
            deadline_ms: 20,
            start_before_ms: 30,
            max_attempts: Some(1_000),
            max_timeouts: Some(1),
            result_ttl_ms: Some(0),
            ..Default::default()
        }),
        NOW,
    );
    let spec = spec.unwrap().spec;
    assert_eq!(spec.start_at, Some(NOW + Duration::from_millis(1_500)));
    let expected = Options {
        niceness: Niceness::new(-20).unwrap(),
        placement: Placement::Last,
        start_before: Some(Timestamp::from_millis(30)),
        timeout: Some(Duration::from_millis(10)),
        deadline: Some(Timestamp::from_millis(20)),
        max_attempts: Some(1_000),
        max_timeouts: Some(1),
        result_ttl: Some(Duration::ZERO),
        stream: false,
        at_most_once: false,
        key: None,
    };
    assert_eq!(spec.options, expected);
    let once = v1::TaskOptions {
        at_most_once: true,
        max_attempts: Some(1),
        ..Default::default()
    };
    assert!(enqueue(with(once), NOW).unwrap().spec.options.at_most_once);
    for (wire, on_key) in [
        (v1::OnKey::Same, OnKey::Same),
        (v1::OnKey::Return, OnKey::Return),
        (v1::OnKey::Replace, OnKey::Replace),
        (v1::OnKey::Error, OnKey::Refuse),
    ] {
        let keyed = v1::TaskOptions {
            key: Some("order 4711/☃".into()),
            on_key: wire.into(),
            ..Default::default()
        };
        let spec = enqueue(with(keyed), NOW).unwrap().spec;
        let key = spec.options.key.as_ref().map(Key::as_str);
        assert_eq!((key, spec.on_key), (Some("order 4711/☃"), on_key));
    }
}

#[test]
fn what_is_out_of_range_is_refused_naming_field_and_range() {
    let long = u64::try_from(MAX_DURATION.as_millis()).unwrap() + 1;
    let options = v1::TaskOptions::default;
    for (request, field, range) in [
        (
            v1::EnqueueRequest {
                name: String::new(),
                ..request()
            },
            "name",
            "empty",
        ),
        (
            v1::EnqueueRequest {
                name: "a b".into(),
                ..request()
            },
            "name",
            "A-Z",
        ),
        (
            v1::EnqueueRequest {
                name: "x".repeat(201),
                ..request()
            },
            "name",
            "200",
        ),
        (
            v1::EnqueueRequest {
                id: vec![1; 15].into(),
                ..request()
            },
            "id",
            "16",
        ),
        (
            v1::EnqueueRequest {
                id: vec![0x41; 16].into(),
                ..request()
            },
            "id",
            "UUIDv7",
        ),
        (
            with(v1::TaskOptions {
                queue: "ä".into(),
                ..options()
            }),
            "options.queue",
            "A-Z",
        ),
        (
            with(v1::TaskOptions {
                series: "\n".into(),
                ..options()
            }),
            "options.series",
            "A-Z",
        ),
        (
            with(v1::TaskOptions {
                niceness: 21,
                ..options()
            }),
            "options.niceness",
            "-20 to 20",
        ),
        (
            with(v1::TaskOptions {
                niceness: i32::MIN,
                ..options()
            }),
            "options.niceness",
            "-20 to 20",
        ),
        (
            with(v1::TaskOptions {
                placement: 3,
                ..options()
            }),
            "options.placement",
            "0, 1 or 2",
        ),
        (
            with(v1::TaskOptions {
                delay_ms: 1,
                start_at_ms: 1,
                ..options()
            }),
            "options.delay_ms",
            "start_at_ms",
        ),
        (
            with(v1::TaskOptions {
                delay_ms: long,
                ..options()
            }),
            "options.delay_ms",
            "ten years",
        ),
        (
            with(v1::TaskOptions {
                key: Some(String::new()),
                ..options()
            }),
            "options.key",
            "empty",
        ),
        (
            with(v1::TaskOptions {
                key: Some("ü".repeat(101)),
                ..options()
            }),
            "options.key",
            "200",
        ),
        (
            with(v1::TaskOptions {
                key: Some("a\tb".into()),
                ..options()
            }),
            "options.key",
            "control",
        ),
        (
            with(v1::TaskOptions {
                on_key: v1::OnKey::Replace.into(),
                ..options()
            }),
            "options.on_key",
            "options.key",
        ),
        (
            with(v1::TaskOptions {
                key: Some("k".into()),
                on_key: 4,
                ..options()
            }),
            "options.on_key",
            "0, 1, 2 or 3",
        ),
        (
            with(v1::TaskOptions {
                timeout_ms: u64::MAX,
                ..options()
            }),
            "options.timeout_ms",
            "ten years",
        ),
        (
            with(v1::TaskOptions {
                result_ttl_ms: Some(long),
                ..options()
            }),
            "options.result_ttl_ms",
            "ten years",
        ),
        (
            with(v1::TaskOptions {
                max_attempts: Some(0),
                ..options()
            }),
            "options.max_attempts",
            "1 to 1000",
        ),
        (
            with(v1::TaskOptions {
                max_timeouts: Some(1_001),
                ..options()
            }),
            "options.max_timeouts",
            "1 to 1000",
        ),
        (
            with(v1::TaskOptions {
                at_most_once: true,
                max_attempts: Some(2),
                ..options()
            }),
            "options.max_attempts",
            "must be 1 with options.at_most_once",
        ),
        (
            with(v1::TaskOptions {
                at_most_once: true,
                max_timeouts: Some(2),
                ..options()
            }),
            "options.max_timeouts",
            "must be 1 with options.at_most_once",
        ),
    ] {
        let message = refusal(request);
        assert!(
            message.starts_with(field) && message.contains(range),
            "{field}: {message}"
        );
    }
}

#[test]
fn ids_from_the_future_are_refused() {
    let lead = u64::try_from(MAX_ID_LEAD.as_millis()).unwrap();
    let at = |ms| {
        enqueue(
            v1::EnqueueRequest {
                id: id_at(ms).into(),
                ..request()
            },
            NOW,
        )
    };
    assert!(at(NOW.as_millis() + lead).is_ok() && at(0).is_ok());
    assert!(matches!(at(NOW.as_millis() + lead + 1), Err(Error::IdInFuture(_))));
}

#[test]
fn payloads_have_a_limit() {
    let of = |len: usize| v1::EnqueueRequest {
        payload: Some(v1::Payload {
            content_type: String::new(),
            data: vec![0; len].into(),
        }),
        ..request()
    };
    assert!(enqueue(of(MAX_PAYLOAD_BYTES), NOW).is_ok());
    let message = refusal(of(MAX_PAYLOAD_BYTES + 1));
    assert!(message.contains("payload") && message.contains("4194304"), "{message}");
}

#[test]
fn hellos_are_checked() {
    let good = || v1::WorkHello {
        worker: "w".into(),
        slots: 1,
        ..Default::default()
    };
    assert!(hello(good()).is_ok());
    let task = |name: &str, max_attempts| v1::TaskDeclaration {
        name: name.into(),
        timeout_ms: 0,
        max_attempts,
        iterator: false,
        on_loss: 0,
    };
    for (bad, field) in [
        (
            v1::WorkHello {
                worker: String::new(),
                ..good()
            },
            "hello.worker",
        ),
        (v1::WorkHello { slots: 0, ..good() }, "hello.slots"),
        (
            v1::WorkHello {
                slots: MAX_SLOTS + 1,
                ..good()
            },
            "hello.slots",
        ),
        (
            v1::WorkHello {
                resume: vec![1; 17].into(),
                ..good()
            },
            "hello.resume",
        ),
        (
            v1::WorkHello {
                tasks: vec![task("", 0)],
                ..good()
            },
            "hello.tasks.name",
        ),
        (
            v1::WorkHello {
                tasks: vec![task("a", 1_001)],
                ..good()
            },
            "hello.tasks.max_attempts",
        ),
        (
            v1::WorkHello {
                held: vec![v1::LeaseToken::default()],
                ..good()
            },
            "token.task_id",
        ),
    ] {
        let message = hello(bad).unwrap_err().to_string();
        assert!(message.starts_with(field), "{field}: {message}");
    }
}

/// What is too long of the message and the trace is the core's business, which
/// keeps the end of a trace.
#[test]
fn only_the_kind_of_a_failure_is_cut_here() {
    let failure = task_failure(v1::TaskFailure {
        kind: "ä".repeat(MAX_NAME_BYTES),
        message: "m".repeat(2 * MAX_FAILURE_BYTES),
        trace: format!("{}the end", "t".repeat(MAX_FAILURE_BYTES)),
        ..Default::default()
    });
    assert_eq!(failure.kind, "ä".repeat(MAX_NAME_BYTES / 2));
    assert_eq!(failure.message.len(), 2 * MAX_FAILURE_BYTES);
    assert!(failure.trace.ends_with("the end"));
    assert_eq!(task_failure(v1::TaskFailure::default()).kind, "error");
}
