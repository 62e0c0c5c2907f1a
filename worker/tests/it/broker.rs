//! A broker that does what the test says: it welcomes, assigns, stops and
//! acknowledges when told to, and shows what the worker said.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use asynq_proto::Place;
use asynq_proto::limits::MAX_MESSAGE_BYTES;
use asynq_proto::v1::emit_frame::Frame;
use asynq_proto::v1::workers_server::{Workers, WorkersServer};
use asynq_proto::v1::{
    Assignment, Completion, Credit, EmitControl, EmitEnd, EmitFrame, Enqueued, FetchPayloadRequest, FetchResultRequest,
    Finished, LeaseToken, Payload, RunAck, RunCall, StopCause, StopRun, WorkHello, WorkReply, WorkRequest, WorkWelcome,
};
use asynq_worker::{RunError, WorkerBuilder};
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// Nothing in these tests takes this long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is awaited must come within the deadline.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it takes too long")
}

pub(crate) struct Broker {
    address: SocketAddr,
    links: mpsc::Receiver<Link>,
    emits: mpsc::Receiver<Emit>,
    pub(crate) bulk: Arc<Bulk>,
    server: JoinHandle<()>,
    /// Cuts all connections.
    cut: Arc<Notify>,
}

/// What travels on the data connection.
#[derive(Default)]
pub(crate) struct Bulk {
    pub(crate) arguments: Mutex<HashMap<Bytes, Payload>>,
    pub(crate) results: Mutex<Vec<Completion>>,
    /// Calls too large for the session.
    pub(crate) calls: Mutex<Vec<RunCall>>,
    /// How called tasks end, by the number of the call.
    pub(crate) ends: Mutex<HashMap<u32, Finished>>,
    /// The next calls fail with this.
    pub(crate) failures: Mutex<Vec<Status>>,
}

impl Bulk {
    fn fail(&self) -> Result<(), Status> {
        self.failures.lock().unwrap().pop().map_or(Ok(()), Err)
    }
}

/// One connection of the worker. Dropping it cuts it.
pub(crate) struct Link {
    pub(crate) hello: WorkHello,
    replies: mpsc::Sender<Result<WorkReply, Status>>,
    said: mpsc::Receiver<WorkRequest>,
    acks: Arc<AtomicBool>,
    beats: Arc<AtomicU64>,
}

/// One stream of items. Dropping it cuts it.
pub(crate) struct Emit {
    pub(crate) hello: EmitFrame,
    frames: Streaming<EmitFrame>,
    control: mpsc::Sender<Result<EmitControl, Status>>,
}

/// Short enough for tests to see heartbeats.
pub(crate) fn welcome() -> WorkWelcome {
    WorkWelcome {
        session: vec![7; 16].into(),
        lease_ms: 30_000,
        heartbeat_ms: 20,
        margin_ms: 5_000,
        resumed: false,
        now_us: 1_700_000_000_000_000,
    }
}

pub(crate) fn token(n: u8) -> LeaseToken {
    LeaseToken {
        task_id: Uuid::from_u128(n.into()).as_bytes().to_vec().into(),
        epoch: 1,
        attempt: 1,
    }
}

