//! What streams are without a broker: a plain tonic relay. A producer streams
//! messages up to it, a reader has them streamed down, and between them is what
//! HTTP/2 has of flow control and nothing else: no queue, no credits. It is what
//! asynq's streams are held against.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request as HttpRequest, Response as HttpResponse, uri::PathAndQuery};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::server::{ClientStreamingService, Grpc as Server, ServerStreamingService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

const UP: &str = "/bench.Relay/Up";
const DOWN: &str = "/bench.Relay/Down";
/// Messages on their way through the relay itself.
const BETWEEN: usize = 64;

type Codec<M> = ProstCodec<M, M>;
type Reader<M> = mpsc::Sender<Result<M, Status>>;

/// The relay: the reader comes first, then its producer.
#[derive(Debug)]
pub struct Relay<M> {
    waiting: Arc<Mutex<Option<Reader<M>>>>,
}

impl<M> Clone for Relay<M> {
    fn clone(&self) -> Self {
        Self {
            waiting: Arc::clone(&self.waiting),
        }
    }
}

impl<M> Default for Relay<M> {
    fn default() -> Self {
        Self {
            waiting: Arc::default(),
        }
    }
}

impl<M: Message + Default + 'static> Relay<M> {
    /// Serves a connection to its end.
    pub async fn serve(self, io: TokioIo<TcpStream>) {
        let http = auto::Builder::new(TokioExecutor::new()).http2_only();
        // However the connection ends, the other side sees it.
        let _ = http.serve_connection(io, TowerToHyperService::new(self)).await;
    }
}

/// Somebody who speaks to a relay, over one connection.
#[derive(Debug, Clone)]
pub struct RelayClient<M> {
    client: Client<Channel>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default + 'static> RelayClient<M> {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).expect("a URL");
        Self {
            client: Client::new(channel.connect().await.expect("the relay listens")),
            message: PhantomData,
        }
    }

    /// Reads what the next producer streams up.
    ///
    /// # Panics
    /// When the relay does not answer.
    pub async fn down(&mut self) -> Streaming<M> {
        self.client.ready().await.expect("connected");
        let (request, path) = (Request::new(M::default()), PathAndQuery::from_static(DOWN));
        let down = self.client.server_streaming(request, path, Codec::<M>::default());
        down.await.expect("the relay answers").into_inner()
    }

    /// Streams messages up, to their end or the reader's.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn up(&mut self, messages: impl Stream<Item = M> + Send + 'static) {
        self.client.ready().await.expect("connected");
        let (request, path) = (Request::new(messages), PathAndQuery::from_static(UP));
        // However it ends, its reader sees it.
        let _ = self.client.client_streaming(request, path, Codec::<M>::default()).await;
    }
}

impl<M, B> Service<HttpRequest<B>> for Relay<M>
where
    M: Message + Default + 'static,
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
            let mut server = Server::new(Codec::<M>::default());
            Ok(match request.uri().path() {
                UP => server.client_streaming(relay, request).await,
                _ => server.server_streaming(relay, request).await,
            })
        })
    }
}

impl<M: Message + Default + 'static> ServerStreamingService<M> for Relay<M> {
    type Response = M;
    type ResponseStream = ReceiverStream<Result<M, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _: Request<M>) -> Self::Future {
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            let (messages, reader) = mpsc::channel(BETWEEN);
            *waiting.lock().await = Some(messages);
            Ok(Response::new(ReceiverStream::new(reader)))
        })
    }
}

impl<M: Message + Default + 'static> ClientStreamingService<M> for Relay<M> {
    type Response = M;
    type Future = BoxFuture<Response<M>, Status>;

    fn call(&mut self, request: Request<Streaming<M>>) -> Self::Future {
        let waiting = Arc::clone(&self.waiting);
        Box::pin(async move {
            let reader = waiting.lock().await.take();
            let reader = reader.ok_or_else(|| Status::failed_precondition("nobody reads"))?;
            let mut messages = request.into_inner();
            while let Some(message) = messages.next().await {
                if reader.send(message).await.is_err() {
                    break;
                }
            }
            Ok(Response::new(M::default()))
        })
    }
}
