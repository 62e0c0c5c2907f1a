//! What has been asked and not been answered: the memory that survives a lost stream.
//!
//! Plain data without I/O. The driver tells it what happens and sends what it
//! says; the tests below do the same.

use std::collections::VecDeque;

use asynq_proto::{
    limits::{MAX_BATCH_BYTES, MAX_BATCH_OPS},
    v1::{self, answer::Of, operation::Op as WireOp},
};
use foldhash::HashMap;
use tokio::{sync::oneshot, time::Instant};
use tonic::Code;

use super::op::Op;
use crate::{Error, PATIENCE, TaskId, data::no_broker, error::retry_after, limits::RESEND_PAUSE};

/// An operation on its way from a caller to the driver.
#[derive(Debug)]
pub(super) struct Request {
    /// Unique for the life of the client.
    pub(super) call: u64,
    pub(super) op: Op,
    /// When it was asked.
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Of, Error>>,
}

/// The unanswered operations.
pub(super) struct Pending {
    entries: HashMap<u64, Entry>,
    /// To be sent on this stream, in this order. May name entries that are gone.
    outgoing: VecDeque<u64>,
    /// Withdrawn; to be told before anything takes their room.
    forgets: Vec<u64>,
    /// The broker said "not now"; to be sent again then, soonest first.
    later: VecDeque<(Instant, u64)>,
    /// Sent on this stream and not answered.
    unanswered: usize,
    /// The most the broker lets us have unanswered.
    max_unanswered: usize,
    connected: bool,
    /// No entry has been without a broker for longer than since then.
    darkest: Option<Instant>,
    /// What the last attempt to connect failed with.
    cause: String,
    broker: String,
}

struct Entry {
    op: Op,
    /// `None`: nobody waits any more, but the answer still takes up room.
    reply: Option<oneshot::Sender<Result<Of, Error>>>,
    sent: Sent,
    /// Since when there has been no broker that would answer it.
    dark_since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Never,
    /// On a stream that was lost, or answered with "not now".
    Before,
    /// On this stream.
    Now,
}

impl Pending {
    pub(super) fn new(broker: String) -> Self {
        Self {
            entries: HashMap::default(),
            outgoing: VecDeque::new(),
            forgets: Vec::new(),
            later: VecDeque::new(),
            unanswered: 0,
            max_unanswered: 0,
            connected: false,
            darkest: None,
            cause: "the connection was lost".to_owned(),
            broker,
        }
    }

    /// How many more operations there is room for.
    pub(super) fn free(&self) -> usize {
        self.max_unanswered
            .saturating_sub(self.entries.len().max(self.outgoing.len()))
    }

    pub(super) fn insert(&mut self, request: Request) {
        let Request { call, op, since, reply } = request;
        if reply.is_closed() {
            return;
        }
        let dark_since = if self.connected { None } else { self.darken(since) };
        self.entries.insert(
            call,
            Entry {
                op,
                reply: Some(reply),
                sent: Sent::Never,
                dark_since,
            },
        );
        self.outgoing.push_back(call);
    }

    /// Nobody waits for `call` any more.
    pub(super) fn forget(&mut self, call: u64) {
        let Some(entry) = self.entries.get_mut(&call) else {
            return;
        };
        if entry.sent != Sent::Now {
            self.entries.remove(&call);
        } else if entry.op.waits() {
            self.entries.remove(&call);
            self.unanswered -= 1;
            self.forgets.push(call);
        } else {
            entry.reply = None;
        }
    }

    /// A stream is open: everything unanswered goes again.
    pub(super) fn connected(&mut self, max_outstanding: u32) {
        // A broker that allows nothing would stop us for ever; it will say so itself.
        self.max_unanswered = usize::try_from(max_outstanding).unwrap_or(usize::MAX).max(1);
        self.connected = true;
        for entry in self.entries.values_mut() {
            // A wait may go unanswered for long; what should be answered soon
            // stays on the clock until it is, lest a broker that keeps
            // crashing keeps it for ever.
            if matches!(entry.op, Op::Wait(_)) {
                entry.dark_since = None;
            }
        }
        // Oldest first.
        let mut calls: Vec<_> = self.entries.keys().copied().collect();
        calls.sort_unstable();
        self.outgoing = calls.into();
    }

    /// The stream is lost.
    pub(super) fn disconnected(&mut self, now: Instant) {
        self.connected = false;
        self.unanswered = 0;
        self.forgets.clear();
        self.later.clear();
        self.outgoing.clear();
        self.entries.retain(|_, entry| entry.reply.is_some());
        for entry in self.entries.values_mut() {
            if entry.sent == Sent::Now {
                entry.sent = Sent::Before;
            }
            entry.dark_since.get_or_insert(now);
        }
        if !self.entries.is_empty() {
            self.darken(now);
        }
        "the connection was lost".clone_into(&mut self.cause);
    }