pub(crate) fn assignment(n: u8, name: &str, args: &str) -> Assignment {
    Assignment {
        token: Some(token(n)),
        name: name.into(),
        queue: "default".into(),
        payload: Some(Payload {
            content_type: String::new(),
            data: args.as_bytes().to_vec().into(),
        }),
        ..Assignment::default()
    }
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (links_in, links) = mpsc::channel(4);
        let (emits_in, emits) = mpsc::channel(4);
        let bulk = Arc::<Bulk>::default();
        let service = WorkersServer::new(Service {
            links: links_in,
            emits: emits_in,
            bulk: bulk.clone(),
        })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let cut = Arc::<Notify>::default();
        let cuts = cut.clone();
        let server = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = cuts.notified() => {
                        connections.abort_all();
                        continue;
                    }
                };
                stream.set_nodelay(true).unwrap();
                let service = TowerToHyperService::new(service.clone());
                connections.spawn(async move {
                    let http = auto::Builder::new(TokioExecutor::new()).http2_only();
                    // However the connection ends, the test sees it elsewhere.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self {
            address,
            links,
            emits,
            bulk,
            server,
            cut,
        }
    }

    /// Cuts all connections, as the end of the broker would; others may come.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The worker's next connection, not yet welcomed.
    pub(crate) async fn hello(&mut self) -> Link {
        within(self.links.recv()).await.unwrap()
    }

    /// The worker's next stream of items.
    pub(crate) async fn emit(&mut self) -> Emit {
        within(self.emits.recv()).await.unwrap()
    }

    /// The worker's next connection, welcomed.
    pub(crate) async fn accept(&mut self) -> Link {
        self.accept_with(welcome()).await
    }

    pub(crate) async fn accept_with(&mut self, welcome: WorkWelcome) -> Link {
        let link = self.hello().await;
        link.reply(WorkReply {
            welcome: Some(welcome),
            ..WorkReply::default()
        })
        .await;
        link
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Link {
    pub(crate) async fn reply(&self, reply: WorkReply) {
        within(self.replies.send(Ok(reply))).await.unwrap();
    }

    pub(crate) async fn refuse(self, status: Status) {
        within(self.replies.send(Err(status))).await.unwrap();
    }

    pub(crate) async fn assign(&self, assignment: Assignment) {
        self.reply(WorkReply {
            assignments: vec![assignment],
            ..WorkReply::default()
        })
        .await;
    }

    pub(crate) async fn stop(&self, n: u8, cause: StopCause) {
        let stop = StopRun {
            token: Some(token(n)),
            cause: cause.into(),
        };
        self.reply(WorkReply {
            stops: vec![stop],
            ..WorkReply::default()
        })
        .await;
    }

    pub(crate) async fn ack(&self, n: u8) {
        let ack = RunAck {
            token: Some(token(n)),
            ..RunAck::default()
        };
        self.reply(WorkReply {
            acks: vec![ack],
            ..WorkReply::default()
        })
        .await;
    }

    /// The next message that is more than a heartbeat.
    pub(crate) async fn next(&mut self) -> WorkRequest {
        within(self.said.recv()).await.expect("the worker closed its stream")
    }

    /// The worker half-closes its stream, and says nothing before.
    pub(crate) async fn closed(&mut self) {
        let said = within(self.said.recv()).await;
        assert_eq!(said, None);
    }

    /// Heartbeats are read, but no longer acknowledged.
    pub(crate) fn fall_silent(&self) {
        self.acks.store(false, Ordering::Relaxed);
    }

    /// Waits for this many further heartbeats.
    pub(crate) async fn beats(&self, more: u64) {
        let target = self.beats.load(Ordering::Relaxed) + more;
        until(|| self.beats.load(Ordering::Relaxed) >= target).await;
    }
}

impl Emit {
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        within(self.frames.message()).await.unwrap()?.frame
    }

    /// The next frame, if it comes within this time.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Option<Frame> {
        let next = tokio::time::timeout(time, self.frames.message()).await.ok()?;
        next.unwrap()?.frame
    }

    /// Waits for the end of the worker's frames; what it had sent before may still come.
    pub(crate) async fn cut_by_the_worker(mut self) {
        within(async { while let Ok(Some(_)) = self.frames.message().await {} }).await;
    }

    pub(crate) async fn grant(&self, credit: Credit) {
        self.control(EmitControl {
            credit: Some(credit),
            ..EmitControl::default()
        })
        .await;
    }

    pub(crate) async fn ack(&self) {
        let ack = RunAck {
            token: self.hello.token.clone(),
            ..RunAck::default()
        };
        self.control(EmitControl {
            ack: Some(ack),
            ..EmitControl::default()
        })
        .await;
    }

    /// Answers where it is to go on, with no further credit.
    pub(crate) async fn go_on_from(&self, from: u64) {
        self.control(EmitControl {
            from: Some(from),
            ..EmitControl::default()
        })
        .await;
    }

    /// Ends it, with this status.
    pub(crate) async fn refuse(self, status: Status) {
        within(self.control.send(Err(status))).await.unwrap();
    }

    async fn control(&self, control: EmitControl) {
        within(self.control.send(Ok(control))).await.unwrap();
    }
}

/// The end of a stream of these items.
pub(crate) fn end_of<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Option<Frame> {
    let mut place = Place::START;
    items.into_iter().for_each(|item| place.pass(item.as_ref()));
    Some(Frame::End(EmitEnd {
        count: place.index,
        digest: place.digest,
    }))
}

