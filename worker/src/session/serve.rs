//! A session on a live connection: replies in, outcomes and heartbeats out.

use asynq_proto::v1::{self, Assignment, WorkReply, WorkRequest};
use asynq_proto::{Payload, Place, TaskError};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::connect::{BrokerClock, Link, Pace};
use super::transfer::{self, Transfer};
use super::{Ended, Session};
use crate::calls::OfRun;
use crate::context::{Context, Control, LeaseToken, Run, StopCause};
use crate::emit::{self, Reader};
use crate::extend::{Extensions, RunTime};
use crate::lease::since_boot;
use crate::ledger::Outcome;
use crate::limits::{GOODBYE, MAX_TRANSFERS};
use crate::runtime::Start;

/// How a connection ended.
pub(super) enum Served {
    /// And the session with it.
    Ended(Ended),
    /// And the session goes on with the next.
    Lost(String),
}

impl Session {
    pub(super) async fn serve(&mut self, mut link: Link) -> Served {
        let first = std::mem::take(&mut link.first);
        self.on_reply(first, link.broker);
        let mut goodbye_at = None;
        loop {
            self.start_transfers(&mut link);
            self.watch_idleness();
            if goodbye_at.is_none() && self.is_done(&link.pace) {
                link.requests = None; // half-closes the stream: goodbye
                goodbye_at = Some(Instant::now() + GOODBYE);
            }
            let speak = self.has_something_to_say(&link.pace);
            tokio::select! {
                reply = link.replies.message() => match reply {
                    Ok(Some(reply)) => self.on_reply(reply, link.broker),
                    _ if goodbye_at.is_some() => return Served::Ended(Ended),
                    Ok(None) => return Served::Lost("the broker closed the session".into()),
                    Err(status) => return Served::Lost(format!("{:?}: {}", status.code(), status.message())),
                },
                Some(permit) = permit(link.requests.as_ref()), if speak && link.requests.is_some() => {
                    let request = self.gather(&mut link.pace);
                    if request != WorkRequest::default() {
                        permit.send(request);
                    }
                }
                Some(transfer) = link.transfers.next() => self.on_transfer(transfer, link.broker),
                _ = link.beats.tick() => link.pace.beat_due = true,
                () = sleep_until(goodbye_at.unwrap_or_else(Instant::now)), if goodbye_at.is_some() => {
                    return Served::Ended(Ended);
                }
                kept = self.upkeep() => if let Err(ended) = kept {
                    return Served::Ended(ended);
                },
            }
            if self.lease.is_none() {
                return Served::Lost("no heartbeat was acknowledged in time".into());
            }
        }
    }

    fn watch_idleness(&mut self) {
        let idle = self.config.exit_when_idle && self.drain.is_none() && self.ledger.is_empty();
        self.idle_since = idle.then(|| self.idle_since.unwrap_or_else(Instant::now));
    }

    /// Drained, and the broker has read that we take nothing new: what it had
    /// assigned before came back to us and is settled as well.
    fn is_done(&self, pace: &Pace) -> bool {
        let acked = self.lease.as_ref().map_or(0, crate::lease::Lease::last_acked);
        self.ledger.is_empty() && pace.drain_told.is_some_and(|beat| acked >= beat)
    }

    fn has_something_to_say(&self, pace: &Pace) -> bool {
        let leaks = self.ledger.leaked() != pace.leaked_told;
        leaks || pace.beat_due || self.ledger.has_unsent() || (self.drain.is_some() && pace.drain_told.is_none())
    }

    /// Everything there is to say now, as far as it fits one message.
    fn gather(&mut self, pace: &mut Pace) -> WorkRequest {
        let mut request = WorkRequest::default();
        let tell_drain = self.drain.is_some() && pace.drain_told.is_none();
        if let Some(lease) = &mut self.lease
            && (std::mem::take(&mut pace.beat_due) || tell_drain)
        {
            request.heartbeat = lease.beat(since_boot());
        }
        if tell_drain {
            request.draining = true;
            pace.drain_told = Some(request.heartbeat);
        }
        self.ledger.gather(&mut request);
        let leaked = self.ledger.leaked();
        request.leaked = (leaked != pace.leaked_told).then_some(leaked);
        pace.leaked_told = leaked;
        request
    }

    fn on_reply(&mut self, reply: WorkReply, broker: BrokerClock) {
        if let Some(lease) = &mut self.lease {
            lease.acknowledged(reply.heartbeat_ack);
        }
        for ack in reply.acks {
            if let Some(token) = read_token(ack.token.as_ref()) {
                self.ledger.acknowledged(token, ack.stale);
            }
        }
        // After the refusals, which it leaves out.
        self.ledger.all_acknowledged(reply.acked);
        for answer in reply.answers {
            self.ledger.answered(answer);
        }
        // Before the stops: one message may carry a run and its stop.
        for assignment in reply.assignments {
            self.assign(assignment, broker);
        }
        for stop in reply.stops {
            let cause = match stop.cause() {
                v1::StopCause::Stale => StopCause::LeaseLost,
                v1::StopCause::Timeout => StopCause::Timeout,
                v1::StopCause::Deadline => StopCause::Deadline,
                v1::StopCause::Cancelled | v1::StopCause::Unspecified => StopCause::Cancelled,
            };
            if let Some(token) = read_token(stop.token.as_ref()) {
                self.ledger.stop(token, cause);
            }
        }
    }

