//! The calls that have no answer yet, as the wire keeps them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use asynq_proto::limits::{INLINE_BYTES, MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_CALLS};
use asynq_proto::{Payload, reasons, v1};
use foldhash::HashMap;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Asked, CallError, Lent, Shared};
use crate::context::LeaseToken;
use crate::limits::MAX_OPEN_CALLS;

/// What a call is answered.
pub(crate) type Answered = Result<Payload, CallError>;

/// The unanswered calls of one run, whose slot is lent meanwhile.
#[derive(Debug)]
pub(crate) struct OpenCalls {
    open: BTreeMap<u64, Open>,
    _lent: Lent,
}

#[derive(Debug)]
struct Open {
    request: Box<v1::RunCall>,
    reply: oneshot::Sender<Answered>,
    /// Who reads its items waits for this.
    enqueued: Option<oneshot::Sender<Uuid>>,
    way: Way,
    /// The handler has gone on without it.
    withdrawn: bool,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Said on no connection.
    Unsaid,
    /// Said on this one or one before.
    Said,
    /// On the data connection, because it is large or its items are to be read: there
    /// the answer says that it is enqueued.
    Uploading,
    /// The broker has it; its end is to be asked for.
    Enqueued,
}

impl OpenCalls {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            open: BTreeMap::new(),
            _lent: Lent::of(shared),
        }
    }
}

/// Calls of all runs that are to be said.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Whose each call is, of runs that go on.
    runs: HashMap<u64, LeaseToken>,
    unsaid: VecDeque<u64>,
    /// Of these, the ones for the data connection.
    unsaid_apart: VecDeque<u64>,
    withdrawn: VecDeque<u64>,
    /// Results to be fetched.
    unfetched: VecDeque<u64>,
}

/// Where a run keeps its calls.
pub(crate) type Slot = Option<Box<OpenCalls>>;

/// Where all runs keep theirs.
pub(crate) trait Runs {
    fn slot(&mut self, run: LeaseToken) -> Option<&mut Slot>;
}

impl Queue {
    /// A run calls.
    pub(crate) fn ask(&mut self, shared: &Arc<Shared>, slot: &mut Slot, asked: Asked) {
        let Asked {
            token,
            request,
            reply,
            enqueued,
        } = asked;
        if reply.is_closed() {
            return; // withdrawn before it was read
        }
        // The broker says the same; but it need not hear of a million calls to say so.
        let of_run = slot.as_ref().map_or(0, |calls| calls.open.len());
        for (whose, is_full, limit) in [
            ("a run waits", of_run >= MAX_CALLS, MAX_CALLS),
            (
                "the runs of a worker wait",
                self.runs.len() >= MAX_OPEN_CALLS,
                MAX_OPEN_CALLS,
            ),
        ] {
            if is_full {
                let refused = CallError::Refused {
                    name: request.name,
                    reason: reasons::LIMIT_REACHED.into(),
                    message: format!("{whose} for at most {limit} calls at a time"),
                };
                let _ = reply.send(Err(refused)); // nobody may be waiting any more
                return;
            }
        }
        let (call, goes_apart) = (request.call, goes_apart(&request));
        let calls = slot.get_or_insert_with(|| Box::new(OpenCalls::new(shared.clone())));
        let open = Open {
            request,
            reply,
            enqueued,
            way: Way::Unsaid,
            withdrawn: false,
        };
        calls.open.insert(call, open);
        self.runs.insert(call, token);
        if goes_apart {
            self.unsaid_apart.push_back(call);
        } else {
            self.unsaid.push_back(call);
        }
    }

    /// A run is over, and its calls with it: an answer may still come, to nobody.
    pub(crate) fn over(&mut self, slot: &mut Slot) {
        for call in slot.take().iter().flat_map(|calls| calls.open.keys()) {
            self.runs.remove(call);
        }
    }

    /// Whose a call is.
    pub(crate) fn run_of(&self, call: u64) -> Option<LeaseToken> {
        self.runs.get(&call).copied()
    }

    /// The handler waits for it no longer.
    pub(crate) fn withdraw(&mut self, call: u64, slot: &mut Slot) {
        let Some(open) = slot.as_mut().and_then(|calls| calls.open.get_mut(&call)) else {
            return;
        };
        open.withdrawn = true;
        match open.way {
            Way::Unsaid => drop(self.drop_call(call, slot)),
            // Once it is there.
            Way::Uploading => {}
            Way::Said | Way::Enqueued => self.withdrawn.push_back(call),
        }
    }

    fn drop_call(&mut self, call: u64, slot: &mut Slot) -> Option<Open> {
        self.runs.remove(&call);
        let calls = slot.as_mut()?;
        let open = calls.open.remove(&call);
        if calls.open.is_empty() {
            *slot = None;
        }
        open
    }

