//! The floor to compare with: a unary call on plain tonic, from process to
//! process, with nothing behind it: the arguments go there, and an empty answer
//! comes back, which is less than a task's result.

use std::future::Future;
use std::pin::Pin;

use asynq_proto::Payload;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::v1::workers_server::{Workers, WorkersServer};
use asynq_proto::v1::{self, EmitControl, EmitFrame, FetchPayloadRequest, RunAck, WorkReply, WorkRequest};
use asynq_tests::Process;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::Figure;
use crate::load::Load;

/// The argument that makes this program the server.
pub(crate) const SERVE: &str = "serve-the-floor";

pub(crate) struct Floor {
    client: WorkersClient<Channel>,
    pids: [u32; 1],
    _server: Process,
    _folder: tempfile::TempDir,
}

impl Floor {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let me = std::env::current_exe().expect("a running program has a path");
        let server = Process::start_at(&me, [SERVE], folder.path().join("floor.log")).await;
        let server = server.unwrap_or_else(|said| panic!("the floor: {said}"));
        let url = format!("http://{}", server.ready());
        let client = WorkersClient::connect(url).await.expect("the floor listens");
        Self {
            client,
            pids: [server.pid()],
            _server: server,
            _folder: folder,
        }
    }

    pub(crate) async fn load(&self, load: Load, payload: &Payload) -> Figure {
        let (client, data) = (self.client.clone(), payload.clone());
        let call = move || {
            let (mut client, payload) = (client.clone(), v1::Payload::from(data.clone()));
            async move {
                let request = v1::Completion {
                    token: None,
                    result: Some(payload),
                    spawned: Vec::new(),
                };
                client.complete_large(request).await.expect("the floor answers");
            }
        };
        load.run(&self.pids, call).await
    }
}

/// Serves until it is killed.
pub(crate) fn serve() {
    listen(|io| async {
        let http = auto::Builder::new(TokioExecutor::new()).http2_only();
        // However the connection ends, the caller sees it.
        let _ = http
            .serve_connection(io, TowerToHyperService::new(WorkersServer::new(Echo)))
            .await;
    });
}

/// Serves each connection, on one thread, until it is killed.
pub(crate) fn listen<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TokioIo<TcpStream>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("bound"));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a TCP stream");
            tokio::spawn(serve(TokioIo::new(stream)));
        }
    });
}

struct Echo;

#[tonic::async_trait]
impl Workers for Echo {
    type WorkStream = Pin<Box<dyn Stream<Item = Result<WorkReply, Status>> + Send>>;

    type EmitStream = Pin<Box<dyn Stream<Item = Result<EmitControl, Status>> + Send>>;

    async fn emit(&self, _: Request<Streaming<EmitFrame>>) -> Result<Response<Self::EmitStream>, Status> {
        Err(Status::unimplemented("only a floor"))
    }

    async fn work(&self, _: Request<Streaming<WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        Err(Status::unimplemented("only a floor"))
    }

    async fn fetch_payload(&self, _: Request<FetchPayloadRequest>) -> Result<Response<v1::Payload>, Status> {
        Err(Status::unimplemented("only a floor"))
    }

    async fn call_large(&self, _: Request<v1::RunCall>) -> Result<Response<v1::Enqueued>, Status> {
        Err(Status::unimplemented("only a floor"))
    }

    async fn fetch_result(&self, _: Request<v1::FetchResultRequest>) -> Result<Response<v1::Finished>, Status> {
        Err(Status::unimplemented("only a floor"))
    }

    async fn complete_large(&self, _: Request<v1::Completion>) -> Result<Response<RunAck>, Status> {
        Ok(Response::new(RunAck::default()))
    }
}