    /// Another attempt to connect has failed.
    pub(super) fn not_connected(&mut self, cause: String) {
        self.cause = cause;
    }

    /// Whether [`Pending::fill`] may have something.
    pub(super) fn has_work(&self) -> bool {
        !self.forgets.is_empty() || (!self.outgoing.is_empty() && self.unanswered < self.max_unanswered)
    }

    /// Adds to `batch` the operations of the next message, if there are any after all.
    pub(super) fn fill(&mut self, batch: &mut Vec<v1::Operation>) {
        let room = MAX_BATCH_OPS.saturating_sub(batch.len());
        let forgets = self.forgets.drain(..self.forgets.len().min(room));
        batch.extend(forgets.map(|call| v1::Operation {
            call,
            op: Some(WireOp::Forget(v1::Forget { call })),
        }));
        let mut bytes = 0;
        while batch.len() < MAX_BATCH_OPS && bytes < MAX_BATCH_BYTES && self.unanswered < self.max_unanswered {
            let Some(call) = self.outgoing.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&call).filter(|entry| entry.sent != Sent::Now) else {
                continue;
            };
            bytes += entry.op.weight();
            batch.push(v1::Operation {
                call,
                op: Some(entry.op.to_wire(entry.sent == Sent::Never)),
            });
            entry.sent = Sent::Now;
            self.unanswered += 1;
        }
    }

    pub(super) fn answered(&mut self, answers: Vec<v1::Answer>, now: Instant) {
        for v1::Answer { call, of } in answers {
            // Answers to what was forgotten cross our forgets; they mean nothing.
            let Some(entry) = self.entries.get_mut(&call).filter(|entry| entry.sent == Sent::Now) else {
                continue;
            };
            match of {
                Some(Of::Enqueued(enqueued)) if entry.op.waits() => {
                    // Should the stream be lost, only the wait is left to send.
                    if matches!(entry.op, Op::Enqueue(_))
                        && let Ok(id) = TaskId::from_wire(&enqueued.id)
                    {
                        entry.op = Op::Wait(id);
                        entry.dark_since = None;
                    }
                }
                Some(Of::Error(error)) if error.code == Code::Unavailable as i32 && entry.reply.is_some() => {
                    entry.sent = Sent::Before;
                    entry.dark_since.get_or_insert(now);
                    self.unanswered -= 1;
                    let pause = retry_after(&error).unwrap_or(RESEND_PAUSE).min(PATIENCE);
                    let at = self.later.partition_point(|(time, _)| *time <= now + pause);
                    self.later.insert(at, (now + pause, call));
                    self.cause = error.message;
                    self.darken(now);
                }
                Some(Of::Error(error)) => self.resolve(call, Err(error.into())),
                Some(of) => self.resolve(call, Ok(of)),
                None => self.resolve(call, Err(Error::unexpected("an answer of an unknown sort"))),
            }
        }
    }

    /// When [`Pending::tick`] is due.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let expiry = self.darkest.map(|since| since + PATIENCE);
        let resend = self.later.front().map(|(time, _)| *time);
        expiry.into_iter().chain(resend).min()
    }

    /// Sends again what was put off, and gives up what has been without a broker for too long.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((_, call)) = self.later.pop_front_if(|(time, _)| *time <= now) {
            self.outgoing.push_back(call);
        }
        if self.darkest.is_none_or(|since| since + PATIENCE > now) {
            return;
        }
        let expired: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.dark_since.is_some_and(|since| since + PATIENCE <= now))
            .map(|(call, entry)| (*call, entry.gave_up(&self.broker, &self.cause)))
            .collect();
        for (call, error) in expired {
            self.resolve(call, Err(error));
        }
        self.darkest = self.entries.values().filter_map(|entry| entry.dark_since).min();
    }

    fn resolve(&mut self, call: u64, answer: Result<Of, Error>) {
        let Some(entry) = self.entries.remove(&call) else {
            return;
        };
        if entry.sent == Sent::Now {
            self.unanswered -= 1;
        }
        if let Some(reply) = entry.reply {
            // Whoever asked may have gone this moment.
            let _gone = reply.send(answer);
        }
    }

    /// Something has been without a broker since then.
    fn darken(&mut self, since: Instant) -> Option<Instant> {
        let darkest = self.darkest.get_or_insert(since);
        *darkest = since.min(*darkest);
        Some(since)
    }
}

impl Entry {
    fn gave_up(&self, broker: &str, cause: &str) -> Error {
        let (id, writes) = match &self.op {
            Op::Enqueue(request) => (TaskId::from_wire(&request.id).ok(), true),
            Op::Cancel(id) | Op::Stop(id, _) => (Some(*id), true),
            Op::Wait(id) | Op::Show(id) | Op::Explain(id) | Op::History(id) => (Some(*id), false),
        };
        let indefinite = writes && self.sent != Sent::Never;
        Error::NoBroker {
            message: no_broker(broker, cause),
            id,
            indefinite,
        }
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
