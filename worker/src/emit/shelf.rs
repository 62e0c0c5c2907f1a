//! Between a blocking generator's thread and the connection's: a shelf of items.
//! The thread pulls the iterator while shelf and credit have room and sleeps
//! otherwise; the other side clears the shelf each time it looks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};

use asynq_proto::TaskError;
use asynq_proto::limits::MAX_BATCH_OPS;
use asynq_proto::v1::Credit;

use super::replay::Replay;
use crate::context::Context;
use crate::handler::panicked;
use crate::items::{BlockingItems, Items, OpenedBlocking, Piece, Pulled};
use crate::limits::MAX_ITEM_BATCH_BYTES;

struct Shelf {
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Default)]
struct State {
    items: Stack,
    credit: Credit,
    /// Items pulled so far, and their bytes.
    pulled: u64,
    pulled_bytes: u64,
    /// What an earlier run has sent is left out, all of it.
    begun: bool,
    /// How the generator ended.
    over: Option<Result<(), TaskError>>,
    /// Nobody takes items any more.
    deserted: bool,
    waker: Option<Waker>,
}

/// Items end to end.
#[derive(Default)]
struct Stack {
    lengths: Vec<(usize, Piece)>,
    data: Vec<u8>,
    /// Bytes of the tokens of checkpoints.
    token_bytes: usize,
}

impl State {
    /// By bytes, too, it pulls one item too many at most.
    fn has_room(&self) -> bool {
        self.pulled < self.credit.limit_index
            && self.pulled_bytes <= self.credit.limit_bytes
            && self.items.lengths.len() < MAX_BATCH_OPS
            && self.items.data.len() + self.items.token_bytes < MAX_ITEM_BATCH_BYTES
    }
}

impl Shelf {
    // No code of a handler runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The generator's side and the connection's.
pub(super) fn new(context: Context) -> (Producer, Shelved) {
    let start = context.start().place();
    let state = State {
        pulled: start.index,
        pulled_bytes: start.byte,
        begun: Replay::of(&context).is_none(),
        ..State::default()
    };
    let shelf = Arc::new(Shelf {
        state: Mutex::new(state),
        room: Condvar::new(),
    });
    let shelved = Shelved {
        shelf: shelf.clone(),
        taken: Stack::default(),
        next: 0,
        start: 0,
    };
    (Producer { shelf, context }, shelved)
}

/// Puts items on the shelf.
pub(super) struct Producer {
    shelf: Arc<Shelf>,
    context: Context,
}

impl Producer {
    /// Makes, runs and drops a generator on this thread. Does not panic.
    pub(super) fn run(self, open: impl FnOnce() -> OpenedBlocking) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.produce(&mut *open()?)));
        self.say(|state| state.over = Some(ended.unwrap_or_else(|panic| Err(panicked(&*panic)))));
    }

    fn produce(&self, items: &mut dyn BlockingItems) -> Result<(), TaskError> {
        if let Some(replay) = Replay::of(&self.context) {
            let wanted = || !self.context.is_stopped() && !self.shelf.lock().deserted;
            if !replay.run(items, wanted)? {
                return Ok(());
            }
            self.say(|state| state.begun = true);
        }
        let mut item = Vec::new();
        while self.wait_for_room() {
            item.clear();
            match items.next(&mut item) {
                Some(piece) => {
                    let piece = piece?;
                    self.context.start().begun()?;
                    self.put(&item, piece);
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Sleeps until there is room; `false` once nobody wants more.
    fn wait_for_room(&self) -> bool {
        let wait = self
            .shelf
            .room
            .wait_while(self.shelf.lock(), |state| !state.deserted && !state.has_room());
        !wait.unwrap_or_else(PoisonError::into_inner).deserted
    }

    fn put(&self, item: &[u8], piece: Piece) {
        if self.context.is_stopped() {
            return; // and the shelf will soon be deserted
        }
        self.say(|state| {
            state.items.data.extend_from_slice(item);
            state.items.token_bytes += piece.token.as_ref().map_or(0, bytes::Bytes::len);
            state.pulled += u64::from(piece.item.is_some());
            state.items.lengths.push((item.len(), piece));
            state.pulled_bytes += item.len() as u64;
        });
    }

    /// Changes something, and wakes who waits for it.
    fn say(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shelf.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Takes items off the shelf, all that are there at a time.
pub(super) struct Shelved {
    shelf: Arc<Shelf>,
    taken: Stack,
    /// The next of those taken, and where it starts.
    next: usize,
    start: usize,
}

impl Shelved {
    fn take_all(&mut self, cx: &task::Context<'_>) -> Poll<Option<Result<(), TaskError>>> {
        self.taken.lengths.clear();
        self.taken.data.clear();
        self.taken.token_bytes = 0;
        (self.next, self.start) = (0, 0);
        let mut state = self.shelf.lock();
        if !state.items.lengths.is_empty() {
            std::mem::swap(&mut state.items, &mut self.taken);
            self.shelf.room.notify_one();
            return Poll::Ready(None);
        }
        match state.over.take() {
            Some(over) => Poll::Ready(Some(over)),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Items for Shelved {
    fn poll_next(&mut self, cx: &mut task::Context<'_>, out: &mut Vec<u8>) -> Poll<Pulled> {
        if self.next == self.taken.lengths.len() {
            match self.take_all(cx) {
                Poll::Ready(None) => {}
                Poll::Ready(Some(over)) => return Poll::Ready(over.err().map(Err)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let (length, piece) = &mut self.taken.lengths[self.next];
        let end = self.start + *length;
        out.extend_from_slice(&self.taken.data[self.start..end]);
        self.start = end;
        self.next += 1;
        Poll::Ready(Some(Ok(std::mem::take(piece))))
    }

    fn poll_start(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), TaskError>> {
        let mut state = self.shelf.lock();
        if state.begun {
            return Poll::Ready(Ok(()));
        }
        // One that does not get so far has no items for which there must be room.
        match state.over.take() {
            Some(Err(error)) => Poll::Ready(Err(error)),
            over => {
                state.over = over; // if it ended well, it was told to stop
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn allow(&mut self, credit: Credit) {
        self.shelf.lock().credit = credit;
        self.shelf.room.notify_one();
    }
}

impl Drop for Shelved {
    fn drop(&mut self) {
        self.shelf.lock().deserted = true;
        self.shelf.room.notify_one();
    }
}
