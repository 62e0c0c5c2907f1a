//! What the caller of a stream and its pump both know: how far the caller is, and
//! which opening of the stream is the present one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use asynq_proto::{Place, v1, v1::Credit};

use super::{options::Options, window::WINDOW_BYTES};
use crate::{
    TaskId,
    limits::MAX_WINDOW,
    session::{ConsumerId, Session},
};

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) session: Session,
    pub(super) id: TaskId,
    consumer: ConsumerId,
    options: Options,
    /// What a reader before this one may have given room for, in items and bytes: that
    /// comes, however little room this one gives.
    inherited: (u64, u64),
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    /// How far the caller lets the stream go: totals.
    credit: Credit,
    /// What the caller was done with when it gave that.
    done: Place,
    open_seq: u64,
    open: bool,
    /// The caller has gone.
    closed: bool,
}

/// Another opening of a stream that is there.
pub(super) struct Opening {
    pub(super) request: v1::IterateRequest,
    pub(super) open_seq: u64,
    /// Where it is to begin.
    pub(super) from: Place,
    /// What it has room for: totals.
    pub(super) credit: Credit,
}

impl Reader {
    /// That of a stream which is open for the `open_seq`th time, and which may have
    /// `existed` before.
    pub(super) const fn new(
        session: Session,
        id: TaskId,
        consumer: ConsumerId,
        options: Options,
        (open_seq, existed): (u64, bool),
        (credit, done): (Credit, Place),
    ) -> Self {
        let inherited = match existed {
            true => (
                done.index.saturating_add(MAX_WINDOW as u64),
                done.byte.saturating_add(WINDOW_BYTES),
            ),
            false => (0, 0),
        };
        let told = Told {
            credit,
            done,
            open_seq,
            open: true,
            closed: false,
        };
        Self {
            session,
            id,
            consumer,
            options,
            inherited,
            told: Mutex::new(told),
        }
    }

    pub(super) const fn consumer(&self) -> ConsumerId {
        self.consumer
    }

    /// The caller is done with all before a place, and has room.
    pub(super) fn tell(&self, credit: Credit, done: Place) {
        let mut told = self.told();
        (told.credit, told.done) = (credit, done);
        // Whoever opens it again tells it.
        if told.open {
            self.session.flow(self.id, self.consumer, told.open_seq, credit);
        }
    }

    /// Whether there is room for all before a place.
    pub(super) fn allows(&self, place: Place) -> bool {
        let (items, bytes) = self.inherited;
        let Credit {
            limit_index,
            limit_bytes,
            ..
        } = self.told().credit;
        place.index <= limit_index.max(items) && place.byte <= limit_bytes.max(bytes)
    }

    /// The stream broke.
    pub(super) fn broke(&self) {
        self.told().open = false;
        self.session.no_more_flow(self.consumer);
    }

    /// What to ask for now.
    pub(super) fn open_again(&self) -> Opening {
        let mut told = self.told();
        told.open_seq += 1;
        let Told {
            credit, done, open_seq, ..
        } = *told;
        let task = v1::EnqueueRequest {
            id: self.id.to_wire(),
            ..v1::EnqueueRequest::default()
        };
        let room = Credit {
            // What is done with is what it was when this room was given.
            limit_bytes: credit.limit_bytes - done.byte,
            ..credit
        };
        Opening {
            request: v1::IterateRequest {
                from_index: done.index,
                from: Some(done.into()),
                attach: true,
                ..self.options.request(task, self.consumer, open_seq, room)
            },
            open_seq,
            from: done,
            credit,
        }
    }

    /// The broker has taken an opening.
    pub(super) fn opened(&self, opening: &Opening) {
        let mut told = self.told();
        told.open = !told.closed;
        // What the caller gave meanwhile was told to nobody.
        if told.open && told.credit != opening.credit {
            self.session.flow(self.id, self.consumer, opening.open_seq, told.credit);
        }
    }

    /// The caller goes.
    pub(super) fn close(&self) {
        let mut told = self.told();
        (told.open, told.closed) = (false, true);
        self.session.no_more_flow(self.consumer);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
