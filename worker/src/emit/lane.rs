//! One Emit call: frames up, credit and the last word down, by `Workers.Emit` on
//! the thread of the data connection. A stream has one after the other.

use std::error::Error;
use std::pin::Pin;
use std::task::{self, Poll};

use asynq_proto::Wire;
use asynq_proto::v1::workers_client::WorkersClient;
use asynq_proto::v1::{Credit, EmitControl, EmitFrame, EmitResume};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use super::{Reader, raise};
use crate::context::Context;
use crate::data::Data;
use crate::limits::GOODBYE;

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
    pub(super) link: Link,
}

/// The call itself. Dropped, it is reset, but not that of a run that is stopped: such a
/// call is left to its end. What the broker still says to a call that was reset is an
/// error of its own to h2, and after 1,024 of them h2 gives up the whole connection.
pub(super) struct Link {
    context: Context,
    /// `None` once it is left to itself.
    call: Option<AbortOnDropHandle<Word>>,
}

impl Link {
    pub(super) fn new(context: Context, call: AbortOnDropHandle<Word>) -> Self {
        Self {
            context,
            call: Some(call),
        }
    }
}

impl Future for Link {
    type Output = Result<Word, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match &mut self.call {
            Some(call) => Pin::new(call).poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.context.is_stopped()
            && let Some(call) = self.call.take()
        {
            drop(call.detach());
        }
    }
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
        let link = Link::new(context.clone(), data.spawn(talk));
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
    let stopped = {
        let context = context.clone();
        async move { context.stopped().await }
    };
    let outgoing = futures_util::stream::iter([hello])
        .chain(ReceiverStream::new(outgoing))
        .take_until(stopped);
    let mut replies = match client.emit(outgoing).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return over(&status),
    };
    // The broker ends it then; one that does not is not waited for.
    let given_up = async {
        context.stopped().await;
        sleep(GOODBYE).await;
    };
    tokio::select! {
        word = listen(&mut replies, answer, &granted) => word,
        () = given_up => Word::Lost("the broker leaves it open".into()),
    }
}

async fn listen(
    replies: &mut Streaming<EmitControl>,
    answer: oneshot::Sender<u64>,
    granted: &watch::Sender<Credit>,
) -> Word {
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
