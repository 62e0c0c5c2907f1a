//! A task that has not ended, as the core holds it: small, because there are
//! millions. What most tasks do not have is boxed away in [`Extra`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alone::Aside;
use crate::history::Notes;
use crate::ids::{Grant, LeaseToken, Niceness, Seq, SessionId, TaskId};
use crate::keys::Key;
use crate::limits;
use crate::names::{NameId, Names};
use crate::sched::{TaskKey, Waiting};
use crate::streams::Stream;
use crate::task::{CalledBy, Counters, Failure, Options, Placement, Run, State, StateName, StopIntent, TaskRecord};
use crate::time::Timestamp;

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) seq: Seq,
    pub(crate) enqueued_at: Timestamp,
    pub(crate) digest: u64,
    pub(crate) grant: Grant,
    pub(crate) state: Live,
    pub(crate) name: NameId,
    pub(crate) queue: NameId,
    pub(crate) series: NameId,
    pub(crate) payload_bytes: u32,
    pub(crate) niceness: Niceness,
    pub(crate) placement: Placement,
    pub(crate) extra: Option<Box<Extra>>,
}

/// Where a live task stands.
#[derive(Debug)]
pub(crate) enum Live {
    Scheduled(Timestamp),
    Ready,
    /// Ready after a restart, held back because a worker may still run it.
    Recovering,
    /// A stream that nobody reads: it begins once somebody does.
    Unread,
    /// Ready, and a worker is being emptied for it.
    Aside(Box<Aside>),
    Held(Box<Held>),
}

/// A run.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: SessionId,
    pub(crate) started_at: Timestamp,
    /// Longest time of this attempt, from the task or its worker.
    pub(crate) timeout: Option<Duration>,
    /// Its handler has had that moved.
    pub(crate) extended: bool,
    /// Failures allowed, from the task or its worker.
    pub(crate) max_attempts: u32,
    /// Where its session keeps it; set as it enters its state.
    pub(crate) place: u32,
    /// The store knows of it.
    pub(crate) claimed: bool,
    /// Nothing else runs in its session.
    pub(crate) alone: bool,
    /// Its slot is lent while it waits for credit, or for what it has called.
    pub(crate) lent: bool,
    /// It goes on, but for nobody any more.
    pub(crate) abandoned: bool,
    pub(crate) stop: Option<StopIntent>,
}

/// What most tasks do not have.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) options: Options,
    pub(crate) start_at: Option<Timestamp>,
    pub(crate) content_type: Box<str>,
    pub(crate) counters: Counters,
    pub(crate) failure: Option<Box<Failure>>,
    pub(crate) notes: Option<Box<Notes>>,
    pub(crate) replaced_by: Option<Box<TaskId>>,
    pub(crate) stream: Option<Box<Stream>>,
    /// Set if a run has called it.
    pub(crate) called: Option<Box<Called>>,
    /// What its run has called and waits for.
    pub(crate) calls: BTreeMap<u32, TaskId>,
}

/// A task that a run waits for.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) by: CalledBy,
    /// Its route: workers on which many runs wait take such tasks only.
    pub(crate) route: NameId,
}

impl Task {
    pub(crate) fn state_name(&self) -> StateName {
        match &self.state {
            Live::Scheduled(_) => StateName::Scheduled,
            Live::Ready | Live::Recovering | Live::Unread | Live::Aside(_) => StateName::Ready,
            Live::Held(held) if held.stop.is_some() => StateName::Stopping,
            Live::Held(_) => StateName::Running,
        }
    }

    pub(crate) fn token(&self) -> LeaseToken {
        LeaseToken {
            task: self.id,
            grant: self.grant,
        }
    }

    pub(crate) fn held(&self) -> Option<&Held> {
        match &self.state {
            Live::Held(held) => Some(held),
            Live::Scheduled(_) | Live::Ready | Live::Recovering | Live::Unread | Live::Aside(_) => None,
        }
    }

    pub(crate) fn held_mut(&mut self) -> Option<&mut Held> {
        match &mut self.state {
            Live::Held(held) => Some(held),
            Live::Scheduled(_) | Live::Ready | Live::Recovering | Live::Unread | Live::Aside(_) => None,
        }
    }

    /// The run is to be stopped, and the store is told.
    pub(crate) fn stop_with(&mut self, intent: Option<StopIntent>) {
        if let Some(held) = self.held_mut() {
            held.stop = intent;
            held.claimed = true;
        }
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.extra.as_ref()?.stream.as_deref()
    }

