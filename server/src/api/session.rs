//! `Tasks.Session`: one task reads a caller's messages and hands each to the
//! broker as one command; the reply stream sends all answers that are ready.

use std::sync::Arc;

use asynq_proto::v1;
use futures_util::stream::{self, Stream};
use tokio::time::timeout;
use tonic::{Status, Streaming};
use tracing::{Instrument, debug, debug_span};

use super::{convert, items, render};
use crate::broker::{Ask, Broker, Caller, CallerGuard, ClientId, Command, End, Error};
use crate::limits::{HELLO_TIMEOUT, MAX_OUTSTANDING};
use crate::metrics::Calls;

/// Begins a session. The caller is welcomed at once and has to say hello.
pub(super) fn open(
    broker: &Broker,
    calls: Calls,
    requests: Streaming<v1::SessionRequest>,
) -> impl Stream<Item = Result<v1::SessionReply, Status>> + use<> {
    let guard = broker.session();
    let reading = read(broker.clone(), guard.caller().clone(), requests);
    let reading = reading.instrument(debug_span!("caller", id = ?guard.caller().id()));
    // The call's own span, too.
    tokio::spawn(reading.in_current_span());
    let welcome = v1::SessionWelcome {
        now_us: broker.clock().now().as_micros(),
        epoch: broker.epoch().0,
        max_outstanding: MAX_OUTSTANDING,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock_doubted: broker.doubts_clock(),
    };
    let state = State {
        guard,
        calls,
        welcome: Some(welcome),
        ended: false,
    };
    stream::unfold(state, |mut state| async { Some((state.next().await?, state)) })
}

struct State {
    guard: CallerGuard,
    /// Refused operations count as failed calls.
    calls: Calls,
    welcome: Option<v1::SessionWelcome>,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Result<v1::SessionReply, Status>> {
        if self.ended {
            return None;
        }
        if self.welcome.is_some() {
            return Some(Ok(v1::SessionReply {
                welcome: self.welcome.take(),
                answers: Vec::new(),
            }));
        }
        let mut batch = Vec::new();
        match self.guard.take(&mut batch).await {
            None => {
                let answers: Vec<_> = batch.into_iter().map(render::answered).collect();
                for error in answers.iter().filter_map(refused) {
                    self.calls.failed(error.code.into(), &error.reason, &error.message);
                }
                Some(Ok(v1::SessionReply { welcome: None, answers }))
            }
            Some(Error::Ended(End::Done)) => None,
            Some(error) => {
                self.ended = true;
                Some(Err(error.into()))
            }
        }
    }
}

fn refused(answer: &v1::Answer) -> Option<&v1::OperationError> {
    match &answer.of {
        Some(v1::answer::Of::Error(error)) => Some(error),
        _ => None,
    }
}

async fn read(broker: Broker, caller: Arc<Caller>, mut requests: Streaming<v1::SessionRequest>) {
    let conversation = async {
        let first = timeout(HELLO_TIMEOUT, requests.message())
            .await
            .ok()
            .and_then(Result::ok)
            .flatten();
        let mut first = first.ok_or(Error::ExpectedHello("session"))?;
        let hello = first.hello.take().ok_or(Error::ExpectedHello("session"))?;
        debug!(hello.client, hello.connection, "caller connected");
        if !hello.client_id.is_empty() {
            let client = ClientId(items::sixteen("hello.client_id", &hello.client_id)?);
            let hello = Command::Hello {
                caller: caller.clone(),
                client,
                connection: hello.connection,
            };
            broker.send(hello).await?;
        }
        let mut next = Some(first);
        while let Some(request) = next {
            let now = broker.clock().now();
            let asks: Vec<Ask> = request.operations.into_iter().map(|op| convert::ask(op, now)).collect();
            if !asks.is_empty() {
                broker
                    .send(Command::Ask {
                        caller: caller.clone(),
                        asks,
                    })
                    .await?;
            }
            next = requests
                .message()
                .await
                .map_err(|status| Error::BadMessage(status.message().to_owned()))?;
        }
        broker.send(Command::Finish { caller: caller.clone() }).await?;
        Ok::<(), Error>(())
    };
    tokio::select! {
        () = caller.outbox().closed() => {}
        result = conversation => match result {
            Ok(()) => {}
            Err(error) => caller.outbox().end(error),
        }
    }
    debug!("caller's requests ended");
}
