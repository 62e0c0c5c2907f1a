//! Records to store: plain ones by hand, any there can be by `proptest`.

use std::time::Duration;

use asynq_core::{
    CalledBy, Cause, Change, Checkpoint, Counters, DeadReason, Epoch, Failure, Finish, Grant, Key, LeaseToken, Name,
    Niceness, Note, Notes, OnLoss, Options, Outcome, Payload, Placement, ResultInfo, Run, Seq, SessionId,
    SessionRecord, State, StateName, Step, StopIntent, TaskId, TaskRecord, Timestamp, limits,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A `UUIDv7` of the time `at`; `n` makes it differ.
#[must_use]
pub fn id(at: Timestamp, n: u64) -> TaskId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&at.as_millis().to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    bytes[6] = 0x70;
    TaskId(bytes)
}

/// JSON of that many bytes.
#[must_use]
pub fn value(bytes: usize) -> Payload {
    Payload {
        content_type: "application/json".into(),
        data: Bytes::from(vec![b'7'; bytes]),
    }
}

/// A name.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a proper name")
}

/// A ready task with these arguments.
#[must_use]
pub fn task(id: TaskId, enqueued_at: Timestamp, payload: &Payload) -> TaskRecord {
    TaskRecord {
        id,
        name: name("resize"),
        queue: name("default"),
        series: Name::or_empty("").expect("the empty series"),
        options: Options::default(),
        enqueued_at,
        start_at: None,
        payload_bytes: payload.data.len() as u64,
        content_type: payload.content_type.clone(),
        digest: 7,
        state: State::Ready,
        grant: Grant::default(),
        counters: Counters::default(),
        failure: None,
        notes: None,
        called_by: None,
        checkpoint: None,
    }
}

/// The end of a task, with a result kept until `until`.
#[must_use]
pub fn finish(
    seq: Seq,
    mut record: TaskRecord,
    outcome: Outcome,
    at: Timestamp,
    result: Option<(Payload, Timestamp)>,
    forget_at: Timestamp,
) -> Change {
    let info = result.as_ref().map(|(payload, until)| ResultInfo {
        bytes: payload.data.len() as u64,
        content_type: payload.content_type.clone(),
        until: *until,
    });
    record.state = State::Finished(Finish {
        outcome,
        at,
        started_at: None,
        worker: None,
        result: info,
        replaced_by: None,
        purged: false,
    });
    Change::Finish {
        seq,
        record: Box::new(record),
        result: result.map(|(payload, _)| payload),
        forget_at,
    }
}

/// Any time a broker may see, and the two ends.
pub fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        8 => (0..4_000_000_000_000_000_u64).prop_map(Timestamp::from_micros),
        1 => Just(Timestamp::ZERO),
        1 => Just(Timestamp::MAX),
    ]
}

fn any_length() -> impl Strategy<Value = Duration> {
    (0..1_000_000_000_u64, 0..1_000_000_000_u32).prop_map(|(s, ns)| Duration::new(s, ns))
}

fn any_name() -> impl Strategy<Value = Name> {
    let characters = "ABYZabyz0189._:/-".chars().collect::<Vec<_>>();
    vec(proptest::sample::select(characters), 1..40)
        .prop_map(|text| Name::new(&text.into_iter().collect::<String>()).expect("a proper name"))
}

fn any_text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(|text| text.into_iter().collect())
}

/// Any key, seldom one that was there before.
pub fn any_key() -> impl Strategy<Value = Key> {
    let characters = "ab 7/äß☃\u{1f980}\"'".chars().collect::<Vec<_>>();
    vec(proptest::sample::select(characters), 1..20)
        .prop_map(|text| Key::new(&text.into_iter().collect::<String>()).expect("a proper key"))
}

/// Any value of up to 5,000 bytes.
pub fn any_value() -> impl Strategy<Value = Payload> {
    let data = prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 2_000..5_000), 1 => Just(Vec::new())];
    (any_text(), data).prop_map(|(content_type, data)| Payload {
        content_type: content_type.into(),
        data: Bytes::from(data),
    })
}

/// Any worker session.
pub fn any_session() -> impl Strategy<Value = SessionRecord> {
    (any::<[u8; 16]>(), any_name(), any_time()).prop_map(|(id, worker, opened_at)| SessionRecord {
        id: SessionId(id),
        worker,
        opened_at,
    })
}

fn any_run() -> impl Strategy<Value = Run> {
    let extended = option::of((0..1_000_000_000_u64).prop_map(Duration::from_micros));
    let on_loss = prop_oneof![Just(OnLoss::Fail), Just(OnLoss::Replay), Just(OnLoss::Checkpoint)];
    (any::<[u8; 16]>(), any_time(), extended, on_loss).prop_map(|(id, started_at, extended, on_loss)| Run {
        session: SessionId(id),
        started_at,
        extended,
        on_loss,
    })
}

/// Any state of a task that has not ended.
pub fn any_live_state() -> impl Strategy<Value = State> {
    let intent = prop_oneof![
        Just(StopIntent::Timeout),
        Just(StopIntent::Deadline),
        Just(StopIntent::Cancel)
    ];
    prop_oneof![
        any_time().prop_map(|at| State::Scheduled { at }),
        Just(State::Ready),
        any_run().prop_map(State::Running),
        (any_run(), intent).prop_map(|(run, intent)| State::Stopping(run, intent)),
    ]
}

