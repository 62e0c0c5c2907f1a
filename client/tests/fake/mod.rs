//! A broker that runs nothing: it answers by the task's name and remembers what it was sent.
//!
//! - `echo` succeeds with its arguments, `bytes` with three bytes that are no text
//! - `dead.error`, `dead.timeout`, `dead.panic`, `cancelled`, `expired` end so
//! - `refused.3` (any gRPC code) is refused with the reason `TEST`
//! - `slow` and `nobody` end only when cancelled; `nobody` is explained by `no_worker`
//! - `cut` ends the stream before it is acknowledged, the first time
//! - `not_now` is answered with UNAVAILABLE, the first time
//! - `dead.lost` dies, and the first retry or purge of it is done and answered with UNAVAILABLE
//! - `late` holds back the result for 0 until there are eight tasks
//! - `fussy` dies of 3, ends for arguments of three digits only when cancelled
//!
//! Iterated, a task yields the numbers below its argument, within its credit:
//! - `dead.error` and the like, and `cancelled`, end so after them; `cut` breaks there, the first time
//! - `large` yields strings of 3 MiB, `over` twice what there is credit for
//! - `slow` and `nobody` yield nothing more until they are stopped
//! - `echo` is no iterator

mod session;
mod streams;
mod tasks;

use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use asynq_proto::{
    limits::MAX_MESSAGE_BYTES,
    v1::{self, admin_server::AdminServer, tasks_server::TasksServer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    time::Instant,
};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming, body::Body, codegen::Bytes, transport::server::Connected};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Service, service_fn};

pub(crate) use self::streams::Seen;
use self::{streams::Streams, tasks::Tasks};

/// A time that is over only if something is broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// The broker, and the test's view into it.
#[derive(Clone)]
pub(crate) struct Fake {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    max_outstanding: u32,
    tasks: Mutex<Tasks>,
    streams: Mutex<Streams>,
    /// The operations of each message, in order.
    messages: Mutex<Vec<Vec<v1::Operation>>>,
    most_unanswered: Mutex<usize>,
    unary_enqueues: Mutex<usize>,
    listings: Mutex<Vec<v1::ListTasksRequest>>,
    cuts: watch::Sender<u32>,
    /// Of which tasks an operator's verb was done and not answered.
    unanswered: Mutex<HashSet<(&'static str, Bytes)>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::with_max_outstanding(1024).await
    }

