//! A client that speaks bare HTTP/2: it can send what no gRPC client sends, say
//! nothing, and read nothing.

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

use crate::harness::soon;

/// What a gRPC client sends, but for a deadline.
pub(crate) const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

/// A connection.
pub(crate) struct Raw {
    requests: SendRequest<Bytes>,
}

/// An answer that has begun.
pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    headers: HeaderMap,
    body: RecvStream,
    /// The request goes on as long as this is there.
    request: SendStream<Bytes>,
}

/// A message as it is framed.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    frame(0, message.encoded_len(), &message.encode_to_vec())
}

/// A frame that says what it likes of itself.
pub(crate) fn frame(flag: u8, length: usize, bytes: &[u8]) -> Bytes {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[flag], &length[..], bytes].concat().into()
}

impl Raw {
    /// One that takes so many bytes of each answer until it reads.
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, window: u32) -> Self {
        let (requests, connection) = soon(Builder::new().initial_window_size(window).handshake(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { requests }
    }

    /// Makes a call whose request is no more than this.
    pub(crate) async fn call(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut call = self.begin(path, headers).await;
        call.request.send_data(body, true).unwrap();
        call.answered().await
    }

    /// Begins a call whose request goes on, with this or without a word.
    pub(crate) async fn open(&self, path: &str, headers: &[(&str, &str)], first: Option<Bytes>) -> Answer {
        let mut call = self.begin(path, headers).await;
        if let Some(first) = first {
            call.request.send_data(first, false).unwrap();
        }
        call.answered().await
    }

    async fn begin(&self, path: &str, headers: &[(&str, &str)]) -> Call {
        let mut request = Request::post(format!("http://broker{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = soon(self.requests.clone().ready()).await.unwrap();
        let (answer, request) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        Call { answer, request }
    }
}

struct Call {
    answer: ResponseFuture,
    request: SendStream<Bytes>,
}

impl Call {
    async fn answered(self) -> Answer {
        let (parts, body) = soon(self.answer).await.unwrap().into_parts();
        Answer {
            http: parts.status,
            headers: parts.headers,
            body,
            request: self.request,
        }
    }
}

impl Answer {
    /// Sends another message.
    pub(crate) fn send(&mut self, message: Bytes) {
        self.request.send_data(message, false).unwrap();
    }

    /// Reads to the end; gives how it ends.
    pub(crate) async fn end(mut self) -> Status {
        while let Some(data) = soon(self.body.data()).await {
            let bytes = data.unwrap().len();
            self.body.flow_control().release_capacity(bytes).unwrap();
        }
        let trailers = soon(self.body.trailers()).await.unwrap();
        Status::from_header_map(&trailers.unwrap_or(self.headers)).expect("every answer ends with a status")
    }
}
