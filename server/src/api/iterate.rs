//! `Tasks.Iterate`: the items of one task, as they come. Dropping the stream of
//! replies stops the task.

use asynq_proto::v1;
use futures_util::stream::{self, Stream};
use tonic::Status;

use super::items;
use crate::broker::{ConsumerGuard, End, Error, Frame};

/// All frames, beginning with `opened`.
pub(super) fn frames(
    guard: ConsumerGuard,
    opened: v1::StreamFrame,
) -> impl Stream<Item = Result<v1::StreamFrame, Status>> + use<> {
    let state = State {
        guard,
        opened: Some(opened),
        ready: Vec::new().into_iter(),
        ended: false,
    };
    stream::unfold(state, |mut state| async { Some((state.next().await?, state)) })
}

struct State {
    guard: ConsumerGuard,
    opened: Option<v1::StreamFrame>,
    /// Taken from the outbox, not written yet.
    ready: std::vec::IntoIter<Frame>,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Result<v1::StreamFrame, Status>> {
        if let Some(opened) = self.opened.take() {
            return Some(Ok(opened));
        }
        // That a frame is asked for says that all before it were written.
        self.guard.tell().await;
        loop {
            if let Some(frame) = self.ready.next() {
                if let Frame::Items(batch) = &frame {
                    self.guard.wrote(batch);
                }
                return Some(Ok(items::render_frame(frame)));
            }
            if self.ended {
                return None;
            }
            let mut batch = Vec::new();
            match self.guard.take(&mut batch).await {
                None => self.ready = batch.into_iter(),
                Some(Error::Ended(End::Done)) => self.ended = true,
                Some(error) => {
                    self.ended = true;
                    return Some(Err(error.into()));
                }
            }
        }
    }
}
