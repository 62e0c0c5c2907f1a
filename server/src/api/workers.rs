//! `asynq.v1.Workers`: what workers use. A session's stream is read by one task
//! that hands each message to the broker as one command.

use std::sync::Arc;

use asynq_core::SessionId;
use asynq_core::limits::{HEARTBEAT, LEASE, LEASE_MARGIN};
use asynq_proto::v1;
use asynq_proto::v1::workers_server::Workers;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug};

use super::tasks::mismatch;
use super::{Replies, calls, convert, emit, render};
use crate::broker::{
    Answer, Answered, Broker, CallerGuard, Command, End, Error, Hangup, Op, ToWorker, WorkerConn, WorkerHello,
};
use crate::limits::{HELLO_TIMEOUT, WORKER_BACKLOG};
use crate::line::Line;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct WorkersApi {
    broker: Broker,
}

impl WorkersApi {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker }
    }
}

#[tonic::async_trait]
impl Workers for WorkersApi {
    type WorkStream = Replies<v1::WorkReply>;
    type EmitStream = Replies<v1::EmitControl>;

    async fn work(&self, request: Request<Streaming<v1::WorkRequest>>) -> Result<Response<Self::WorkStream>, Status> {
        let conn = WorkerConn::new();
        let line = request.extensions().get::<Line>().cloned();
        tokio::spawn(read(self.broker.clone(), conn.clone(), line, request.into_inner()).in_current_span());
        let state = Connection {
            calls: self.broker.calls_of(&conn),
            conn,
            ended: false,
        };
        let replies = stream::unfold(state, |mut state| async { Some((state.next().await?, state)) });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn emit(&self, request: Request<Streaming<v1::EmitFrame>>) -> Result<Response<Self::EmitStream>, Status> {
        Ok(Response::new(Box::pin(emit::open(&self.broker, request.into_inner()))))
    }

    async fn fetch_payload(&self, request: Request<v1::FetchPayloadRequest>) -> Result<Response<v1::Payload>, Status> {
        let token = convert::token(request.into_inner().token)?;
        let payload = self.broker.fetch_payload(token).await?;
        Ok(Response::new(render::payload(payload)))
    }

    async fn complete_large(&self, request: Request<v1::Completion>) -> Result<Response<v1::RunAck>, Status> {
        let completion = request.into_inner();
        let token = convert::token(completion.token.clone())?;
        let report = convert::completion(completion, self.broker.clock().now())?;
        let verdict = self.broker.complete_large(report).await?;
        Ok(Response::new(render::run_ack(token, verdict)))
    }

    async fn call_large(&self, request: Request<v1::RunCall>) -> Result<Response<v1::Enqueued>, Status> {
        let enqueue = calls::large(request.into_inner(), self.broker.clock().now())?;
        match self.broker.call(Op::Enqueue(enqueue)).await? {
            Answer::Enqueued {
                task,
                existed,
                worker_known,
            } => Ok(Response::new(render::enqueued(task, existed, worker_known))),
            other => Err(mismatch(&other)),
        }
    }

    async fn fetch_result(&self, request: Request<v1::FetchResultRequest>) -> Result<Response<v1::Finished>, Status> {
        let v1::FetchResultRequest { token, n } = request.into_inner();
        let call = calls::named(token, n)?;
        match self.broker.call(Op::Wait(call.token.child(call.n))).await? {
            Answer::Finished { end, deferred } => Ok(Response::new(render::finished(&end, deferred))),
            other => Err(mismatch(&other)),
        }
    }
}

/// The sending half of a connection; dropped with the stream.
struct Connection {
    /// What its runs call: given up with it.
    calls: CallerGuard,
    conn: Arc<WorkerConn>,
    ended: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.conn.outbox().abandon();
    }
}

impl Connection {
    async fn next(&mut self) -> Option<Result<v1::WorkReply, Status>> {
        if self.ended {
            return None;
        }
        loop {
            let (mut batch, mut answers) = (Vec::new(), Vec::new());
            let end = tokio::select! {
                biased;
                end = self.conn.take(&mut batch) => end,
                end = self.calls.take(&mut answers) => end,
            };
            match end {
                None => {
                    if answers.is_empty() && self.calls.caller().outbox().bytes() > 0 {
                        // What ends them ends the next turn.
                        self.calls.take(&mut answers).now_or_never();
                    }
                    let reply = reply(batch, answers);
                    if reply != v1::WorkReply::default() {
                        return Some(Ok(reply));
                    }
                }
                Some(Error::Ended(End::Done)) => return None,
                Some(error) => {
                    self.ended = true;
                    return Some(Err(error.into()));
                }
            }
        }
    }
}

/// All that is ready, as one message.
fn reply(batch: Vec<ToWorker>, answers: Vec<Answered>) -> v1::WorkReply {
    let mut reply = v1::WorkReply {
        answers: answers.into_iter().filter_map(calls::answer).collect(),
        ..v1::WorkReply::default()
    };
    let of = |kind: fn(&ToWorker) -> bool| batch.iter().filter(|message| kind(message)).count();
    reply
        .assignments
        .reserve(of(|message| matches!(message, ToWorker::Assign(..))));
    reply.acks.reserve(of(|message| matches!(message, ToWorker::Ack(..))));
    for message in batch {
        match message {
            ToWorker::Welcome { session, resumed, now } => {
                reply.welcome = Some(v1::WorkWelcome {
                    session: Bytes::copy_from_slice(&session.0),
                    lease_ms: render::millis(LEASE),
                    heartbeat_ms: render::millis(HEARTBEAT),
                    margin_ms: render::millis(LEASE_MARGIN),
                    resumed,
                    now_us: now.as_micros(),
                });
            }
            ToWorker::HeartbeatAck(count) => reply.heartbeat_ack = reply.heartbeat_ack.max(count),
            ToWorker::Assign(run, payload) => reply.assignments.push(render::assignment(*run, payload)),
            ToWorker::Stop(token, cause) => reply.stops.push(render::stop(token, cause)),
            ToWorker::Ack(token, verdict) => reply.acks.push(render::run_ack(token, verdict)),
            ToWorker::Acked(number) => reply.acked = reply.acked.max(number),
        }
    }
    reply
}

