//! `Workers.Emit`: the items of one run up, its credit down. One task reads the
//! frames and hands each to the broker; a full broker is not read for.

use std::sync::{Arc, OnceLock};

use asynq_proto::v1;
use futures_util::stream::{self, Stream};
use tokio::time::timeout;
use tonic::{Status, Streaming};
use tracing::{Instrument, debug};

use super::{convert, items};
use crate::broker::{Broker, Command, Emission, EmitRun, Emitter, End, Error};
use crate::limits::HELLO_TIMEOUT;

/// Begins to read; gives what the worker is told.
pub(super) fn open(
    broker: &Broker,
    frames: Streaming<v1::EmitFrame>,
) -> impl Stream<Item = Result<v1::EmitControl, Status>> + use<> {
    let emit = Arc::new(Emit {
        emitter: Arc::new(Emitter::new()),
        run: OnceLock::new(),
    });
    tokio::spawn(read(broker.clone(), emit.clone(), frames).in_current_span());
    let state = State {
        broker: broker.clone(),
        emit,
        ended: false,
    };
    stream::unfold(state, |mut state| async { Some((state.next().await?, state)) })
}

/// What both halves know.
struct Emit {
    emitter: Arc<Emitter>,
    /// Known from the first frame on; nothing is told before.
    run: OnceLock<EmitRun>,
}

/// The sending half; dropped with the stream.
struct State {
    broker: Broker,
    emit: Arc<Emit>,
    ended: bool,
}

impl Drop for State {
    fn drop(&mut self) {
        self.emit.emitter.end(End::Gone);
    }
}

impl State {
    async fn next(&mut self) -> Option<Result<v1::EmitControl, Status>> {
        if self.ended {
            return None;
        }
        let told = tokio::select! {
            biased;
            told = self.emit.emitter.take() => told,
            end = self.broker.ended() => Err(end.into()),
        };
        match (told, self.emit.run.get()) {
            (Ok(control), Some(run)) => Some(Ok(items::render_control(*run, control))),
            (Ok(_), None) | (Err(Error::Ended(End::Done)), _) => None,
            (Err(error), _) => {
                self.ended = true;
                Some(Err(error.into()))
            }
        }
    }
}

async fn read(broker: Broker, emit: Arc<Emit>, mut frames: Streaming<v1::EmitFrame>) {
    let ended = tokio::select! {
        () = emit.emitter.closed() => return,
        ended = converse(&broker, &emit, &mut frames) => ended,
    };
    match ended {
        // The verdict ends it.
        Ok(()) => emit.emitter.closed().await,
        Err(error) => {
            debug!(%error, "an Emit stream ended early");
            emit.emitter.end(error);
        }
    }
}

/// Until the last frame.
async fn converse(broker: &Broker, emit: &Emit, frames: &mut Streaming<v1::EmitFrame>) -> Result<(), Error> {
    let first = timeout(HELLO_TIMEOUT, next(frames)).await;
    let missing = || {
        convert::invalid(
            "token",
            "is missing: the first frame names the run and its session, and soon",
        )
    };
    let mut first = first.map_err(|_| missing())??.ok_or_else(missing)?;
    let run = *emit.run.get_or_init({
        let run = items::emit_run(&mut first)?;
        move || run
    });
    let send = async |said: Emission| {
        let emitter = emit.emitter.clone();
        broker.send(Command::Emit { run, emitter, said }).await
    };
    let resume = first.resume.take().map(items::emit_resume).transpose()?;
    send(Emission::Opened(resume)).await?;
    let mut frame = Some(first);
    while let Some(this) = frame {
        if let Some(said) = items::emission(this)? {
            let last = said.is_last();
            send(said).await?;
            if last {
                return Ok(());
            }
        }
        frame = next(frames).await?;
    }
    // The worker gives up; it says so in its session.
    emit.emitter.end(End::Done);
    Ok(())
}

async fn next(frames: &mut Streaming<v1::EmitFrame>) -> Result<Option<v1::EmitFrame>, Error> {
    let next = frames.message().await;
    next.map_err(|status| Error::BadMessage(status.message().to_owned()))
}
