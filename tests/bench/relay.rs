//! The floor for items: a plain tonic relay. A producer streams items up to it,
//! one message each, a reader has them streamed down, and between them is what
//! HTTP/2 has of flow control and nothing else: no queue, no credits.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use asynq_proto::v1::Payload;
use asynq_tests::{PATIENCE, Process, eventually};
use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Mutex, mpsc};
use tokio::time::interval;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::server::{ClientStreamingService, Grpc as Server, ServerStreamingService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::floor::listen;

/// The argument that makes this program the relay, and the one that makes it the producer.
pub(crate) const SERVE: &str = "serve-the-relay";
pub(crate) const PRODUCE: &str = "produce-items";
pub(crate) const NAME: &str = "relay (tonic, no queue)";

const UP: &str = "/bench.Relay/Up";
const DOWN: &str = "/bench.Relay/Down";
/// How often the producer says how far it is.
const TELL: Duration = Duration::from_millis(50);

type Codec = ProstCodec<Payload, Payload>;
type Reader = mpsc::Sender<Result<Payload, Status>>;

pub(crate) struct Relay {
    url: String,
    folder: tempfile::TempDir,
    _server: Process,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let me = std::env::current_exe().expect("a running program has a path");
        let server = Process::start_at(&me, [SERVE], folder.path().join("relay.log")).await;
        let server = server.unwrap_or_else(|said| panic!("the relay: {said}"));
        Self {
            url: format!("http://{}", server.ready()),
            folder,
            _server: server,
        }
    }

    /// Items per second, from the first to the end.
    pub(crate) async fn items(&self, count: u64) -> f64 {
        let (mut items, _producer) = self.open(count).await;
        let (mut begun, mut seen) = (None, 0);
        while let Some(item) = items.next().await {
            item.expect("the relay does not fail");
            begun.get_or_insert_with(Instant::now);
            seen += 1;
        }
        assert_eq!(seen, count, "the stream is whole");
        seen as f64 / begun.expect("there was an item").elapsed().as_secs_f64()
    }

    /// How many items are produced for a reader who has read `read` and stops.
    pub(crate) async fn ahead(&self, read: u64) -> u64 {
        let (mut items, producer) = self.open(u64::MAX).await;
        for _ in 0..read {
            items.next().await.expect("an item").expect("the relay does not fail");
        }
        let mut last = (0, Instant::now());
        let produced = eventually("the producer to be stopped", PATIENCE, || {
            let now = producer.log().lines().last().and_then(|line| line.parse().ok());
            if now.is_some_and(|now| now != last.0) {
                last = (now.unwrap_or(0), Instant::now());
            }
            // It is silent while nothing changes.
            std::future::ready((last.0 > 0 && last.1.elapsed() > 10 * TELL).then_some(last.0))
        });
        produced.await - read
    }

    async fn open(&self, count: u64) -> (Streaming<Payload>, Process) {
        let channel = Channel::from_shared(self.url.clone()).expect("a URL");
        let mut client = Client::new(channel.connect().await.expect("the relay listens"));
        client.ready().await.expect("connected");
        let path = PathAndQuery::from_static(DOWN);
        let down = client.server_streaming(Request::new(Payload::default()), path, Codec::default());
        let items = down.await.expect("the relay answers").into_inner();
        let me = std::env::current_exe().expect("a running program has a path");
        // A log of its own: what the last one said counts no more.
        let log = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        let log = log.into_temp_path().keep().expect("it stays with its folder");
        let producer = Process::start_at(&me, [PRODUCE, &self.url, &count.to_string()], log).await;
        (items, producer.unwrap_or_else(|said| panic!("the producer: {said}")))
    }
}

/// Streams so many items up.
pub(crate) fn produce(url: &str, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        println!("producing");
        let produced = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&produced);
        tokio::spawn(async move {
            let (mut told, mut tick) = (0, interval(TELL));
            loop {
                tick.tick().await;
                let now = produced.load(Ordering::Relaxed);
                if now != told {
                    eprintln!("{now}");
                    told = now;
                }
            }
        });
        let pad = "x".repeat(80);
        let items = (0..count).map(move |i| {
            counter.fetch_add(1, Ordering::Relaxed);
            Payload {
                content_type: String::new(),
                data: format!("{{\"i\":{i},\"pad\":\"{pad}\"}}").into(),
            }
        });
        let channel = Channel::from_shared(url.to_owned()).expect("a URL");
        let mut client = Client::new(channel.connect().await.expect("the relay listens"));
        client.ready().await.expect("connected");
        let path = PathAndQuery::from_static(UP);
        let up = Request::new(tokio_stream::iter(items));
        // However it ends, its reader sees it.
        let _ = client.client_streaming(up, path, Codec::default()).await;
    });
}

/// Relays until it is killed.
pub(crate) fn serve() {
    let relay = Plain::default();
    listen(move |io| {
        let relay = relay.clone();
        async move {
            let http = auto::Builder::new(TokioExecutor::new()).http2_only();
            // However the connection ends, the other side sees it.
            let _ = http.serve_connection(io, TowerToHyperService::new(relay)).await;
        }
    });
}

/// The relay itself: the reader comes first, then its producer.
#[derive(Clone, Default)]
struct Plain {
    waiting: Arc<Mutex<Option<Reader>>>,
}

impl<B> Service<HttpRequest<B>> for Plain
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        let relay = self.clone();
        Box::pin(async move {
            let mut server = Server::new(Codec::default());
            Ok(match request.uri().path() {
                UP => server.client_streaming(relay, request).await,
                _ => server.server_streaming(relay, request).await,
            })
        })
    }
}

impl ServerStreamingService<Payload> for Plain {
    type Response = Payload;
    type ResponseStream = ReceiverStream<Result<Payload, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<Payload>) -> Self::Future {
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            let (items, reader) = mpsc::channel(64);
            *waiting.lock().await = Some(items);
            Ok(Response::new(ReceiverStream::new(reader)))
        })
    }
}

impl ClientStreamingService<Payload> for Plain {
    type Response = Payload;
    type Future = BoxFuture<Response<Payload>, Status>;

    fn call(&mut self, request: Request<Streaming<Payload>>) -> Self::Future {
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            let reader = waiting.lock().await.take();
            let reader = reader.ok_or_else(|| Status::failed_precondition("nobody reads"))?;
            let mut items = request.into_inner();
            while let Some(item) = items.next().await {
                if reader.send(item).await.is_err() {
                    break;
                }
            }
            Ok(Response::new(Payload::default()))
        })
    }
}
