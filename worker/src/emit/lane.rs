//! One Emit call: frames up, credit and the last word down, by `Workers.Emit` on
//! the thread of the data connection. A stream has one after the other.

use std::error::Error;

use asynq_proto::Wire;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::v1::{Credit, EmitControl, EmitFrame, EmitResume};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use super::{Reader, raise};
use crate::context::Context;
use crate::data::Data;

/// What an Emit ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The broker has taken the end of the stream, or wants no more of the run.
    Taken,
    /// It broke before; another may do better.
    Lost(String),
    /// Another would do no better.
    Refused(String),
}

/// A stream's own end of the way.
pub(super) struct Lane {
    /// Room for one: while a frame waits to be sent, the next batch gathers.
    pub(super) frames: mpsc::Sender<EmitFrame>,
    /// From which item on the broker wants them, if it was asked.
    pub(super) from: oneshot::Receiver<u64>,
    /// Dropping it resets the call.
    pub(super) link: AbortOnDropHandle<Word>,
}

/// Opens a lane, and says where the run stands.
pub(super) type Open = Box<dyn FnMut(EmitResume) -> Lane + Send>;

/// The way to the broker. All lanes grant the same credit.
pub(super) fn to_broker(data: &Data, context: Context, reader: Reader, granted: watch::Sender<Credit>) -> Open {
    let data = data.line();
    Box::new(move |resume| {
        let (frames, outgoing) = mpsc::channel(1);
        let (answer, from) = oneshot::channel();
        let hello = EmitFrame {
            token: Some(context.token().to_wire()),
            session: reader.session.borrow().clone(),
            resume: Some(resume),
            ..EmitFrame::default()
        };
        let talk = talk(
            data.client(),
            context.clone(),
            (hello, outgoing),
            (answer, granted.clone()),
        );
        let link = data.spawn(talk);
        Lane { frames, from, link }
    })
}

async fn talk(
    mut client: WorkersClient<Wire>,
    context: Context,
    (hello, outgoing): (EmitFrame, mpsc::Receiver<EmitFrame>),
    (answer, granted): (oneshot::Sender<u64>, watch::Sender<Credit>),
) -> Word {
    // Of a stopped run not even what has been gathered goes out.
    let stopped = async move { context.stopped().await };
    let outgoing = futures_util::stream::iter([hello])
        .chain(ReceiverStream::new(outgoing))
        .take_until(stopped);
    let mut replies = match client.emit(outgoing).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return over(&status),
    };
    let mut answer = Some(answer);
    loop {
        match replies.message().await {
            Ok(Some(EmitControl { ack: Some(_), .. })) => return Word::Taken,
            Ok(Some(EmitControl { credit, from, .. })) => {
                granted.send_if_modified(|now| credit.is_some_and(|more| raise(now, more)));
                if let Some((from, answer)) = from.zip(answer.take_if(|_| from.is_some())) {
                    let _ = answer.send(from); // the first lane did not ask
                }
            }
            Ok(None) => return Word::Lost("the broker closed it".into()),
            Err(status) => return over(&status),
        }
    }
}

/// The broker may ask to come again, or it was not the broker who said this but the
/// connection: only then a status has a source.
fn over(status: &Status) -> Word {
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() == Code::Unavailable || status.source().is_some() {
        true => Word::Lost(why),
        false => Word::Refused(why),
    }
}