/// Polls until something is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    within(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A running worker. [`Running::shut_down`] asks it to drain.
pub(crate) struct Running {
    shutdown: Option<oneshot::Sender<()>>,
    pub(crate) worker: JoinHandle<Result<(), RunError>>,
}

pub(crate) fn run(worker: WorkerBuilder) -> Running {
    let (shutdown, asked) = oneshot::channel::<()>();
    let worker = tokio::spawn(worker.run_until(async {
        // The sender lives as long as the test.
        let _ = asked.await;
    }));
    Running {
        shutdown: Some(shutdown),
        worker,
    }
}

impl Running {
    pub(crate) fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    pub(crate) async fn ended(self) -> Result<(), RunError> {
        let Self { worker, shutdown } = self;
        let result = within(worker).await.unwrap();
        drop(shutdown);
        result
    }
}

struct Service {
    links: mpsc::Sender<Link>,
    emits: mpsc::Sender<Emit>,
    bulk: Arc<Bulk>,
}

#[tonic::async_trait]
impl Workers for Service {
    type WorkStream = ReceiverStream<Result<WorkReply, Status>>;
    type EmitStream = ReceiverStream<Result<EmitControl, Status>>;

    async fn emit(&self, request: Request<Streaming<EmitFrame>>) -> Result<Response<Self::EmitStream>, Status> {
        let mut frames = request.into_inner();
        let hello = frames.message().await?.ok_or_else(|| Status::cancelled("no hello"))?;
        let (control, out) = mpsc::channel(16);
        let emit = Emit { hello, frames, control };
        let over = |_| Status::unavailable("the test is over");
        self.emits.send(emit).await.map_err(over)?;
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn work(&self, request: Request<Streaming<WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::cancelled("no hello"))?;
        let (replies, out) = mpsc::channel(16);
        let (says, said) = mpsc::channel(1024);
        let acks = Arc::new(AtomicBool::new(true));
        let beats = Arc::new(AtomicU64::new(0));
        let link = Link {
            hello: first.hello.ok_or_else(|| Status::invalid_argument("no hello"))?,
            replies: replies.clone(),
            said,
            acks: acks.clone(),
            beats: beats.clone(),
        };
        // Weak, so that dropping the link ends the stream.
        let replies = replies.downgrade();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let beat = request.heartbeat;
                if beat > 0 {
                    beats.fetch_add(1, Ordering::Relaxed);
                }
                if beat > 0
                    && acks.load(Ordering::Relaxed)
                    && let Some(replies) = replies.upgrade()
                {
                    let _ = replies
                        .send(Ok(WorkReply {
                            heartbeat_ack: beat,
                            ..WorkReply::default()
                        }))
                        .await;
                }
                let request = WorkRequest {
                    heartbeat: 0,
                    ..request
                };
                if request != WorkRequest::default() && says.send(request).await.is_err() {
                    break;
                }
            }
        });
        self.links
            .send(link)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn fetch_payload(&self, request: Request<FetchPayloadRequest>) -> Result<Response<Payload>, Status> {
        self.bulk.fail()?;
        let task = request.into_inner().token.unwrap().task_id;
        let arguments = self.bulk.arguments.lock().unwrap().get(&task).cloned();
        arguments
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such arguments"))
    }

    async fn call_large(&self, request: Request<RunCall>) -> Result<Response<Enqueued>, Status> {
        self.bulk.fail()?;
        self.bulk.calls.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Enqueued::default()))
    }

    async fn fetch_result(&self, request: Request<FetchResultRequest>) -> Result<Response<Finished>, Status> {
        self.bulk.fail()?;
        let end = self.bulk.ends.lock().unwrap().remove(&request.get_ref().n);
        end.map(Response::new)
            .ok_or_else(|| Status::not_found("no such result"))
    }

    async fn complete_large(&self, request: Request<Completion>) -> Result<Response<RunAck>, Status> {
        self.bulk.fail()?;
        let completion = request.into_inner();
        let ack = RunAck {
            token: completion.token.clone(),
            ..RunAck::default()
        };
        self.bulk.results.lock().unwrap().push(completion);
        Ok(Response::new(ack))
    }
}
