//! No error goes out without a reason, whoever makes it: a handler, tonic, or
//! one of our layers; and where waiting helps, it says how long.

use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::v1;
use asynqd::limits::{RETRY_EXHAUSTED, RETRY_UNAVAILABLE};
use bytes::Bytes;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt;

use crate::harness::{Broker, Session, reason};
use crate::raw::{GRPC, Raw, frame, framed};
use crate::tokens::calls;

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

async fn raw(broker: &Broker) -> Raw {
    let io = TcpStream::connect(broker.address).await.unwrap();
    Raw::over(io, 65_535).await
}

fn with(headers: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [GRPC, headers].concat()
}

/// Holds of every error: whose it is, why, and when to come again.
fn is_whole(status: &Status) {
    assert!(!reason(status).is_empty());
    let wanted = match status.code() {
        Code::ResourceExhausted => Some(RETRY_EXHAUSTED),
        Code::Unavailable => Some(RETRY_UNAVAILABLE),
        _ => None,
    };
    let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(told, wanted, "{status:?}");
}

#[tokio::test]
async fn what_the_layers_refuse_has_its_reason() {
    let broker = Broker::start().await;
    let raw = raw(&broker).await;
    let enqueue = "/asynq.v1.Tasks/Enqueue";
    let nameless = framed(&v1::EnqueueRequest::default());
    let unknown = HealthCheckRequest {
        service: "asynq.v1.Nothing".into(),
    };
    let symbol = ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol("asynq.v1.Nothing".into())),
        ..Default::default()
    };
    let gzip = with(&[("grpc-encoding", "gzip")]);
    for (path, headers, body, code, said) in [
        (
            "/asynq.v2.Tasks/Enqueue",
            GRPC,
            nameless.clone(),
            Code::Unimplemented,
            "UNKNOWN_SERVICE",
        ),
        (
            "/asynq.v1.Tasks/Drop",
            GRPC,
            nameless.clone(),
            Code::Unimplemented,
            "UNKNOWN_METHOD",
        ),
        ("/", GRPC, nameless.clone(), Code::Unimplemented, "UNKNOWN_SERVICE"),
        (enqueue, GRPC, nameless.clone(), Code::InvalidArgument, "INVALID_FIELD"),
        (
            enqueue,
            GRPC,
            frame(0, MAX_MESSAGE_BYTES + 1, b""),
            Code::OutOfRange,
            "MESSAGE_TOO_LARGE",
        ),
        (enqueue, GRPC, frame(0, 1, b"\xff"), Code::Internal, "MALFORMED_MESSAGE"),
        (enqueue, GRPC, frame(0, 9, b"cut"), Code::Internal, "MALFORMED_MESSAGE"),
        (enqueue, GRPC, Bytes::new(), Code::Internal, "MALFORMED_MESSAGE"),
        (enqueue, GRPC, frame(1, 1, b"x"), Code::Internal, "MALFORMED_MESSAGE"),
        (enqueue, GRPC, frame(7, 1, b"x"), Code::Internal, "MALFORMED_MESSAGE"),
        (
            enqueue,
            &gzip,
            frame(1, 1, b"x"),
            Code::Unimplemented,
            "COMPRESSION_UNKNOWN",
        ),
        (
            "/grpc.health.v1.Health/Check",
            GRPC,
            framed(&unknown),
            Code::NotFound,
            "UNKNOWN_SERVICE",
        ),
        (REFLECTION, GRPC, framed(&symbol), Code::NotFound, "SYMBOL_NOT_FOUND"),
        (
            REFLECTION,
            GRPC,
            framed(&ServerReflectionRequest::default()),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
    ] {
        let answer = raw.call(path, headers, body).await;
        assert_eq!(answer.http, 200, "{path}");
        let status = answer.end().await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (code, said),
            "{path}: {status:?}"
        );
        is_whole(&status);
        assert!(!status.message().is_empty(), "{path}: {said}");
    }
    for headers in [&[][..], &[("content-type", "application/json")]] {
        let answer = raw.call(enqueue, headers, nameless.clone()).await;
        assert_eq!(answer.http, 415);
        let status = answer.end().await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "NOT_GRPC")
        );
        is_whole(&status);
    }
    broker.stop().await.unwrap();
}

/// Every call there is, with everything a message can be but right.
#[tokio::test]
async fn no_call_answers_nonsense_without_a_reason() {
    let broker = Broker::start().await;
    let raw = raw(&broker).await;
    let (mut refused, calls) = (0, calls());
    for path in &calls {
        for body in [
            Bytes::new(),
            frame(0, 1, b"\xff"),
            frame(0, 3, b"x"),
            frame(1, 1, b"x"),
            frame(0, MAX_MESSAGE_BYTES + 1, b""),
        ] {
            let status = raw.call(path.path(), GRPC, body).await.end().await;
            if status.code() != Code::Ok {
                is_whole(&status);
                refused += 1;
            }
        }
    }
    assert!(refused > 3 * calls.len(), "{refused} of {} calls", calls.len());
    broker.stop().await.unwrap();
}

/// A stream that has begun well.
#[tokio::test]
async fn a_stream_that_turns_to_nonsense_ends_with_a_reason() {
    let broker = Broker::start().await;
    let raw = raw(&broker).await;
    let hello = v1::SessionRequest {
        hello: Some(v1::SessionHello::default()),
        operations: Vec::new(),
    };
    for nonsense in [frame(0, 1, b"\xff"), frame(0, MAX_MESSAGE_BYTES + 1, b"")] {
        let mut session = raw.open("/asynq.v1.Tasks/Session", GRPC, Some(framed(&hello))).await;
        session.send(nonsense);
        let status = session.end().await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
        is_whole(&status);
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn who_is_sent_away_by_the_drain_is_told_when_to_come_again() {
    let broker = Broker::start().await;
    let mut session = Session::open(&broker).await;
    broker.ask_to_stop();
    let status = session.next().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    is_whole(&status);
    broker.stop().await.unwrap();
}
