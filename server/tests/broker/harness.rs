//! Starts a broker on a free port; a session and a worker written by hand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use asynq_core::Timestamp;
use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::v1::admin_client::AdminClient;
use asynq_proto::v1::operation::Op;
use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::v1::{self, answer::Of};
use asynqd::clock::{Clock, SystemClock};
use asynqd::limits::DRAIN_TIMEOUT;
use asynqd::{Access, Backing, Server, ServerError, TcpIncoming};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;
use uuid::Builder;

/// Nothing here takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::on(Backing::memory()).await
    }

    pub(crate) async fn on_disk(dir: &Path) -> Self {
        Self::on(Backing::sqlite(dir).unwrap()).await
    }

    pub(crate) async fn on(backing: Backing) -> Self {
        Self::draining(backing, DRAIN_TIMEOUT).await
    }

    pub(crate) async fn draining(backing: Backing, drain: Duration) -> Self {
        Self::with(backing, Arc::new(SystemClock::new()), drain).await
    }

    pub(crate) async fn with(backing: Backing, clock: Arc<dyn Clock>, drain: Duration) -> Self {
        Self::serving(Server::open(backing, clock).await.unwrap().drain_timeout(drain)).await
    }

    /// One that does not let everybody in.
    pub(crate) async fn secured(access: Access) -> Self {
        let server = Server::open(Backing::memory(), Arc::new(SystemClock::new())).await;
        Self::serving(server.unwrap().access(access).drain_timeout(DRAIN_TIMEOUT)).await
    }

    async fn serving(server: Server) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = incoming.address().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(incoming.connections(), shutdown.clone()));
        Self {
            address,
            shutdown,
            serving,
        }
    }

    pub(crate) fn https(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub(crate) async fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel().await)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) async fn workers(&self) -> WorkersClient<Channel> {
        WorkersClient::new(self.channel().await).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await)
    }

    /// Asks the broker to stop, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops the broker and waits for it.
    pub(crate) async fn stop(self) -> Result<(), ServerError> {
        self.shutdown.cancel();
        soon(self.serving).await.unwrap()
    }

    /// Waits for the broker to end by itself.
    pub(crate) async fn ended(self) -> Result<(), ServerError> {
        soon(self.serving).await.unwrap()
    }
}

/// Fails a test that hangs.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this takes too long")
}

/// A new id, like an SDK makes it.
pub(crate) fn new_id() -> Bytes {
    id_at(SystemClock::new().now())
}

pub(crate) fn id_at(time: Timestamp) -> Bytes {
    let [random @ .., _, _, _, _, _, _] = fastrand::u128(..).to_be_bytes();
    Builder::from_unix_timestamp_millis(time.as_millis(), &random)
        .as_uuid()
        .as_bytes()
        .to_vec()
        .into()
}

pub(crate) fn json(text: &str) -> v1::Payload {
    v1::Payload {
        content_type: String::new(),
        data: text.to_owned().into(),
    }
}

pub(crate) fn task(name: &str) -> v1::EnqueueRequest {
    v1::EnqueueRequest {
        id: new_id(),
        name: name.into(),
        payload: Some(json("1")),
        first_send: true,
        ..Default::default()
    }
}

pub(crate) fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("a status without ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "asynq");
    info.reason
}

/// A caller's session.
pub(crate) struct Session {
    requests: mpsc::Sender<v1::SessionRequest>,
    replies: Streaming<v1::SessionReply>,
    answers: VecDeque<(u64, Of)>,
    pub(crate) welcome: v1::SessionWelcome,
    calls: u64,
}

impl Session {
    pub(crate) async fn open(broker: &Broker) -> Self {
        Self::say_hello(broker, v1::SessionHello::default()).await
    }

    pub(crate) async fn say_hello(broker: &Broker, hello: v1::SessionHello) -> Self {
        let (requests, outgoing) = mpsc::channel(64);
        requests
            .send(v1::SessionRequest {
                hello: Some(hello),
                operations: Vec::new(),
            })
            .await
            .unwrap();
        let replies = soon(broker.tasks().await.session(ReceiverStream::new(outgoing)))
            .await
            .unwrap();
        let mut replies = replies.into_inner();
        let welcome = soon(replies.message()).await.unwrap().unwrap().welcome.unwrap();
        Self {
            requests,
            replies,
            answers: VecDeque::new(),
            welcome,
            calls: 0,
        }
    }

    /// Sends operations in one message; gives the call number of the first.
    pub(crate) async fn ask(&mut self, ops: impl IntoIterator<Item = Op>) -> u64 {
        let (first, sent) = (self.calls + 1, self.try_ask(ops).await);
        assert!(sent, "the session is over");
        first
    }

    /// Says whether it could be sent, which an end of the session may forestall.
    pub(crate) async fn try_ask(&mut self, ops: impl IntoIterator<Item = Op>) -> bool {
        let operations = ops.into_iter().map(|op| {
            self.calls += 1;
            v1::Operation {
                call: self.calls,
                op: Some(op),
            }
        });
        let operations = operations.collect();
        let request = v1::SessionRequest {
            hello: None,
            operations,
        };
        self.requests.send(request).await.is_ok()
    }

    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<(u64, Of), Status> {
        while self.answers.is_empty() {
            let reply = soon(self.replies.message()).await?.expect("the session is over");
            self.answers.extend(
                reply
                    .answers
                    .into_iter()
                    .map(|answer| (answer.call, answer.of.unwrap())),
            );
        }
        Ok(self.answers.pop_front().unwrap())
    }

    pub(crate) async fn answer(&mut self) -> (u64, Of) {
        self.next().await.unwrap()
    }

