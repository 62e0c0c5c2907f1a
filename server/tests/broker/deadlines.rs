//! `grpc-timeout` holds for streams: also for those whose caller says nothing,
//! and for those whose caller does not read. Whoever fed the stream is told at
//! once.

use std::sync::Arc;
use std::time::Duration;

use asynq_proto::v1::admin_client::AdminClient;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self, TaskState};
use asynqd::clock::SystemClock;
use asynqd::{Backing, ServerError};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{hello, new_id, reason, soon, task};
use crate::raw::{GRPC, Raw, framed};

const LIMIT: Duration = Duration::from_secs(3);

/// A broker whose connections are pipes of this process, so that its time can
/// be ours.
struct Piped {
    connect: mpsc::Sender<DuplexStream>,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Piped {
    fn start() -> Self {
        let (connect, incoming) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let clock = Arc::new(SystemClock::new());
        let serving = asynqd::run(
            ReceiverStream::new(incoming),
            Backing::memory(),
            clock,
            shutdown.clone(),
        );
        Self {
            connect,
            shutdown,
            serving: tokio::spawn(serving),
        }
    }

    async fn connection(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        self.connect.send(theirs).await.unwrap();
        ours
    }

    /// A client that reads nothing of its streams, by HTTP/2's own means.
    async fn deaf(&self) -> Raw {
        Raw::over(self.connection().await, 0).await
    }

    async fn channel(&self) -> Channel {
        let io = self.connection().await;
        let mut io = Some(TokioIo::new(io));
        let connector = tower::service_fn(move |_| {
            let io = io.take().ok_or_else(|| std::io::Error::other("it connects once"));
            std::future::ready(io)
        });
        let endpoint = Endpoint::from_static("http://broker");
        soon(endpoint.connect_with_connector(connector)).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        soon(self.serving).await.unwrap().unwrap();
    }
}

fn limited() -> Vec<(&'static str, &'static str)> {
    [GRPC, &[("grpc-timeout", "3S")]].concat()
}

/// It was the stream that ended, not the connection.
async fn is_alive(deaf: &Raw) {
    let answer = deaf.call("/asynq.v2.Tasks/Wait", GRPC, Bytes::new()).await;
    assert_eq!(answer.end().await.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_call_without_a_word_ends_at_its_deadline() {
    let broker = Piped::start();
    let raw = Raw::over(broker.connection().await, 65_535).await;
    // The store's threads, which begin and end, know no paused time.
    soon(TasksClient::new(broker.channel().await).show(v1::ShowRequest { id: new_id() }))
        .await
        .unwrap_err();
    tokio::time::pause();
    for path in [
        "/asynq.v1.Tasks/Session",
        "/asynq.v1.Tasks/Iterate",
        "/asynq.v1.Tasks/Wait",
        "/asynq.v1.Workers/Work",
        "/asynq.v1.Workers/Emit",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let began = Instant::now();
        let status = raw.open(path, &limited(), None).await.end().await;
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            "{path}: {status:?}"
        );
        let took = began.elapsed();
        assert!(
            (LIMIT..LIMIT + Duration::from_millis(100)).contains(&took),
            "{path}: {took:?}"
        );
    }
    tokio::time::resume();
    broker.stop().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_its_stream_at_the_deadline() {
    let broker = Piped::start();
    let mut tasks = TasksClient::new(broker.channel().await);
    let deaf = broker.deaf().await;
    let rows = task("rows");
    let id = rows.id.clone();
    let request = v1::IterateRequest {
        task: Some(rows),
        consumer_id: vec![7; 16].into(),
        auto_ack: true,
        ..Default::default()
    };
    let stalled = deaf.call("/asynq.v1.Tasks/Iterate", &limited(), framed(&request)).await;
    let mut state = async || {
        let shown = soon(tasks.show(v1::ShowRequest { id: id.clone() })).await;
        shown.unwrap().into_inner().state()
    };
    tokio::time::pause();
    tokio::time::sleep(LIMIT / 3).await;
    tokio::time::resume();
    assert_eq!(state().await, TaskState::Ready, "its time is not up");
    tokio::time::pause();
    tokio::time::sleep(LIMIT).await;
    tokio::time::resume();
    soon(async {
        while state().await != TaskState::Cancelled {
            tokio::task::yield_now().await;
        }
    })
    .await;
    is_alive(&deaf).await;
    drop((stalled, deaf));
    broker.stop().await;
}

#[tokio::test]
async fn a_worker_that_does_not_read_loses_its_session_at_the_deadline() {
    let broker = Piped::start();
    let mut admin = AdminClient::new(broker.channel().await);
    let deaf = broker.deaf().await;
    let request = v1::WorkRequest {
        hello: Some(hello(1, &["echo"])),
        ..Default::default()
    };
    let stalled = deaf
        .open("/asynq.v1.Workers/Work", &limited(), Some(framed(&request)))
        .await;
    let mut state = async || {
        let workers = soon(admin.list_workers(v1::ListWorkersRequest {})).await;
        let workers = workers.unwrap().into_inner().workers;
        workers.first().map(|worker| worker.state.clone())
    };
    soon(async {
        while state().await.as_deref() != Some("active") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tokio::time::pause();
    tokio::time::sleep(LIMIT).await;
    tokio::time::resume();
    soon(async {
        // It held no run, so that is the end of its session.
        while state().await.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    is_alive(&deaf).await;
    drop((stalled, deaf));
    broker.stop().await;
}