    /// Calls without an answer.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty() || !self.withdrawn.is_empty()
    }

    /// Adds what is to be said to a message, as much as fits.
    pub(crate) fn gather(&mut self, runs: &mut impl Runs, request: &mut v1::WorkRequest) {
        let mut said = 0;
        while request.calls.len() < MAX_BATCH_OPS && said < MAX_BATCH_BYTES {
            let Some(call) = self.unsaid.pop_front() else { break };
            let slot = self.runs.get(&call).and_then(|run| runs.slot(*run));
            let Some(open) = slot.and_then(|slot| slot.as_mut()?.open.get_mut(&call)) else {
                self.runs.remove(&call);
                continue;
            };
            let told = match open.way {
                Way::Unsaid | Way::Said => v1::RunCall {
                    again: open.way == Way::Said,
                    ..(*open.request).clone()
                },
                Way::Uploading => continue,
                Way::Enqueued => v1::RunCall {
                    enqueued: true,
                    ..name_of(&open.request)
                },
            };
            if open.way == Way::Unsaid {
                open.way = Way::Said;
            }
            said += bytes(&told);
            request.calls.push(told);
        }
        while request.withdrawn.len() < MAX_BATCH_OPS {
            let Some(call) = self.withdrawn.pop_front() else { break };
            let slot = self.runs.get(&call).and_then(|run| runs.slot(*run));
            let open = slot.and_then(|slot| slot.as_mut()?.open.get(&call));
            request.withdrawn.extend(open.map(|open| name_of(&open.request)));
        }
    }

    /// The next call for the data connection.
    pub(crate) fn next_apart(&mut self, runs: &mut impl Runs) -> Option<v1::RunCall> {
        loop {
            let call = self.unsaid_apart.pop_front()?;
            let slot = self.runs.get(&call).and_then(|run| runs.slot(*run));
            if let Some(open) = slot.and_then(|slot| slot.as_mut()?.open.get_mut(&call)) {
                open.way = Way::Uploading;
                return Some((*open.request).clone());
            }
            self.runs.remove(&call);
        }
    }

    /// The broker has a call that came on the data connection.
    pub(crate) fn uploaded(&mut self, call: u64, task: Uuid, slot: &mut Slot) {
        let Some(open) = slot.as_mut().and_then(|calls| calls.open.get_mut(&call)) else {
            return;
        };
        open.way = Way::Enqueued;
        if let Some(enqueued) = open.enqueued.take() {
            let _ = enqueued.send(task); // nobody may be waiting any more
        }
        self.unsaid.push_back(call);
        if open.withdrawn {
            self.withdrawn.push_back(call);
        }
    }

    /// The next result to be fetched: which call, of which run and number.
    pub(crate) fn next_fetch(&mut self, runs: &mut impl Runs) -> Option<(u64, v1::FetchResultRequest)> {
        loop {
            let call = self.unfetched.pop_front()?;
            let slot = self.runs.get(&call).and_then(|run| runs.slot(*run));
            if let Some(open) = slot.and_then(|slot| slot.as_ref()?.open.get(&call)) {
                let request = v1::FetchResultRequest {
                    token: open.request.token.clone(),
                    n: open.request.n,
                };
                return Some((call, request));
            }
        }
    }

    /// The called task is over, or is refused.
    pub(crate) fn answered(&mut self, answer: v1::CallAnswer, slot: &mut Slot) {
        use v1::call_answer::Of;
        let call = answer.call;
        match answer.of {
            // The result is too large: it is fetched before anybody is told. Items are read.
            Some(Of::Finished(finished)) if finished.result_deferred && !is_read(call, slot) => {
                self.unfetched.push_back(call);
            }
            // The broker goes; the next one is asked again.
            Some(Of::Error(error)) if matches!(&*error.reason, reasons::SHUTTING_DOWN | reasons::STORE_FAILED) => {}
            Some(of) => self.tell(call, of, slot),
            None => {}
        }
    }

    /// A call is over: so the handler is told.
    pub(crate) fn tell(&mut self, call: u64, of: v1::call_answer::Of, slot: &mut Slot) {
        use v1::call_answer::Of;
        let Some(Open { request, reply, .. }) = self.drop_call(call, slot) else {
            return;
        };
        let answer = match of {
            Of::Finished(finished) if finished.state() == v1::TaskState::Succeeded => {
                Ok(finished.result.map_or_else(Payload::null, Payload::from))
            }
            Of::Finished(finished) => Err(CallError::ended(request.name, finished)),
            Of::Error(error) => Err(CallError::refused(request.name, error)),
        };
        let _ = reply.send(answer); // nobody may be waiting any more
    }

    /// A new connection: all that is not answered is to be said again.
    pub(crate) fn reconnected<'a>(&mut self, slots: impl Iterator<Item = (LeaseToken, &'a mut Slot)>) {
        *self = Self::default();
        for (token, slot) in slots {
            for (&call, open) in slot.iter_mut().flat_map(|calls| &mut calls.open) {
                self.runs.insert(call, token);
                if open.withdrawn && open.way == Way::Said {
                    // Whether it arrived or not: it is not wanted any more.
                    open.way = Way::Enqueued;
                }
                if open.withdrawn {
                    self.withdrawn.push_back(call);
                }
                match open.way {
                    Way::Unsaid if goes_apart(&open.request) => self.unsaid_apart.push_back(call),
                    Way::Uploading => self.unsaid_apart.push_back(call),
                    Way::Unsaid | Way::Said | Way::Enqueued => self.unsaid.push_back(call),
                }
            }
        }
    }
}

/// Whether somebody reads its items.
fn is_read(call: u64, slot: &Slot) -> bool {
    let open = slot.as_ref().and_then(|calls| calls.open.get(&call));
    open.is_some_and(|open| open.request.stream)
}

/// The call without what it asks for.
fn name_of(request: &v1::RunCall) -> v1::RunCall {
    v1::RunCall {
        call: request.call,
        token: request.token.clone(),
        n: request.n,
        ..v1::RunCall::default()
    }
}

/// Bytes a task takes on the wire, roughly.
pub(crate) fn weight(request: &v1::RunCall) -> usize {
    const REST: usize = 128;
    let names = request.options.as_ref().map_or(0, |o| o.queue.len() + o.series.len());
    REST + request.name.len() + names + bytes(request)
}

/// Whether it goes on the data connection.
fn goes_apart(request: &v1::RunCall) -> bool {
    request.stream || bytes(request) > INLINE_BYTES
}

fn bytes(request: &v1::RunCall) -> usize {
    request.payload.as_ref().map_or(0, |payload| payload.data.len())
}