    /// Closes the sending side; gives all that still comes.
    pub(crate) async fn half_close(self) -> Vec<(u64, Of)> {
        let Self {
            requests,
            mut replies,
            answers,
            ..
        } = self;
        drop(requests);
        let mut all = Vec::from(answers);
        while let Some(reply) = soon(replies.message()).await.unwrap() {
            all.extend(
                reply
                    .answers
                    .into_iter()
                    .map(|answer| (answer.call, answer.of.unwrap())),
            );
        }
        all
    }
}

/// A worker's session.
pub(crate) struct Worker {
    requests: mpsc::Sender<v1::WorkRequest>,
    replies: Streaming<v1::WorkReply>,
    pub(crate) welcome: v1::WorkWelcome,
    assignments: VecDeque<v1::Assignment>,
    stops: VecDeque<v1::StopRun>,
    acks: VecDeque<v1::RunAck>,
    answers: VecDeque<v1::CallAnswer>,
    acked: u64,
    heartbeat: u64,
}

pub(crate) fn hello(slots: u32, names: &[&str]) -> v1::WorkHello {
    let declare = |name: &&str| v1::TaskDeclaration {
        name: (*name).to_owned(),
        // By their names, so that tests can have both.
        on_loss: i32::from(name.starts_with("replayed")),
        ..Default::default()
    };
    v1::WorkHello {
        worker: "w".into(),
        slots,
        tasks: names.iter().map(declare).collect(),
        ..Default::default()
    }
}

impl Worker {
    pub(crate) async fn connect(broker: &Broker, slots: u32, names: &[&str]) -> Self {
        Self::say_hello(broker, hello(slots, names)).await.unwrap()
    }

    pub(crate) async fn say_hello(broker: &Broker, hello: v1::WorkHello) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(64);
        requests
            .send(v1::WorkRequest {
                hello: Some(hello),
                ..Default::default()
            })
            .await
            .unwrap();
        let replies = soon(broker.workers().await.work(ReceiverStream::new(outgoing)))
            .await?
            .into_inner();
        let mut worker = Self {
            requests,
            replies,
            welcome: v1::WorkWelcome::default(),
            assignments: VecDeque::new(),
            stops: VecDeque::new(),
            acks: VecDeque::new(),
            answers: VecDeque::new(),
            acked: 0,
            heartbeat: 0,
        };
        let first = worker.read().await?;
        worker.welcome = first.expect("a worker's stream begins with welcome");
        Ok(worker)
    }

    async fn read(&mut self) -> Result<Option<v1::WorkWelcome>, Status> {
        let reply = soon(self.replies.message())
            .await?
            .ok_or_else(|| Status::ok("the session is over"))?;
        self.assignments.extend(reply.assignments);
        self.stops.extend(reply.stops);
        self.acks.extend(reply.acks);
        self.answers.extend(reply.answers);
        self.acked = self.acked.max(reply.acked);
        self.heartbeat = self.heartbeat.max(reply.heartbeat_ack);
        Ok(reply.welcome)
    }

    pub(crate) async fn assignment(&mut self) -> v1::Assignment {
        while self.assignments.is_empty() {
            self.read().await.unwrap();
        }
        self.assignments.pop_front().unwrap()
    }

    pub(crate) async fn stop_run(&mut self) -> v1::StopRun {
        while self.stops.is_empty() {
            self.read().await.unwrap();
        }
        self.stops.pop_front().unwrap()
    }

    pub(crate) async fn ack(&mut self) -> v1::RunAck {
        while self.acks.is_empty() {
            self.read().await.unwrap();
        }
        self.acks.pop_front().unwrap()
    }

    /// How many acknowledgements by name have been read, and not taken.
    pub(crate) fn acks_read(&self) -> usize {
        self.acks.len()
    }

    /// The next answer to a call.
    pub(crate) async fn call_answer(&mut self) -> v1::CallAnswer {
        while self.answers.is_empty() {
            self.read().await.unwrap();
        }
        self.answers.pop_front().unwrap()
    }

    pub(crate) async fn call(&self, call: v1::RunCall) {
        self.send(v1::WorkRequest {
            calls: vec![call],
            ..Default::default()
        })
        .await;
    }

    /// Until messages up to this number have been acknowledged.
    pub(crate) async fn acked(&mut self, number: u64) {
        while self.acked < number {
            self.read().await.unwrap();
        }
    }

    pub(crate) async fn heartbeat(&mut self, count: u64) {
        self.send(v1::WorkRequest {
            heartbeat: count,
            ..Default::default()
        })
        .await;
        while self.heartbeat < count {
            self.read().await.unwrap();
        }
    }

    pub(crate) async fn send(&self, request: v1::WorkRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn complete(&self, token: Option<v1::LeaseToken>, result: v1::Payload) {
        let done = v1::Completion {
            token,
            result: Some(result),
            spawned: Vec::new(),
        };
        self.send(v1::WorkRequest {
            completions: vec![done],
            ..Default::default()
        })
        .await;
    }

    pub(crate) async fn fail(&self, token: Option<v1::LeaseToken>, message: &str, retryable: bool) {
        let failure = v1::TaskFailure {
            kind: "error".into(),
            message: message.into(),
            trace: String::new(),
            retryable,
            crashed: false,
        };
        let failed = v1::Failure {
            token,
            failure: Some(failure),
            ..Default::default()
        };
        self.send(v1::WorkRequest {
            failures: vec![failed],
            ..Default::default()
        })
        .await;
    }

    /// How the stream ends.
    pub(crate) async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.read().await {
                return status;
            }
        }
    }

    /// Closes the sending side; gives how the stream ends.
    pub(crate) async fn half_close(mut self) -> Status {
        self.requests = mpsc::channel(1).0;
        self.end().await
    }
}