    fn assign(&mut self, mut assignment: Assignment, broker: BrokerClock) {
        let Some(token) = read_token(assignment.token.as_ref()) else {
            return;
        };
        if self.ledger.contains(token) {
            return; // said twice
        }
        if self.drain.is_some() {
            self.ledger.answer(token, Outcome::Released);
        } else if !self.has_slot() {
            tracing::warn!(?token, "the broker assigned more tasks than there are slots");
            self.ledger.answer(token, Outcome::Released);
        } else if assignment.fetch_payload {
            self.ledger.fetching(token, assignment);
        } else {
            let payload = assignment.payload.take().map_or_else(Payload::null, Payload::from);
            let control = self.ledger.going(token);
            self.start(token, assignment, payload, control, broker);
        }
    }

    /// Runs that wait for their readers, or only for the broker's word, do not count.
    fn has_slot(&self) -> bool {
        let slots = self.config.slots as usize;
        let taken = self.ledger.unfinished() + self.ledger.leaked() as usize;
        taken < slots || taken < slots + self.ledger.slotless()
    }

    fn start(
        &mut self,
        token: LeaseToken,
        assignment: Assignment,
        payload: Payload,
        control: Control,
        broker: BrokerClock,
    ) {
        let time = time(&assignment, broker, self.extensions.clone());
        let Assignment {
            name,
            queue,
            series,
            stream,
            start,
            checkpoint,
            at_most_once,
            ..
        } = assignment;
        let reader = stream.map(|credit| Reader {
            session: self.named.subscribe(),
            credit,
        });
        let start = start.filter(|_| reader.is_some());
        let start = emit::Start::new(
            start.map_or(Place::START, Place::from),
            checkpoint.filter(|_| reader.is_some()),
        );
        let is_bound = reader.is_some() || at_most_once;
        let calls = OfRun::new(self.shared.clone(), reader.is_some());
        let context = Context::new(Run {
            token,
            name,
            queue,
            series,
            time,
            at_most_once,
            control,
            calls,
            start,
        });
        let start = Start {
            context,
            payload,
            reader,
        };
        // The runtime may be stalled by a handler; this thread must not wait for it.
        if self.starts.try_send(start).is_err() {
            self.ledger.over(token, Outcome::Released);
        } else if is_bound {
            self.ledger.bind(token);
        }
    }

    fn start_transfers(&mut self, link: &mut Link) {
        while link.transfers.len() < MAX_TRANSFERS {
            let transfer = if let Some(token) = self.ledger.next_fetch() {
                transfer::fetch(self.config.data.clone(), token).boxed()
            } else if let Some((token, completion)) = self.ledger.next_upload() {
                transfer::deliver(self.config.data.clone(), token, completion).boxed()
            } else if let Some(call) = self.ledger.next_call_apart() {
                transfer::call(self.config.data.clone(), call).boxed()
            } else if let Some((call, request)) = self.ledger.next_result() {
                transfer::fetch_result(self.config.data.clone(), call, request).boxed()
            } else {
                break;
            };
            link.transfers.push(transfer);
        }
    }

    fn on_transfer(&mut self, transfer: Transfer, broker: BrokerClock) {
        match transfer {
            Transfer::Fetched(token, payload) => {
                if let Some((assignment, control)) = self.ledger.fetched(token) {
                    self.start(token, assignment, payload, control, broker);
                }
            }
            // A stale token's failure is refused like any other stale word.
            Transfer::NoArguments(token, status) => {
                let error = TaskError::retryable(format!("failed to fetch the arguments: {}", status.message()));
                self.ledger.over(token, Outcome::Failed(error));
            }
            Transfer::Called(call, task) => self.ledger.call_uploaded(call, task),
            Transfer::Answered(call, of) => self.ledger.answered_apart(call, of),
            Transfer::Delivered(token, ack) => self.ledger.acknowledged(token, ack.stale),
            Transfer::Refused(token, status) => {
                let error = TaskError::terminal(format!("the broker refused the result: {}", status.message()));
                self.ledger.refused(token, error);
            }
        }
    }
}

async fn permit(requests: Option<&mpsc::Sender<WorkRequest>>) -> Option<mpsc::Permit<'_, WorkRequest>> {
    requests?.reserve().await.ok()
}

fn read_token(wire: Option<&v1::LeaseToken>) -> Option<LeaseToken> {
    let token = wire.and_then(LeaseToken::from_wire);
    if token.is_none() {
        tracing::warn!("the broker named a run without a proper token; ignored");
    }
    token
}

/// When timeout or deadline will end the run.
fn time(assignment: &Assignment, broker: BrokerClock, extensions: Extensions) -> RunTime {
    let after = |ms| Instant::now().checked_add(std::time::Duration::from_millis(ms));
    let timeout = Some(assignment.timeout_ms).filter(|ms| *ms > 0).and_then(after);
    let deadline = Some(assignment.deadline_ms)
        .filter(|ms| *ms > 0)
        .and_then(|ms| broker.instant(ms));
    RunTime::new(timeout, deadline, extensions)
}
