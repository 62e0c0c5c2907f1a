//! The way of one stream to the broker: frames up, credit and the last word
//! down, by `Workers.Emit` on the thread of the data connection.

use asynq_proto::Wire;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::v1::{Credit, EmitControl, EmitFrame};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{Reader, raise};
use crate::context::Context;
use crate::data::Data;

/// What the stream ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The broker has taken its end, or wants no more of the run.
    Taken,
    /// It broke before.
    Lost(String),
}

/// One stream's own end of the way.
pub(super) struct Lane {
    /// Room for one: while a frame waits to be sent, the next batch gathers.
    pub(super) frames: mpsc::Sender<EmitFrame>,
    pub(super) credit: watch::Receiver<Credit>,
    /// Dropping it resets the stream.
    pub(super) link: AbortOnDropHandle<Word>,
}

impl Lane {
    pub(super) fn open(data: &Data, context: &Context, reader: Reader) -> Self {
        let (frames, outgoing) = mpsc::channel(1);
        let (granted, credit) = watch::channel(reader.credit);
        let hello = EmitFrame {
            token: Some(context.token().to_wire()),
            session: reader.session,
            frame: None,
        };
        let link = data.spawn(talk(data.client(), context.clone(), hello, outgoing, granted));
        Self { frames, credit, link }
    }
}

async fn talk(
    mut client: WorkersClient<Wire>,
    context: Context,
    hello: EmitFrame,
    outgoing: mpsc::Receiver<EmitFrame>,
    granted: watch::Sender<Credit>,
) -> Word {
    // Of a stopped run not even what has been gathered goes out.
    let stopped = async move { context.stopped().await };
    let outgoing = futures_util::stream::iter([hello])
        .chain(ReceiverStream::new(outgoing))
        .take_until(stopped);
    let lost = |status: Status| Word::Lost(format!("{:?}: {}", status.code(), status.message()));
    let mut replies = match client.emit(outgoing).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return lost(status),
    };
    loop {
        match replies.message().await {
            Ok(Some(EmitControl { ack: Some(_), .. })) => return Word::Taken,
            Ok(Some(EmitControl { credit, .. })) => {
                granted.send_if_modified(|now| credit.is_some_and(|more| raise(now, more)));
            }
            Ok(None) => return Word::Lost("the broker closed it".into()),
            Err(status) => return lost(status),
        }
    }
}