    pub(crate) fn called(&self) -> Option<&Called> {
        self.extra.as_ref()?.called.as_deref()
    }

    /// What its run waits for, by the number of the call.
    pub(crate) fn calls(&self) -> Option<&BTreeMap<u32, TaskId>> {
        let extra = self.extra.as_ref()?;
        Some(&extra.calls).filter(|calls| !calls.is_empty())
    }

    /// Which workers may run it.
    pub(crate) fn route(&self) -> NameId {
        self.called().map_or(self.name, |called| called.route)
    }

    pub(crate) fn at_most_once(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.options.at_most_once)
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.extra.as_ref()?.options.key.as_ref()
    }

    /// Whether a run of it was ever granted, as far as is known.
    pub(crate) fn has_started(&self) -> bool {
        self.grant.attempt > 0
    }

    /// A run that ends badly ends the task: a stream that cannot be run again would
    /// be told by half, and what is to begin once does not begin again.
    pub(crate) fn has_one_try(&self) -> bool {
        self.stream().is_some_and(Stream::has_one_try) || self.at_most_once()
    }

    /// The state in which it waits for a slot.
    pub(crate) fn ready(&self) -> Live {
        match self.stream() {
            Some(stream) if !stream.has_reader() => Live::Unread,
            _ => Live::Ready,
        }
    }

    /// Of a stream that has come on since, what went wrong before tells nothing.
    pub(crate) fn forgive(&mut self) {
        if self.stream().is_some_and(Stream::has_come_on) {
            let counters = &mut self.extra_mut().counters;
            (counters.losses, counters.crashes) = (0, 0);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.extra
            .as_ref()
            .map_or_else(Counters::default, |extra| extra.counters)
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = self
            .extra
            .as_ref()
            .map_or_else(Options::default, |extra| extra.options.clone());
        (options.niceness, options.placement) = (self.niceness, self.placement);
        options
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.extra.as_ref()?.options.deadline
    }

    /// When the task expires, as it stands now: a task that has started once
    /// has met `start_before`.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        let options = &self.extra.as_ref()?.options;
        let start_before = if self.grant.attempt == 0 {
            options.start_before
        } else {
            None
        };
        match (options.deadline, start_before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn result_ttl(&self) -> Duration {
        let asked = self.extra.as_ref().and_then(|extra| extra.options.result_ttl);
        asked.unwrap_or(limits::DEFAULT_RESULT_TTL)
    }

    pub(crate) fn waiting(&self, key: TaskKey) -> Waiting {
        Waiting {
            key,
            seq: self.seq,
            queue: self.queue,
            series: self.series,
            route: self.route(),
            niceness: self.niceness,
            placement: self.placement,
        }
    }

    /// The durable form.
    pub(crate) fn record(&self, names: &Names) -> TaskRecord {
        let state = match &self.state {
            Live::Scheduled(at) => State::Scheduled { at: *at },
            Live::Ready | Live::Recovering | Live::Unread | Live::Aside(_) => State::Ready,
            Live::Held(held) => {
                let run = Run {
                    session: held.session,
                    started_at: held.started_at,
                    extended: held.timeout.filter(|_| held.extended),
                    on_loss: self.stream().map_or_else(Default::default, |stream| stream.on_loss),
                };
                held.stop
                    .map_or(State::Running(run), |intent| State::Stopping(run, intent))
            }
        };
        self.record_as(state, names)
    }

    /// The durable form, with another state.
    pub(crate) fn record_as(&self, state: State, names: &Names) -> TaskRecord {
        let extra = self.extra.as_deref();
        let has_ended = matches!(state, State::Finished(_));
        let checkpoint = self.stream().filter(|_| !has_ended).and_then(Stream::safe_checkpoint);
        TaskRecord {
            id: self.id,
            name: names.get(self.name).clone(),
            queue: names.get(self.queue).clone(),
            series: names.get(self.series).clone(),
            options: self.options(),
            enqueued_at: self.enqueued_at,
            start_at: extra.and_then(|extra| extra.start_at),
            payload_bytes: u64::from(self.payload_bytes),
            content_type: extra.map_or_else(Box::default, |extra| extra.content_type.clone()),
            digest: self.digest,
            state,
            grant: self.grant,
            counters: self.counters(),
            failure: extra.and_then(|extra| extra.failure.clone()),
            notes: extra.and_then(|extra| extra.notes.clone()),
            called_by: self.called().map(|called| Box::new(called.by)),
            checkpoint: checkpoint.cloned().map(Box::new),
        }
    }
}