async fn read(broker: Broker, conn: Arc<WorkerConn>, line: Option<Line>, mut requests: Streaming<v1::WorkRequest>) {
    let said = tokio::select! {
        biased;
        () = conn.outbox().closed() => return,
        said = said_hello(&mut requests) => said,
    };
    // Once the broker has the hello, the session is opened, whatever becomes of
    // the connection: from here on it is waited for, and hung up in the end.
    let opened = match said {
        Ok((hello, first)) => broker
            .worker_hello(hello, conn.clone())
            .await
            .map(|session| (session, first)),
        Err(error) => Err(error),
    };
    let (session, first) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            debug!(%error, "a worker was turned away");
            return conn.outbox().end(error);
        }
    };
    let ended = tokio::select! {
        () = conn.outbox().closed() => Ok(false),
        ended = converse(&broker, session, &conn, first, &mut requests) => ended,
    };
    let goodbye = ended.unwrap_or_else(|error| {
        conn.outbox().end(error);
        false
    });
    let silent = async {
        match line {
            Some(line) if !goodbye => line.is_silent().await,
            _ => false,
        }
    };
    let silent = tokio::select! {
        silent = silent => silent,
        _ = broker.ended() => return,
    };
    let how = match silent {
        _ if goodbye => Hangup::Goodbye,
        true => Hangup::Silent,
        false => Hangup::Reset,
    };
    // The broker may have ended meanwhile.
    let _ = broker.send(Command::WorkerHangup { session, conn, how }).await;
}

/// Reads the hello, and what else the first message said.
async fn said_hello(requests: &mut Streaming<v1::WorkRequest>) -> Result<(WorkerHello, v1::WorkRequest), Error> {
    let first = timeout(HELLO_TIMEOUT, requests.message())
        .await
        .ok()
        .and_then(Result::ok)
        .flatten();
    let mut first = first.ok_or(Error::ExpectedHello("worker session"))?;
    let hello = first.hello.take().ok_or(Error::ExpectedHello("worker session"))?;
    Ok((convert::hello(hello)?, first))
}

/// Until the worker closes its side; says whether it had told that it drains. If it
/// had not, its side may not be closed at all: hyper ends what it reads without an
/// error, too, when pings go unanswered.
async fn converse(
    broker: &Broker,
    session: SessionId,
    conn: &Arc<WorkerConn>,
    first: v1::WorkRequest,
    requests: &mut Streaming<v1::WorkRequest>,
) -> Result<bool, Error> {
    let mut next = Some(first);
    let mut draining = false;
    while let Some(request) = next {
        let input = convert::work(request, session, broker.clock().now())?;
        draining |= input.draining;
        broker
            .send(Command::WorkerInput {
                session,
                conn: conn.clone(),
                input,
            })
            .await?;
        // A worker that does not read what it is sent is not read from either.
        conn.outbox().room(WORKER_BACKLOG).await;
        next = requests
            .message()
            .await
            .map_err(|status| Error::BadMessage(status.message().to_owned()))?;
    }
    Ok(draining)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, StreamExt};
    use tokio_util::sync::CancellationToken;
    use tonic::codec::EncodeBody;
    use tonic_prost::{ProstDecoder, ProstEncoder};

    use super::*;
    use crate::Backing;
    use crate::clock::SystemClock;

    /// One message, and then silence.
    fn says(request: v1::WorkRequest) -> Streaming<v1::WorkRequest> {
        let requests = stream::iter([Ok(request)]).chain(stream::pending());
        let body = EncodeBody::new_client(ProstEncoder::default(), requests, None, None);
        Streaming::new_request(ProstDecoder::default(), body, None, None)
    }

    #[tokio::test]
    async fn a_connection_that_goes_while_its_hello_is_on_the_way_leaves_no_session() {
        let (broker, broker_loop) = crate::broker::open(Backing::memory(), Arc::new(SystemClock::new())).unwrap();
        let hello = v1::WorkHello {
            worker: "w".into(),
            slots: 1,
            ..Default::default()
        };
        let request = v1::WorkRequest {
            hello: Some(hello),
            ..Default::default()
        };
        let conn = WorkerConn::new();
        let mut reading = pin!(read(broker.clone(), conn.clone(), None, says(request)));
        assert_eq!(reading.as_mut().now_or_never(), None, "the loop does not run yet");
        conn.outbox().abandon();
        assert_eq!(
            reading.as_mut().now_or_never(),
            None,
            "the session is opened all the same"
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(broker_loop.run(stop.clone()));
        timeout(HELLO_TIMEOUT, reading).await.unwrap();
        let workers = broker.workers().await.unwrap();
        assert_eq!(workers, []);
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
