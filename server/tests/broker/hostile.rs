//! Peers that are silent, speak something else, or never leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use asynq_proto::v1::{self, operation::Op};
use asynqd::Backing;
use asynqd::clock::SystemClock;
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::harness::{Broker, Session, soon, task};

#[tokio::test]
async fn something_else_than_http2_is_closed_and_harms_nobody() {
    let broker = Broker::start().await;
    let mut stream = TcpStream::connect(broker.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    // Closed with or without a reset: what was sent is not read to the end.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
    broker.tasks().await.enqueue(task("echo")).await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_handshake_is_closed() {
    let (mut silent, theirs) = tokio::io::duplex(1024);
    let incoming = stream::once(async { theirs }).chain(stream::pending());
    let shutdown = CancellationToken::new();
    let clock = Arc::new(SystemClock::new());
    let serving = tokio::spawn(asynqd::run(incoming, Backing::memory(), clock, shutdown.clone()));
    let began = tokio::time::Instant::now();
    // Half a preface is none.
    silent.write_all(b"PRI * HTTP/2").await.unwrap();
    assert_eq!(silent.read(&mut [0; 9]).await.unwrap(), 0);
    let limit = asynqd::limits::HANDSHAKE_TIMEOUT;
    assert!((limit..limit + Duration::from_secs(1)).contains(&began.elapsed()));
    // The store's threads, which are waited for now, know no paused time.
    tokio::time::resume();
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unknown_service_is_unimplemented() {
    let broker = Broker::start().await;
    let mut grpc = tonic::client::Grpc::new(broker.channel().await);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/asynq.v2.Tasks/Enqueue");
    let codec = tonic_prost::ProstCodec::<v1::EnqueueRequest, v1::Enqueued>::default();
    let status = grpc
        .unary(tonic::Request::new(task("echo")), path, codec)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().contains("asynq.v2.Tasks"), "{status:?}");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn silent_peers_do_not_hold_up_the_shutdown() {
    let broker = Broker::draining(Backing::memory(), Duration::from_millis(50)).await;
    let _silent = TcpStream::connect(broker.address).await.unwrap();
    let mut half = TcpStream::connect(broker.address).await.unwrap();
    // A handshake, and then not a word: not even answers to pings.
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut settings = [0; 9];
    soon(half.read_exact(&mut settings)).await.unwrap();
    let began = Instant::now();
    broker.stop().await.unwrap();
    // Long before missing pings would have closed the connection.
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// It answers pings, but leaves its stream unread, so that the end of the
/// stream cannot be sent either.
#[tokio::test]
async fn a_peer_that_does_not_read_does_not_hold_up_the_shutdown() {
    let broker = Broker::draining(Backing::memory(), Duration::from_millis(50)).await;
    let mut session = Session::open(&broker).await;
    let id = broker
        .tasks()
        .await
        .enqueue(task("echo"))
        .await
        .unwrap()
        .into_inner()
        .id;
    let last = session
        .ask((0..10_000).map(|_| Op::Show(v1::ShowRequest { id: id.clone() })))
        .await
        + 9_999;
    let mut other = Session::open(&broker).await;
    other.ask([Op::Show(v1::ShowRequest { id })]).await;
    other.answer().await;
    let began = Instant::now();
    broker.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    let (first, _) = session.answer().await;
    assert!(first < last, "it had not read what it was sent");
}