/// Any end, with the result, if there is one.
pub fn any_end() -> impl Strategy<Value = (Finish, Option<Payload>)> {
    let outcome = prop_oneof![
        Just(Outcome::Succeeded),
        Just(Outcome::Dead(DeadReason::Error)),
        Just(Outcome::Dead(DeadReason::Rejected)),
        Just(Outcome::Dead(DeadReason::Timeout)),
        Just(Outcome::Dead(DeadReason::Poison)),
        Just(Outcome::Dead(DeadReason::WorkerLost)),
        Just(Outcome::Dead(DeadReason::NonDeterministic)),
        Just(Outcome::Cancelled),
        Just(Outcome::Expired),
    ];
    (
        outcome,
        any_time(),
        option::of(any_time()),
        option::of(any_name()),
        option::of((any_value(), any_time())),
        option::of(any::<[u8; 16]>()),
    )
        .prop_map(|(outcome, at, started_at, worker, result, replaced_by)| {
            let info = result.as_ref().map(|(payload, until)| ResultInfo {
                bytes: payload.data.len() as u64,
                content_type: payload.content_type.clone(),
                until: *until,
            });
            (
                Finish {
                    outcome,
                    at,
                    started_at,
                    worker,
                    result: info,
                    replaced_by: replaced_by.map(|id| Box::new(TaskId(id))),
                    purged: false,
                },
                result.map(|(payload, _)| payload),
            )
        })
}

fn any_options() -> impl Strategy<Value = Options> {
    let placement = prop_oneof![Just(Placement::Next), Just(Placement::Fair), Just(Placement::Last)];
    let niceness = (-20..=20).prop_map(|n| Niceness::new(n).expect("in range"));
    let times = (
        option::of(any_time()),
        option::of(any_length()),
        option::of(any_time()),
        option::of(any_length()),
    );
    (
        niceness,
        placement,
        times,
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        any::<[bool; 2]>(),
        option::of(any_key()),
    )
        .prop_map(
            |(
                niceness,
                placement,
                (start_before, timeout, deadline, result_ttl),
                max_attempts,
                max_timeouts,
                [stream, at_most_once],
                key,
            )| {
                Options {
                    niceness,
                    placement,
                    start_before,
                    timeout,
                    deadline,
                    max_attempts,
                    max_timeouts,
                    result_ttl,
                    stream,
                    at_most_once,
                    key,
                }
            },
        )
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (any_text(), any_text(), any_text(), any::<bool>()).prop_map(|(kind, message, trace, retryable)| Failure {
        kind,
        message,
        trace,
        retryable,
    })
}

fn any_caller() -> impl Strategy<Value = CalledBy> {
    (any::<[u8; 16]>(), any::<u64>(), any::<[u32; 3]>()).prop_map(|(task, epoch, [attempt, n, depth])| CalledBy {
        run: LeaseToken {
            task: TaskId(task),
            grant: Grant {
                epoch: Epoch(epoch),
                attempt,
            },
        },
        n,
        depth,
    })
}

fn any_notes() -> impl Strategy<Value = Notes> {
    let state = || proptest::sample::select(&StateName::ALL[..]);
    let cause = proptest::sample::select(&Cause::ALL[..]);
    let step =
        (any_time(), state(), state(), option::of(any_time()), cause).prop_map(|(at, from, to, until, cause)| Step {
            at,
            from,
            to,
            until,
            cause,
        });
    let note = (
        step,
        any::<u32>(),
        option::of(any_name()),
        option::of(any_time()),
        any_text(),
        any::<u32>(),
    )
        .prop_map(|(step, attempt, worker, started_at, message, left_out)| Note {
            step,
            attempt,
            worker,
            started_at,
            message: message.into(),
            left_out,
        });
    vec(note, 1..6).prop_map(Notes::new)
}

fn any_counters() -> impl Strategy<Value = Counters> {
    any::<[u32; 5]>().prop_map(|[failures, timeouts, crashes, losses, releases]| Counters {
        failures,
        timeouts,
        crashes,
        losses,
        releases,
    })
}

/// Of any length, and the longest there is.
fn any_checkpoint() -> impl Strategy<Value = Checkpoint> {
    let token = prop_oneof![
        9 => vec(any::<u8>(), 0..40),
        1 => vec(any::<u8>(), limits::MAX_CHECKPOINT_BYTES),
    ];
    (any::<u64>(), token).prop_map(|(index, token)| Checkpoint {
        index,
        token: token.into(),
    })
}

/// Any task that has not ended, with its arguments.
pub fn any_task() -> impl Strategy<Value = (TaskRecord, Payload)> {
    let names = (
        any_name(),
        any_name(),
        prop_oneof![any_name(), Just(Name::or_empty("").expect("empty"))],
    );
    let times = (any_time(), option::of(any_time()));
    let grant = (any::<u64>(), any::<u32>()).prop_map(|(epoch, attempt)| Grant {
        epoch: Epoch(epoch),
        attempt,
    });
    let past = (
        grant,
        any_counters(),
        option::of(any_failure().prop_map(Box::new)),
        option::of(any_notes().prop_map(Box::new)),
        option::of(any_caller().prop_map(Box::new)),
        option::of(any_checkpoint().prop_map(Box::new)),
    );
    (
        any::<[u8; 16]>(),
        names,
        any_options(),
        times,
        any::<u64>(),
        any_live_state(),
        past,
        any_value(),
    )
        .prop_map(
            |(id, (name, queue, series), options, (enqueued_at, start_at), digest, state, past, payload)| {
                let (grant, counters, failure, notes, called_by, checkpoint) = past;
                let record = TaskRecord {
                    id: TaskId(id),
                    name,
                    queue,
                    series,
                    options,
                    enqueued_at,
                    start_at,
                    payload_bytes: payload.data.len() as u64,
                    content_type: payload.content_type.clone(),
                    digest,
                    state,
                    grant,
                    counters,
                    failure,
                    notes,
                    called_by,
                    checkpoint,
                };
                (record, payload)
            },
        )
}