    pub(crate) async fn with_max_outstanding(max_outstanding: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        });
        Self::serve(incoming, address, max_outstanding)
    }

    /// Serves what comes in.
    pub(crate) fn serve<I>(
        incoming: impl Stream<Item = std::io::Result<I>> + Send + 'static,
        address: SocketAddr,
        max_outstanding: u32,
    ) -> Self
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let inner = Inner {
            max_outstanding,
            tasks: Mutex::default(),
            streams: Mutex::default(),
            messages: Mutex::default(),
            most_unanswered: Mutex::default(),
            unary_enqueues: Mutex::default(),
            listings: Mutex::default(),
            cuts: watch::Sender::new(0),
            unanswered: Mutex::default(),
        };
        let fake = Self {
            address,
            inner: Arc::new(inner),
        };
        let tasks = TasksServer::new(fake.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let admin = AdminServer::new(fake.clone());
        // Two services are too few for a router.
        let both = service_fn(move |request: http::Request<Body>| {
            let (mut tasks, mut admin) = (tasks.clone(), admin.clone());
            async move {
                match request.uri().path().starts_with("/asynq.v1.Tasks/") {
                    true => tasks.call(request).await,
                    false => admin.call(request).await,
                }
            }
        });
        let serving = tonic::transport::Server::builder().serve_with_incoming(both, incoming);
        tokio::spawn(serving);
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all sessions, as a broker does that shuts down.
    pub(crate) fn cut(&self) {
        self.inner.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether the answer to an operator's verb is to be lost.
    fn loses_answer(&self, verb: &'static str, tasks: &Tasks, ids: &[Bytes]) -> bool {
        let mut lost = ids.iter().filter(|id| tasks.is_named(id, "dead.lost"));
        let mut unanswered = lock(&self.inner.unanswered);
        lost.any(|id| unanswered.insert((verb, id.clone())))
    }

    /// The operations received so far, by message.
    pub(crate) fn messages(&self) -> Vec<Vec<v1::Operation>> {
        lock(&self.inner.messages).clone()
    }

    /// The listings asked for so far.
    pub(crate) fn listings(&self) -> Vec<v1::ListTasksRequest> {
        lock(&self.inner.listings).clone()
    }

    /// The streams opened so far.
    pub(crate) fn streams(&self) -> Vec<Seen> {
        lock(&self.inner.streams).seen()
    }

    /// All that has been asked for by those who opened streams.
    pub(crate) fn openings(&self) -> Vec<v1::IterateRequest> {
        lock(&self.inner.streams).requests()
    }

    /// Lets things go wrong with the next openings of streams, one with each, and
    /// nothing else any more:
    /// - `3` breaks it after three frames with UNAVAILABLE, `3.quiet` as if it were at its end
    /// - `before` takes it and answers UNAVAILABLE
    /// - `away` answers UNAVAILABLE to this and all that follow
    /// - `refused.9.REASON` refuses it with a gRPC code
    /// - `other_items` yields others than before, `other_digest` says that it will
    pub(crate) fn fail(&self, faults: &[&'static str]) {
        lock(&self.inner.streams).fail(faults);
    }

    /// Waits until the streams are as `wanted`.
    pub(crate) async fn until(&self, mut wanted: impl FnMut(&[Seen]) -> bool) {
        let begun = Instant::now();
        while !wanted(&self.streams()) {
            assert!(begun.elapsed() < DEADLINE, "streams are {:?}", self.streams());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until an operation that `wanted` picks has come in.
    pub(crate) async fn received<T>(&self, wanted: impl Fn(&v1::operation::Op) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            let found = self
                .messages()
                .iter()
                .flatten()
                .find_map(|operation| wanted(operation.op.as_ref()?));
            if let Some(found) = found {
                return found;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "not received; there were {:?}",
                self.messages()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The most operations a session has had unanswered, and the enqueues that came by unary calls.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (*lock(&self.inner.most_unanswered), *lock(&self.inner.unary_enqueues))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[tonic::async_trait]
impl v1::tasks_server::Tasks for Fake {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::SessionReply, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(Box::pin(session::open(
            self.clone(),
            request.into_inner(),
        ))))
    }

    async fn enqueue(&self, request: Request<v1::EnqueueRequest>) -> Result<Response<v1::Enqueued>, Status> {
        *lock(&self.inner.unary_enqueues) += 1;
        let request = request.into_inner();
        let mut tasks = lock(&self.inner.tasks);
        if let Some(code) = request.name.strip_prefix("refused.") {
            let details = ErrorDetails::with_error_info("TEST", "asynq", []);
            let code = Code::from_i32(code.parse().unwrap());
            return Err(Status::with_error_details(code, "refused as asked", details));
        }
        let not_now = request.name == "not_now" && tasks.is_new(&request.id);
        let enqueued = tasks.enqueue(request);
        if not_now {
            Err(Status::unavailable("not now"))
        } else {
            Ok(Response::new(enqueued))
        }
    }

    async fn wait(&self, request: Request<v1::WaitRequest>) -> Result<Response<v1::Finished>, Status> {
        let finished = lock(&self.inner.tasks).finished(&request.into_inner().id);
        finished
            .map(Response::new)
            .ok_or_else(|| Status::deadline_exceeded("the fake does not wait here"))
    }

    async fn cancel(&self, _: Request<v1::CancelRequest>) -> Result<Response<v1::Cancelled>, Status> {
        Err(Status::unimplemented("on the session"))
    }

    type IterateStream = streams::Frames;

    async fn iterate(&self, request: Request<v1::IterateRequest>) -> Result<Response<Self::IterateStream>, Status> {
        streams::open(self, request.into_inner()).map(Response::new)
    }

    async fn flow(&self, _: Request<v1::FlowRequest>) -> Result<Response<v1::FlowReply>, Status> {
        Err(Status::unimplemented("on the session"))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::Cancelled>, Status> {
        Err(Status::unimplemented("on the session"))
    }

    async fn show(&self, _: Request<v1::ShowRequest>) -> Result<Response<v1::TaskInfo>, Status> {
        Err(Status::unimplemented("on the session"))
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::Explanation>, Status> {
        Err(Status::unimplemented("on the session"))
    }

    async fn history(&self, _: Request<v1::HistoryRequest>) -> Result<Response<v1::HistoryReply>, Status> {
        Err(Status::unimplemented("on the session"))
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Fake {
    async fn list_queues(&self, _: Request<v1::ListQueuesRequest>) -> Result<Response<v1::ListQueuesReply>, Status> {
        let queue = v1::QueueInfo {
            name: "default".to_owned(),
            policy: "fair".to_owned(),
            durability: "sync".to_owned(),
            ready: 12,
            ..v1::QueueInfo::default()
        };
        Ok(Response::new(v1::ListQueuesReply { queues: vec![queue] }))
    }

    async fn set_queue(&self, request: Request<v1::SetQueueRequest>) -> Result<Response<v1::SetQueueReply>, Status> {
        let v1::SetQueueRequest { queue, fast_requeue } = request.into_inner();
        let queue = v1::QueueInfo {
            name: queue,
            policy: "fair".to_owned(),
            durability: "sync".to_owned(),
            fast_requeue: fast_requeue.unwrap_or_default(),
            ..v1::QueueInfo::default()
        };
        Ok(Response::new(v1::SetQueueReply { queue: Some(queue) }))
    }

    async fn list_workers(&self, _: Request<v1::ListWorkersRequest>) -> Result<Response<v1::ListWorkersReply>, Status> {
        let worker = v1::WorkerInfo {
            name: "node-1".to_owned(),
            session: vec![0xab; 16].into(),
            state: "active".to_owned(),
            slots: 8,
            busy: 3,
            leaked: 0,
            tasks: vec!["echo".to_owned(), "sleep".to_owned()],
            connected_at_ms: 1_700_000_000_000,
        };
        Ok(Response::new(v1::ListWorkersReply { workers: vec![worker] }))
    }

    async fn list_tasks(&self, request: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksReply>, Status> {
        let request = request.into_inner();
        lock(&self.inner.listings).push(request.clone());
        if request.page == "bad" {
            return Err(Status::invalid_argument("page is no token"));
        }
        Ok(Response::new(lock(&self.inner.tasks).list(&request)))
    }

    async fn retry_tasks(
        &self,
        request: Request<v1::RetryTasksRequest>,
    ) -> Result<Response<v1::RetryTasksReply>, Status> {
        let (tasks, ids) = (lock(&self.inner.tasks), &request.get_ref().ids);
        if self.loses_answer("retry", &tasks, ids) {
            return Err(Status::unavailable("lost"));
        }
        let tasks = ids.iter().map(|id| tasks.retry(id)).collect();
        Ok(Response::new(v1::RetryTasksReply { tasks }))
    }

    async fn purge_tasks(
        &self,
        request: Request<v1::PurgeTasksRequest>,
    ) -> Result<Response<v1::PurgeTasksReply>, Status> {
        let v1::PurgeTasksRequest { ids, states } = request.get_ref();
        let mut tasks = lock(&self.inner.tasks);
        let lost = self.loses_answer("purge", &tasks, ids);
        let tasks = ids.iter().map(|id| tasks.purge(id, states)).collect();
        if lost {
            return Err(Status::unavailable("lost"));
        }
        Ok(Response::new(v1::PurgeTasksReply { tasks }))
    }
}
